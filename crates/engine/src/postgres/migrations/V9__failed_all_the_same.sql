-- A request that can never be decided is kept as failed, whatever raises an error at the table of orders.

-- As before. A trigger of somebody's own may raise any error for an order that has failed, too: it is among the refused
-- then, where it is found as every order is. Trouble that passes is no answer.
CREATE OR REPLACE FUNCTION keep_undecidable(
    queue text, message bytea, the_error text, the_publisher uuid, the_sequence bigint, the_product integer,
    the_order uuid, the_customer text, the_quantity integer, the_price bigint, the_currency text, the_time bigint,
    now_us bigint
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    kept_under integer;
    sold_from integer;
    letter bigint;
    why text;
BEGIN
    SELECT number, epoch INTO kept_under, sold_from FROM products WHERE number = the_product FOR UPDATE;
    INSERT INTO publishers AS s (id, seen, reported_at)
    VALUES (the_publisher, int8multirange(int8range(the_sequence, the_sequence + 1)), now_us)
    ON CONFLICT (id) DO UPDATE SET seen = s.seen + excluded.seen;
    -- One at a time, also where there is no row of a product to wait for.
    PERFORM FROM ledger FOR UPDATE;
    IF EXISTS (SELECT FROM orders WHERE id = the_order) OR EXISTS (SELECT FROM refused WHERE id = the_order) THEN
        RETURN;
    END IF;
    INSERT INTO unreadable AS u (stream, entry, bytes, error, found_at)
    VALUES (queue, the_order::text, message, the_error, now_us)
    ON CONFLICT (stream, entry) DO UPDATE SET found_at = u.found_at
    RETURNING number INTO letter;
    kept_under := coalesce(kept_under, 0);
    sold_from := coalesce(sold_from, 0);
    why := 'dead letter ' || letter || ': it can never be decided';
    BEGIN
        PERFORM record_revoked(kept_under, sold_from, now_us,
            ARRAY[ROW(the_order, 0, the_customer, the_quantity, the_price, the_currency, the_time)::granted], why);
    EXCEPTION WHEN OTHERS THEN
        IF left(SQLSTATE, 2) IN ('25', '40', '53', '55', '57', '58', 'XX') THEN
            RAISE;
        END IF;
        INSERT INTO refused (id, product, epoch, number, customer, quantity, price, currency, accepted_at, attempts,
                             error, next_at, state, ended, ended_at, ended_reason, revoked, created_at, updated_at)
        VALUES (the_order, kept_under, sold_from, 0, the_customer, the_quantity, the_price, the_currency, the_time, 1,
                SQLERRM, now_us, 'released', 'failed', now_us, why, true, now_us, now_us);
    END;
END $$;
