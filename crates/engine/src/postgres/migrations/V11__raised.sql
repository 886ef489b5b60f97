-- A trigger of the operator's that raises an exception and says no more says that it does not want this order. It is
-- refused like one that a constraint does not want: tried again, and then a dead letter. Before, nobody knew what such an
-- error meant, and the order held up its product for as long as the trigger was there.

-- As before, but for what it catches.
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
        EXCEPTION WHEN integrity_constraint_violation OR data_exception OR raise_exception THEN
            -- One bad order must not hold up the others.
            PERFORM FROM ledger FOR UPDATE;
            FOREACH one IN ARRAY fresh LOOP
                BEGIN
                    PERFORM record_orders(the_product, the_epoch, now_us, ARRAY[one]);
                    IF EXISTS (SELECT FROM orders o WHERE o.id = one.id AND o.collided) THEN
                        collided := collided || one.id;
                    END IF;
                EXCEPTION WHEN integrity_constraint_violation OR data_exception OR raise_exception THEN
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

-- The same.
CREATE OR REPLACE FUNCTION retry_refused(the_order uuid, attempts_max integer, release boolean, retry_at bigint, now_us bigint)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r refused;
    number_of_letter bigint;
BEGIN
    SELECT * INTO r FROM refused WHERE id = the_order;
    IF NOT FOUND THEN
        RETURN 'settled';
    END IF;
    PERFORM FROM products WHERE number = r.product FOR UPDATE;
    SELECT * INTO r FROM refused WHERE id = the_order;
    IF NOT FOUND OR r.state <> 'retrying' THEN
        RETURN 'settled';
    END IF;
    -- Somebody else has just tried it.
    IF r.next_at > now_us THEN
        RETURN 'retrying';
    END IF;
    BEGIN
        PERFORM record_orders(r.product, r.epoch, now_us,
            ARRAY[ROW(r.id, r.number, r.customer, r.quantity, r.price, r.currency, r.accepted_at)::granted]);
        IF r.dead_letter IS NULL THEN
            DELETE FROM refused WHERE id = the_order;
        ELSE
            UPDATE refused SET state = 'retried', updated_at = now_us WHERE id = the_order;
        END IF;
        RETURN 'confirmed';
    EXCEPTION WHEN integrity_constraint_violation OR data_exception OR raise_exception THEN
        -- The wait doubles with every attempt.
        UPDATE refused SET attempts = attempts + 1, error = SQLERRM, updated_at = now_us,
            next_at = now_us + (retry_at - now_us) * (1 << least(r.attempts, 10))
        WHERE id = the_order;
    END;
    IF r.attempts + 1 < attempts_max THEN
        RETURN 'retrying';
    END IF;
    UPDATE refused SET state = 'parked', dead_letter = coalesce(dead_letter, nextval('dead_letter_numbers')),
        created_at = CASE WHEN dead_letter IS NULL THEN now_us ELSE created_at END
    WHERE id = the_order RETURNING dead_letter INTO number_of_letter;
    IF NOT release THEN
        RETURN 'parked';
    END IF;
    PERFORM end_order(the_order, 'failed', 'dead letter ' || number_of_letter, now_us);
    RETURN 'released';
END $$;

-- Replacing it has taken this away (V6).
ALTER FUNCTION deliver SET enable_seqscan = off SET jit = off;
