-- What a worker has in hand when Redis is lost may come after the epoch was sealed. Its units are in the epoch on sale by
-- then, so whether it still gets one is for Redis to say: whoever has it offers it there, as nodes offer what they
-- accepted. Revoked at once, it would be lost although there is a unit and a node that knows it.

-- As deliver(), while the epoch is not sealed. Of one that is, nothing is written; answers 'known' for what the ledger
-- has, and 'sealed' for what it does not know.
CREATE FUNCTION carry(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint,
    ids uuid[], numbers bigint[], customers text[], quantities integer[], prices bigint[], currencies text[],
    times bigint[]
) RETURNS TABLE (order_id uuid, outcome text) LANGUAGE plpgsql AS $$
BEGIN
    -- Who seals holds this row, too.
    PERFORM FROM products p WHERE p.number = the_product FOR UPDATE;
    IF EXISTS (SELECT FROM allocations a WHERE a.product = the_product AND a.epoch = the_epoch AND a.sealed) THEN
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
ALTER FUNCTION carry SET enable_seqscan = off SET jit = off;
