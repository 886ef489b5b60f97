-- Ends a withdrawal whose units were taken from this epoch of Redis, or could not be. Answers 'done', 'refused', or
-- 'elsewhere' (Redis was filled anew meanwhile, with these units: take them from the new epoch).
CREATE OR REPLACE FUNCTION finish_withdrawal(
    the_adjustment uuid, the_epoch integer, taken boolean, now_us bigint, OUT outcome text, OUT event bigint
) LANGUAGE plpgsql AS $$
DECLARE
    made adjustments;
    p products;
BEGIN
    SELECT * INTO made FROM adjustments WHERE id = the_adjustment;
    IF NOT FOUND THEN
        outcome := 'refused';
        RETURN;
    END IF;
    SELECT * INTO STRICT p FROM products WHERE number = made.product FOR UPDATE;
    SELECT * INTO made FROM adjustments WHERE id = the_adjustment;
    -- Somebody else may have refused it while this one waited for the product.
    IF NOT FOUND THEN
        outcome := 'refused';
        RETURN;
    END IF;
    IF made.done THEN
        outcome := 'done';
        event := made.seq;
        RETURN;
    END IF;
    IF p.epoch <> the_epoch THEN
        outcome := 'elsewhere';
        RETURN;
    END IF;
    IF NOT taken THEN
        DELETE FROM adjustments WHERE id = the_adjustment;
        outcome := 'refused';
        RETURN;
    END IF;
    UPDATE allocations a SET units = a.units + made.delta WHERE a.product = p.number AND a.epoch = p.epoch;
    UPDATE products SET withheld = withheld - made.delta WHERE number = p.number;
    event := add_event('stock-adjusted', p.number, NULL,
        jsonb_build_object('delta', made.delta, 'reason', made.reason, 'key', made.key), now_us);
    UPDATE adjustments SET done = true, seq = event, epoch = p.epoch WHERE id = the_adjustment;
    outcome := 'done';
END $$;
