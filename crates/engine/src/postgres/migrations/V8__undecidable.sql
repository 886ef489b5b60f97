-- A request that can never be decided is an order that has failed, so that its sender is told of it.

-- Keeps such a request where operators see it, as an order that has failed without ever taking a unit, and as seen. Doing
-- it again does nothing, and neither does doing it with one that was decided. Where the ledger does not have the product,
-- the order is kept under number 0, which is no product's: the number may become another one's.
CREATE FUNCTION keep_undecidable(
    queue text, message bytea, the_error text, the_publisher uuid, the_sequence bigint, the_product integer,
    the_order uuid, the_customer text, the_quantity integer, the_price bigint, the_currency text, the_time bigint,
    now_us bigint
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off SET jit = off AS $$
DECLARE
    kept_under integer;
    sold_from integer;
    letter bigint;
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
    PERFORM record_revoked(coalesce(kept_under, 0), coalesce(sold_from, 0), now_us,
        ARRAY[ROW(the_order, 0, the_customer, the_quantity, the_price, the_currency, the_time)::granted],
        'dead letter ' || letter || ': it can never be decided');
END $$;
