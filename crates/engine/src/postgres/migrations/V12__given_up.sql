-- An order for which the functions of the ledger fail again and again, while they take others, is a dead letter: a trigger
-- of the operator's own may be broken for it. Before, it held up its product for as long as the trigger was there.

-- Makes a grant a dead letter, as if the table of orders had refused it `tried` times. With `release` it has failed, and its
-- units come back at once. Answers 'parked', 'released', or 'settled': nothing was done, because the ledger has it or its
-- epoch is not on sale; or it was revoked, because there is no unit for it.
CREATE FUNCTION give_up(
    the_product integer, the_epoch integer, the_error text, tried integer, release boolean, now_us bigint,
    the_order uuid, the_number bigint, the_customer text, the_quantity integer, the_price bigint, the_currency text,
    the_time bigint
) RETURNS text LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    most integer;
    room bigint;
    used bigint;
    letter bigint;
    why text;
BEGIN
    SELECT p.limit_highest INTO most FROM products p WHERE p.number = the_product FOR UPDATE;
    SELECT a.units - a.sold INTO room
    FROM allocations a WHERE a.product = the_product AND a.epoch = the_epoch AND NOT a.sealed;
    IF room IS NULL OR EXISTS (SELECT FROM orders WHERE id = the_order)
        OR EXISTS (SELECT FROM refused WHERE id = the_order) THEN
        RETURN 'settled';
    END IF;
    SELECT coalesce(sum(u.quantity), 0) INTO used
    FROM (SELECT o.quantity FROM orders o
          WHERE o.product = the_product AND o.status = 'confirmed' AND o.customer = the_customer
          UNION ALL
          SELECT r.quantity FROM refused r
          WHERE r.product = the_product AND r.ended IS NULL AND r.state <> 'retried' AND r.customer = the_customer) u;
    -- As deliver() says.
    IF the_quantity > room THEN
        why := 'revoked: the ledger has no unit for it';
    ELSIF used + the_quantity > most THEN
        why := format('revoked: with it the customer had more than the %s units that one customer may have', most);
    END IF;
    -- Places are given while it is held.
    PERFORM FROM ledger FOR UPDATE;
    IF why IS NOT NULL THEN
        INSERT INTO refused (id, product, epoch, number, customer, quantity, price, currency, accepted_at, attempts,
                             error, next_at, state, ended, ended_at, ended_reason, revoked, created_at, updated_at)
        VALUES (the_order, the_product, the_epoch, the_number, the_customer, the_quantity, the_price, the_currency,
                the_time, tried, the_error, now_us, 'released', 'failed', now_us, why, true, now_us, now_us);
        RETURN 'settled';
    END IF;
    UPDATE allocations a SET sold = a.sold + the_quantity WHERE a.product = the_product AND a.epoch = the_epoch;
    INSERT INTO refused (dead_letter, id, product, epoch, number, customer, quantity, price, currency, accepted_at,
                         attempts, error, next_at, state, created_at, updated_at)
    VALUES (nextval('dead_letter_numbers'), the_order, the_product, the_epoch, the_number, the_customer, the_quantity,
            the_price, the_currency, the_time, tried, the_error, now_us, 'parked', now_us, now_us)
    RETURNING dead_letter INTO letter;
    IF NOT release THEN
        RETURN 'parked';
    END IF;
    PERFORM end_order(the_order, 'failed', 'dead letter ' || letter, now_us);
    RETURN 'released';
END $$;
