-- What a ledger does that was restored to an earlier state, or took over from one whose last commits it lacks: Redis knows
-- epochs and orders that it does not know.

-- As before, and of an epoch or a product that the ledger has never heard of nothing is written either: whether there is a
-- unit for its grants is found out once its orders are rescued.
CREATE OR REPLACE FUNCTION carry(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint,
    ids uuid[], numbers bigint[], customers text[], quantities integer[], prices bigint[], currencies text[],
    times bigint[]
) RETURNS TABLE (order_id uuid, outcome text) LANGUAGE plpgsql AS $$
BEGIN
    -- Who seals holds this row, too.
    PERFORM FROM products p WHERE p.number = the_product FOR UPDATE;
    IF NOT EXISTS (SELECT FROM allocations a
                   WHERE a.product = the_product AND a.epoch = the_epoch AND NOT a.sealed) THEN
        RETURN QUERY
        SELECT g.id,
               CASE
                   WHEN EXISTS (SELECT FROM orders o WHERE o.id = g.id) THEN 'known'
                   WHEN EXISTS (SELECT FROM refused r WHERE r.id = g.id) THEN 'known'
                   ELSE 'sealed'
               END
        FROM unnest(ids) AS g (id);
    ELSE
        RETURN QUERY
        SELECT d.order_id, d.outcome
        FROM deliver(the_product, the_epoch, now_us, retry_at, ids, numbers, customers, quantities, prices, currencies,
                     times) d;
    END IF;
END $$;
-- Replacing it took these settings off.
ALTER FUNCTION carry SET enable_seqscan = off SET jit = off;

-- Seals an epoch at what was sold of it and gives the rest to the one after the last that Redis knows, which is the next
-- one unless the ledger is behind. Answers the epoch to be loaded: that one, or the current one if it is another already.
CREATE FUNCTION seal(the_product integer, the_epoch integer, the_last integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    p products;
    rest bigint;
    following CONSTANT integer := greatest(the_epoch, the_last) + 1;
BEGIN
    SELECT * INTO STRICT p FROM products WHERE number = the_product FOR UPDATE;
    IF p.epoch <> the_epoch THEN
        RETURN p.epoch;
    END IF;
    SELECT a.units - a.sold INTO STRICT rest FROM allocations a WHERE a.product = the_product AND a.epoch = the_epoch;
    UPDATE allocations a SET units = a.sold, sealed = true WHERE a.product = the_product AND a.epoch = the_epoch;
    INSERT INTO allocations (product, epoch, units) VALUES (the_product, following, rest);
    -- What was on its way to the sealed one is in the rest.
    UPDATE credits SET applied = true WHERE product = the_product AND NOT applied;
    UPDATE products SET epoch = following, state = 'loading' WHERE number = the_product;
    RETURN following;
END $$;
DROP FUNCTION seal(integer, integer);

-- Begins to bring orders back into an epoch that Redis is yet to be filled with. Answers those that the ledger does not
-- have, or NULL if another epoch is on sale by now or this one was opened: nothing may be written then.
CREATE FUNCTION begin_rescue(the_product integer, the_epoch integer, ids uuid[]) RETURNS uuid[]
LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
BEGIN
    PERFORM FROM products p
    WHERE p.number = the_product AND p.epoch = the_epoch AND p.state = 'loading' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT coalesce(array_agg(DISTINCT g.id), '{}') FROM unnest(ids) AS g (id)
            WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = g.id)
                AND NOT EXISTS (SELECT FROM refused r WHERE r.id = g.id));
END $$;

-- Writes those of these orders that the ledger does not have, as deliver() would if they had been granted in this epoch.
-- Answers as deliver() does for them, 'known' for the others, and 'sealed' for all if nothing may be written.
CREATE FUNCTION rescue(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint,
    ids uuid[], numbers bigint[], customers text[], quantities integer[], prices bigint[], currencies text[],
    times bigint[]
) RETURNS TABLE (order_id uuid, outcome text) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    missing CONSTANT uuid[] := begin_rescue(the_product, the_epoch, ids);
BEGIN
    RETURN QUERY
    SELECT g.id, CASE WHEN missing IS NULL THEN 'sealed' ELSE 'known' END
    FROM unnest(ids) AS g (id) WHERE missing IS NULL OR g.id <> ALL (missing);
    IF cardinality(missing) > 0 THEN
        RETURN QUERY
        SELECT d.order_id, d.outcome
        FROM (SELECT array_agg(g.id) AS ids, array_agg(g.number) AS numbers, array_agg(g.customer) AS customers,
                     array_agg(g.quantity) AS quantities, array_agg(g.price) AS prices,
                     array_agg(g.currency) AS currencies, array_agg(g.accepted_at) AS times
              FROM unnest(ids, numbers, customers, quantities, prices, currencies, times)
                   AS g (id, number, customer, quantity, price, currency, accepted_at)
              WHERE g.id = ANY (missing)) m,
             deliver(the_product, the_epoch, now_us, retry_at, m.ids, m.numbers, m.customers, m.quantities, m.prices,
                     m.currencies, m.times) d;
    END IF;
END $$;

-- Writes those of these orders that the ledger does not have and that had ended, without charging a unit: where theirs
-- came back to is not known any more. Answers 'revoked' for them, and otherwise as rescue().
CREATE FUNCTION rescue_ended(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint,
    ids uuid[], numbers bigint[], customers text[], quantities integer[], prices bigint[], currencies text[],
    times bigint[]
) RETURNS TABLE (order_id uuid, outcome text) LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    missing CONSTANT uuid[] := begin_rescue(the_product, the_epoch, ids);
BEGIN
    IF cardinality(missing) > 0 THEN
        PERFORM record_revoked(the_product, the_epoch, now_us,
            (SELECT array_agg(ROW(g.*)::granted)
             FROM unnest(ids, numbers, customers, quantities, prices, currencies, times)
                  AS g (id, number, customer, quantity, price, currency, accepted_at)
             WHERE g.id = ANY (missing)),
            'it had ended before the ledger was restored to an earlier state');
        -- How it had ended is not known any more, either. Most were cancelled.
        UPDATE orders o SET status = 'cancelled' WHERE o.id = ANY (missing);
        UPDATE refused r SET ended = 'cancelled' WHERE r.id = ANY (missing);
    END IF;
    RETURN QUERY
    SELECT g.id,
           CASE WHEN missing IS NULL THEN 'sealed' WHEN g.id = ANY (missing) THEN 'revoked' ELSE 'known' END
    FROM unnest(ids) AS g (id);
END $$;
