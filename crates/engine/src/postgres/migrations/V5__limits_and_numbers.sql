-- What the ledger does about a Redis that has lost count: of what a customer has, or of its own grants.

-- The highest limit per customer that the product ever had; NULL if it once had none. Who had no more than that when
-- Redis accepted his order keeps it, whatever the limit is by now.
ALTER TABLE products ADD COLUMN limit_highest integer;
UPDATE products p SET limit_highest = (
    SELECT CASE WHEN count(*) = count(s.said) THEN max(s.said) END
    FROM (SELECT p.limit_per_customer AS said
          UNION ALL
          SELECT (e.body->>'limit_per_customer')::integer FROM events e
          WHERE e.product = p.number AND (e.kind = 'product-created'
              OR e.kind = 'product-changed' AND e.body ? 'limit_per_customer')) s);

CREATE FUNCTION note_limit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.limit_per_customer IS NULL THEN
        NEW.limit_highest := NEW.limit_per_customer;
    ELSIF OLD.limit_highest IS NOT NULL THEN
        NEW.limit_highest := greatest(OLD.limit_highest, NEW.limit_per_customer);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER note_limit BEFORE INSERT OR UPDATE OF limit_per_customer ON products
    FOR EACH ROW EXECUTE FUNCTION note_limit();

-- Its number was another order's already: Redis had gone back in time when it granted it. There was a unit for it, so
-- it is an order like any other.
ALTER TABLE orders ADD COLUMN collided boolean NOT NULL DEFAULT false;
DROP INDEX orders_by_grant;
CREATE UNIQUE INDEX orders_by_grant ON orders (product, epoch, number) WHERE NOT revoked AND NOT collided;
CREATE INDEX orders_collided ON orders (product, epoch) WHERE collided;

-- Writes orders that are charged already. One by itself may have the number of another.
CREATE OR REPLACE FUNCTION record_orders(the_product integer, the_epoch integer, now_us bigint, rows granted[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    room record;
    is_collided boolean;
    violated text;
BEGIN
    FOREACH is_collided IN ARRAY ARRAY[false, true] LOOP
        BEGIN
            SELECT * INTO STRICT room FROM next_events(cardinality(rows), now_us);
            INSERT INTO orders (id, product, epoch, number, customer, quantity, price, currency, accepted_at, status,
                                collided)
            SELECT g.id, the_product, the_epoch, g.number, g.customer, g.quantity, g.price, g.currency, g.accepted_at,
                   'confirmed', is_collided
            FROM unnest(rows) AS g ORDER BY g.number;
            INSERT INTO events (seq, at, kind, product, order_id)
            SELECT room.first + row_number() OVER (ORDER BY g.number) - 1, room.at_us, 'order-accepted', the_product,
                   g.id
            FROM unnest(rows) AS g;
            RETURN;
        EXCEPTION WHEN unique_violation THEN
            GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
            IF is_collided OR cardinality(rows) > 1 OR violated <> 'orders_by_grant' THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END $$;

-- As before, and tells why.
DROP FUNCTION record_revoked(integer, integer, bigint, granted[]);
CREATE FUNCTION record_revoked(the_product integer, the_epoch integer, now_us bigint, rows granted[], why text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one granted;
BEGIN
    PERFORM FROM ledger FOR UPDATE;
    FOREACH one IN ARRAY rows LOOP
        BEGIN
            INSERT INTO orders (id, product, epoch, number, customer, quantity, price, currency, accepted_at, status,
                                ended_at, reason, revoked)
            VALUES (one.id, the_product, the_epoch, one.number, one.customer, one.quantity, one.price, one.currency,
                    one.accepted_at, 'failed', now_us, why, true);
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            INSERT INTO refused (id, product, epoch, number, customer, quantity, price, currency, accepted_at,
                                 attempts, error, next_at, state, ended, ended_at, ended_reason, revoked,
                                 created_at, updated_at)
            VALUES (one.id, the_product, the_epoch, one.number, one.customer, one.quantity, one.price, one.currency,
                    one.accepted_at, 1, SQLERRM, now_us, 'released', 'failed', now_us, why, true, now_us,
                    now_us);
        END;
    END LOOP;
END $$;

-- Carries what Redis granted into the ledger. May be called again with the same grants: what is there stays as it is.
-- Answers for each grant:
--   'confirmed'
--   'collided'    the same, but its number was another order's
--   'known'       it was here before
--   'refused'     kept, to be tried again
--   'duplicate'   the order is here under another number; the units go back to Redis
--   'revoked'     the order has failed without taking a unit: its allocation has none for it, or its customer would have
--                 more than was ever allowed
-- As long as the epoch is sold from, what was revoked or has collided is told so again: whoever asked first may have
-- died before it did anything about that Redis.
CREATE OR REPLACE FUNCTION deliver(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint,
    ids uuid[], numbers bigint[], customers text[], quantities integer[], prices bigint[], currencies text[],
    times bigint[]
) RETURNS TABLE (order_id uuid, outcome text) LANGUAGE plpgsql AS $$
DECLARE
    room bigint := 0;
    is_open boolean;
    most integer;
    all_judged judged[];
    fresh granted[];
    revoked granted[];
    above granted[];
    later granted[];
    one granted;
    bad uuid[] := '{}';
    collided uuid[] := '{}';
BEGIN
    -- Units below one would make room that is not there.
    IF EXISTS (SELECT FROM unnest(quantities) q WHERE q IS NULL OR q < 1) THEN
        RAISE EXCEPTION 'an order has at least one unit' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT p.limit_highest INTO most FROM products p WHERE p.number = the_product FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no product number %', the_product USING ERRCODE = 'no_data_found';
    END IF;
    SELECT a.units - a.sold, NOT a.sealed INTO room, is_open
    FROM allocations a WHERE a.product = the_product AND a.epoch = the_epoch;
    WITH given AS (
        SELECT DISTINCT ON (g.id, g.number) g.*
        FROM unnest(ids, numbers, customers, quantities, prices, currencies, times)
             AS g (id, number, customer, quantity, price, currency, accepted_at)
    ), looked_up AS (
        SELECT given.*,
               CASE
                   WHEN coalesce(o.epoch, r.epoch) = the_epoch AND coalesce(o.number, r.number) = given.number THEN
                       CASE
                           WHEN is_open AND coalesce(o.revoked, r.revoked) THEN 'revoked again'
                           WHEN is_open AND o.collided THEN 'collided again'
                           ELSE 'known'
                       END
                   WHEN o.id IS NOT NULL OR r.id IS NOT NULL THEN 'duplicate'
                   WHEN row_number() OVER (PARTITION BY given.id ORDER BY given.number) > 1 THEN 'duplicate'
                   WHEN is_open THEN 'confirmed'
                   ELSE 'revoked'
               END AS verdict
        FROM given
        LEFT JOIN orders o ON o.id = given.id
        LEFT JOIN refused r ON r.id = given.id
    ), holding AS (
        SELECT u.customer, sum(u.quantity) AS units
        FROM (SELECT o.customer, o.quantity FROM orders o
              WHERE o.product = the_product AND o.status = 'confirmed' AND o.customer = ANY (customers)
              UNION ALL
              SELECT r.customer, r.quantity FROM refused r
              WHERE r.product = the_product AND r.ended IS NULL AND r.state <> 'retried'
                  AND r.customer = ANY (customers)) u
        WHERE most IS NOT NULL GROUP BY u.customer
    ), within_limit AS (
        SELECT l.*,
               coalesce(l.verdict = 'confirmed' AND coalesce(h.units, 0) + sum(l.quantity)
                   FILTER (WHERE l.verdict = 'confirmed') OVER (PARTITION BY l.customer ORDER BY l.number, l.id)
                   > most, false) AS is_above
        FROM looked_up l LEFT JOIN holding h ON h.customer = l.customer
    ), sorted AS (
        -- Behind the first of a customer that is above the limit, smaller ones may fit.
        SELECT w.id, w.number, w.customer, w.quantity, w.price, w.currency, w.accepted_at,
               CASE
                   WHEN NOT w.is_above THEN w.verdict
                   WHEN row_number() OVER (PARTITION BY w.customer, w.is_above ORDER BY w.number, w.id) = 1
                       THEN 'above limit'
                   ELSE 'later'
               END AS verdict
        FROM within_limit w
    ), within_room AS (
        SELECT s.*,
               s.verdict = 'confirmed'
                   AND sum(s.quantity) FILTER (WHERE s.verdict = 'confirmed') OVER (ORDER BY s.number, s.id) > room
                   AS is_too_much
        FROM sorted s
    )
    SELECT array_agg(ROW(
               ROW(w.id, w.number, w.customer, w.quantity, w.price, w.currency, w.accepted_at)::granted,
               CASE WHEN w.is_too_much THEN 'revoked' ELSE w.verdict END
           )::judged ORDER BY w.number)
    INTO all_judged FROM within_room w;

    SELECT array_agg(j.what) INTO fresh FROM unnest(all_judged) j WHERE j.verdict = 'confirmed';
    IF fresh IS NOT NULL THEN
        UPDATE allocations a SET sold = a.sold + (SELECT sum(f.quantity) FROM unnest(fresh) f)
        WHERE a.product = the_product AND a.epoch = the_epoch;
        BEGIN
            PERFORM record_orders(the_product, the_epoch, now_us, fresh);
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            -- One bad order must not hold up the others.
            PERFORM FROM ledger FOR UPDATE;
            FOREACH one IN ARRAY fresh LOOP
                BEGIN
                    PERFORM record_orders(the_product, the_epoch, now_us, ARRAY[one]);
                    IF EXISTS (SELECT FROM orders o WHERE o.id = one.id AND o.collided) THEN
                        collided := collided || one.id;
                    END IF;
                EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
                    INSERT INTO refused (id, product, epoch, number, customer, quantity, price, currency, accepted_at,
                                         attempts, error, next_at, state, created_at, updated_at)
                    VALUES (one.id, the_product, the_epoch, one.number, one.customer, one.quantity, one.price,
                            one.currency, one.accepted_at, 1, SQLERRM, retry_at, 'retrying', now_us, now_us);
                    bad := bad || one.id;
                END;
            END LOOP;
        END;
    END IF;

    SELECT array_agg(j.what) FILTER (WHERE j.verdict = 'revoked'),
           array_agg(j.what) FILTER (WHERE j.verdict = 'above limit'),
           array_agg(j.what) FILTER (WHERE j.verdict = 'later')
    INTO revoked, above, later FROM unnest(all_judged) j;
    IF revoked IS NOT NULL THEN
        PERFORM record_revoked(the_product, the_epoch, now_us, revoked, 'revoked: the ledger has no unit for it');
    END IF;
    IF above IS NOT NULL THEN
        PERFORM record_revoked(the_product, the_epoch, now_us, above,
            format('revoked: with it the customer had more than the %s units that one customer may have', most));
    END IF;

    IF is_open THEN
        INSERT INTO credits (id, product, epoch, units, kind, made_at)
        SELECT md5(the_product || ' ' || the_epoch || ' ' || (j.what).number)::uuid, the_product, the_epoch,
               (j.what).quantity, 'void', now_us
        FROM unnest(all_judged) j WHERE j.verdict = 'duplicate' ON CONFLICT DO NOTHING;
    END IF;
    RETURN QUERY
    SELECT (j.what).id,
           CASE
               WHEN j.verdict = 'confirmed' AND (j.what).id = ANY (bad) THEN 'refused'
               WHEN j.verdict = 'confirmed' AND (j.what).id = ANY (collided) THEN 'collided'
               WHEN j.verdict = 'collided again' THEN 'collided'
               WHEN j.verdict IN ('revoked again', 'above limit') THEN 'revoked'
               ELSE j.verdict
           END
    FROM unnest(all_judged) j WHERE j.verdict <> 'later';
    IF later IS NOT NULL THEN
        RETURN QUERY
        SELECT d.order_id, d.outcome
        FROM (SELECT array_agg(l.id) AS ids, array_agg(l.number) AS numbers, array_agg(l.customer) AS customers,
                     array_agg(l.quantity) AS quantities, array_agg(l.price) AS prices,
                     array_agg(l.currency) AS currencies, array_agg(l.accepted_at) AS times
              FROM unnest(later) l) g,
             deliver(the_product, the_epoch, now_us, retry_at, g.ids, g.numbers, g.customers, g.quantities, g.prices,
                     g.currencies, g.times) d;
    END IF;
END $$;
