-- Everything that changes the ledger, one function per thing that can be asked. Each call is one statement, so it is
-- one transaction: it happened, or it did not.

CREATE TYPE granted AS (
    id uuid,
    number bigint,
    customer text,
    quantity integer,
    price bigint,
    currency text,
    accepted_at bigint
);
CREATE TYPE judged AS (what granted, verdict text);

-- Makes room for events; returns the number of the first, and their time. Who called it holds the ledger's row.
CREATE FUNCTION next_events(how_many bigint, now_us bigint, OUT first bigint, OUT at_us bigint) LANGUAGE sql AS $$
    UPDATE ledger SET seq = seq + how_many, last_at = greatest(last_at, now_us)
    RETURNING seq - how_many + 1, last_at;
$$;

CREATE FUNCTION add_event(the_kind text, the_product integer, the_order uuid, the_body jsonb, now_us bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    made bigint;
BEGIN
    INSERT INTO events (seq, at, kind, product, order_id, body)
    SELECT n.first, n.at_us, the_kind, the_product, the_order, the_body FROM next_events(1, now_us) n
    RETURNING seq INTO made;
    RETURN made;
END $$;

-- Writes orders that are charged already.
CREATE FUNCTION record_orders(the_product integer, the_epoch integer, now_us bigint, rows granted[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    room record;
BEGIN
    SELECT * INTO STRICT room FROM next_events(cardinality(rows), now_us);
    INSERT INTO orders (id, product, epoch, number, customer, quantity, price, currency, accepted_at, status)
    SELECT g.id, the_product, the_epoch, g.number, g.customer, g.quantity, g.price, g.currency, g.accepted_at,
           'confirmed'
    FROM unnest(rows) AS g ORDER BY g.number;
    INSERT INTO events (seq, at, kind, product, order_id)
    SELECT room.first + row_number() OVER (ORDER BY g.number) - 1, room.at_us, 'order-accepted', the_product, g.id
    FROM unnest(rows) AS g;
END $$;

-- Writes orders that the ledger has no unit for: they failed, and nothing was charged or comes back. One that the
-- table of orders refuses goes to the refused ones, settled.
CREATE FUNCTION record_revoked(the_product integer, the_epoch integer, now_us bigint, rows granted[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    why CONSTANT text := 'revoked: the ledger has no unit for it';
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
-- Answers for each grant: 'confirmed', 'known' (it was here before), 'refused' (kept, to be tried again), 'duplicate'
-- (the order is here under another number; the units go back to Redis), or 'revoked' (its allocation has no unit for
-- it: it was lost with the Redis that granted it, or that Redis was tampered with; the order has failed).
CREATE FUNCTION deliver(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint,
    ids uuid[], numbers bigint[], customers text[], quantities integer[], prices bigint[], currencies text[],
    times bigint[]
) RETURNS TABLE (order_id uuid, outcome text) LANGUAGE plpgsql AS $$
DECLARE
    room bigint := 0;
    is_open boolean;
    all_judged judged[];
    fresh granted[];
    revoked granted[];
    one granted;
    bad uuid[] := '{}';
BEGIN
    -- Units below one would make room that is not there.
    IF EXISTS (SELECT FROM unnest(quantities) q WHERE q IS NULL OR q < 1) THEN
        RAISE EXCEPTION 'an order has at least one unit' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM products WHERE products.number = the_product FOR UPDATE;
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
                   WHEN o.id IS NOT NULL AND o.epoch = the_epoch AND o.number = given.number THEN 'known'
                   WHEN r.id IS NOT NULL AND r.epoch = the_epoch AND r.number = given.number THEN 'known'
                   WHEN o.id IS NOT NULL OR r.id IS NOT NULL THEN 'duplicate'
                   WHEN row_number() OVER (PARTITION BY given.id ORDER BY given.number) > 1 THEN 'duplicate'
                   WHEN is_open THEN 'confirmed'
                   ELSE 'revoked'
               END AS verdict
        FROM given
        LEFT JOIN orders o ON o.id = given.id
        LEFT JOIN refused r ON r.id = given.id
    ), within_room AS (
        SELECT l.*,
               l.verdict = 'confirmed'
                   AND sum(l.quantity) FILTER (WHERE l.verdict = 'confirmed') OVER (ORDER BY l.number, l.id) > room
                   AS is_too_much
        FROM looked_up l
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

    SELECT array_agg(j.what) INTO revoked FROM unnest(all_judged) j WHERE j.verdict = 'revoked';
    IF revoked IS NOT NULL THEN
        PERFORM record_revoked(the_product, the_epoch, now_us, revoked);
    END IF;

    IF is_open THEN
        INSERT INTO credits (id, product, epoch, units, kind, made_at)
        SELECT md5(the_product || ' ' || the_epoch || ' ' || (j.what).number)::uuid, the_product, the_epoch,
               (j.what).quantity, 'void', now_us
        FROM unnest(all_judged) j WHERE j.verdict = 'duplicate' ON CONFLICT DO NOTHING;
    END IF;
    RETURN QUERY
    SELECT (j.what).id,
           CASE WHEN j.verdict = 'confirmed' AND (j.what).id = ANY (bad) THEN 'refused' ELSE j.verdict END
    FROM unnest(all_judged) j;
END $$;

-- The units of an order that ended go to the allocation that is being sold from now, and from there to Redis.
CREATE FUNCTION give_back(the_product integer, the_order uuid, how_many bigint, the_customer text, now_us bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    current_epoch integer;
BEGIN
    SELECT p.epoch INTO STRICT current_epoch FROM products p WHERE p.number = the_product;
    -- Its primary key lets the units of an order come back once.
    INSERT INTO credits (id, product, epoch, units, kind, customer, made_at)
    VALUES (the_order, the_product, current_epoch, how_many, 'returned', the_customer, now_us);
    UPDATE allocations a SET units = a.units + how_many WHERE a.product = the_product AND a.epoch = current_epoch;
END $$;

-- Ends an order; `how` is 'cancelled' or 'failed'. Answers 'ended', 'again' (it had ended so before), 'cancelled' or
-- 'failed' (it had ended otherwise), or 'not-found'.
CREATE FUNCTION end_order(the_order uuid, how text, why text, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    the_product integer;
    o orders;
    r refused;
BEGIN
    SELECT x.product INTO the_product
    FROM (SELECT product FROM orders WHERE id = the_order
          UNION ALL SELECT product FROM refused WHERE id = the_order) x LIMIT 1;
    IF NOT FOUND THEN
        RETURN 'not-found';
    END IF;
    PERFORM FROM products WHERE number = the_product FOR UPDATE;
    SELECT * INTO o FROM orders WHERE id = the_order;
    IF FOUND THEN
        IF o.status <> 'confirmed' THEN
            RETURN CASE WHEN o.status = how THEN 'again' ELSE o.status END;
        END IF;
        UPDATE orders SET status = how, ended_at = now_us, reason = why WHERE id = the_order;
        PERFORM give_back(the_product, the_order, o.quantity, o.customer, now_us);
    ELSE
        SELECT * INTO STRICT r FROM refused WHERE id = the_order;
        IF r.ended IS NOT NULL THEN
            RETURN CASE WHEN r.ended = how THEN 'again' ELSE r.ended END;
        END IF;
        UPDATE refused SET state = 'released', ended = how, ended_at = now_us, ended_reason = why, updated_at = now_us
        WHERE id = the_order;
        PERFORM give_back(the_product, the_order, r.quantity, r.customer, now_us);
        -- It was accepted, although the ledger could not take it: the feed tells both.
        PERFORM add_event('order-accepted', the_product, the_order, NULL, now_us);
    END IF;
    PERFORM add_event('order-' || how, the_product, the_order, jsonb_build_object('reason', why), now_us);
    RETURN 'ended';
END $$;

-- Tries a refused order again if it is due; after `attempts_max` it is a dead letter. Answers 'confirmed', 'retrying',
-- 'parked', 'released', or 'settled' (there was nothing to do).
CREATE FUNCTION retry_refused(the_order uuid, attempts_max integer, release boolean, retry_at bigint, now_us bigint)
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
    EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
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

-- Sends a parked dead letter to be tried again, with all its attempts. Answers 'done', 'not-found', or the state that
-- it is in.
CREATE FUNCTION retry_dead_letter(the_letter bigint, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r refused;
BEGIN
    SELECT * INTO r FROM refused WHERE dead_letter = the_letter;
    IF NOT FOUND THEN
        RETURN 'not-found';
    END IF;
    PERFORM FROM products WHERE number = r.product FOR UPDATE;
    SELECT * INTO STRICT r FROM refused WHERE dead_letter = the_letter;
    IF r.state <> 'parked' THEN
        RETURN r.state;
    END IF;
    UPDATE refused SET state = 'retrying', attempts_before = attempts_before + attempts, attempts = 0,
        next_at = now_us, updated_at = now_us
    WHERE id = r.id;
    RETURN 'done';
END $$;

-- Archives a dead letter, and gives its units back unless they are back. Answers as retry_dead_letter.
CREATE FUNCTION discard_dead_letter(the_letter bigint, why text, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    r refused;
BEGIN
    SELECT * INTO r FROM refused WHERE dead_letter = the_letter;
    IF NOT FOUND THEN
        RETURN 'not-found';
    END IF;
    PERFORM FROM products WHERE number = r.product FOR UPDATE;
    SELECT * INTO STRICT r FROM refused WHERE dead_letter = the_letter;
    IF r.state NOT IN ('parked', 'released') THEN
        RETURN r.state;
    END IF;
    IF r.state = 'parked' THEN
        PERFORM end_order(r.id, 'failed', why, now_us);
    END IF;
    UPDATE refused SET state = 'discarded', reason = why, updated_at = now_us WHERE id = r.id;
    RETURN 'done';
END $$;

-- Puts something on sale. Answers the product's number, or NULL if the id is taken.
CREATE FUNCTION create_product(the_id text, body jsonb, now_us bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    chosen text := the_id;
    made integer;
    candidate bigint;
BEGIN
    -- One at a time, so that a free number stays free until it is taken.
    PERFORM pg_advisory_xact_lock(7096335);
    IF chosen IS NULL THEN
        SELECT count(*) + 1 INTO candidate FROM products;
        WHILE EXISTS (SELECT FROM products WHERE id = candidate::text) LOOP
            candidate := candidate + 1;
        END LOOP;
        chosen := candidate::text;
    ELSIF EXISTS (SELECT FROM products WHERE id = chosen) THEN
        RETURN NULL;
    END IF;
    INSERT INTO products (id, name, price, currency, stock, starts_at, ends_at, limit_per_customer, max_per_order,
                          stocked)
    VALUES (chosen, body->>'name', (body->>'price')::bigint, body->>'currency', (body->>'stock')::bigint,
            (body->>'starts_at')::bigint, (body->>'ends_at')::bigint, (body->>'limit_per_customer')::integer,
            (body->>'max_per_order')::integer, (body->>'stock')::bigint)
    RETURNING number INTO made;
    INSERT INTO allocations (product, epoch, units) VALUES (made, 1, (body->>'stock')::bigint);
    PERFORM add_event('product-created', made, NULL, body || jsonb_build_object('id', chosen), now_us);
    RETURN made;
END $$;

-- Changes what is said about a product. `change` has the columns that change. Answers whether there is such a product,
-- and 'window-empty' if its sale would end before it starts.
CREATE FUNCTION change_product(the_id text, change jsonb, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    p products;
BEGIN
    SELECT * INTO p FROM products WHERE id = the_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'not-found';
    END IF;
    p := jsonb_populate_record(p, change);
    IF p.ends_at <= p.starts_at THEN
        RETURN 'window-empty';
    END IF;
    IF change = '{}'::jsonb THEN
        RETURN 'again';
    END IF;
    UPDATE products SET name = p.name, price = p.price, currency = p.currency, starts_at = p.starts_at,
        ends_at = p.ends_at, limit_per_customer = p.limit_per_customer, max_per_order = p.max_per_order,
        version = version + 1
    WHERE number = p.number;
    PERFORM add_event('product-changed', p.number, NULL, change, now_us);
    RETURN 'done';
END $$;

-- Stops or resumes selling.
CREATE FUNCTION set_paused(the_id text, to_be boolean, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    p products;
BEGIN
    SELECT * INTO p FROM products WHERE id = the_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'not-found';
    END IF;
    IF p.paused = to_be THEN
        RETURN 'again';
    END IF;
    UPDATE products SET paused = to_be, version = version + 1 WHERE number = p.number;
    PERFORM add_event(CASE WHEN to_be THEN 'sale-paused' ELSE 'sale-resumed' END, p.number, NULL, NULL, now_us);
    RETURN 'done';
END $$;

-- Begins an adjustment. A restock is done with it; a withdrawal must take its units from Redis first. Answers 'done',
-- 'again' (made before), 'withdraw' (take the units from this epoch of Redis, then call finish_withdrawal),
-- 'key-reused', 'too-large' or 'not-found'.
CREATE FUNCTION adjust_stock(
    the_id text, how_many bigint, the_key text, why text, units_max bigint, now_us bigint,
    OUT outcome text, OUT adjustment uuid, OUT product_number integer, OUT product_epoch integer, OUT event bigint
) LANGUAGE plpgsql AS $$
DECLARE
    p products;
    made adjustments;
BEGIN
    SELECT * INTO p FROM products WHERE id = the_id FOR UPDATE;
    IF NOT FOUND THEN
        outcome := 'not-found';
        RETURN;
    END IF;
    product_number := p.number;
    product_epoch := p.epoch;
    SELECT * INTO made FROM adjustments WHERE product = p.number AND key = the_key;
    IF FOUND AND made.delta <> how_many THEN
        outcome := 'key-reused';
        RETURN;
    END IF;
    IF made.id IS NOT NULL THEN
        adjustment := made.id;
        event := made.seq;
        outcome := CASE WHEN made.done THEN 'again' ELSE 'withdraw' END;
        RETURN;
    END IF;
    IF how_many > 0 AND p.stocked + how_many > units_max THEN
        outcome := 'too-large';
        RETURN;
    END IF;
    INSERT INTO adjustments (product, key, delta, reason, done, made_at)
    VALUES (p.number, the_key, how_many, why, how_many >= 0, now_us) RETURNING id INTO adjustment;
    IF how_many < 0 THEN
        outcome := 'withdraw';
        RETURN;
    END IF;
    UPDATE products SET stocked = stocked + how_many WHERE number = p.number;
    IF how_many > 0 THEN
        UPDATE allocations a SET units = a.units + how_many WHERE a.product = p.number AND a.epoch = p.epoch;
        INSERT INTO credits (id, product, epoch, units, kind, made_at)
        VALUES (adjustment, p.number, p.epoch, how_many, 'restocked', now_us);
    END IF;
    event := add_event('stock-adjusted', p.number, NULL,
        jsonb_build_object('delta', how_many, 'reason', why, 'key', the_key), now_us);
    UPDATE adjustments SET seq = event WHERE id = adjustment;
    outcome := 'done';
END $$;

-- Ends a withdrawal whose units were taken from this epoch of Redis, or could not be. Answers 'done', 'refused', or
-- 'elsewhere' (Redis was filled anew meanwhile, with these units: take them from the new epoch).
CREATE FUNCTION finish_withdrawal(
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

-- Whether this loader may fill Redis with a product now.
CREATE FUNCTION become_loader(the_product integer, me uuid, seconds double precision) RETURNS boolean
LANGUAGE sql AS $$
    WITH taken AS (
        UPDATE products SET loader = me, loader_until = now() + make_interval(secs => seconds)
        WHERE number = the_product AND (loader = me OR loader_until IS NULL OR loader_until < now())
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM taken);
$$;

-- Seals an epoch at what was sold of it and gives the rest to the next. Answers the epoch to be loaded: the next one,
-- or the current one if it is another already.
CREATE FUNCTION seal(the_product integer, the_epoch integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    p products;
    rest bigint;
BEGIN
    SELECT * INTO STRICT p FROM products WHERE number = the_product FOR UPDATE;
    IF p.epoch <> the_epoch THEN
        RETURN p.epoch;
    END IF;
    SELECT a.units - a.sold INTO STRICT rest FROM allocations a WHERE a.product = the_product AND a.epoch = the_epoch;
    UPDATE allocations a SET units = a.sold, sealed = true WHERE a.product = the_product AND a.epoch = the_epoch;
    INSERT INTO allocations (product, epoch, units) VALUES (the_product, the_epoch + 1, rest);
    -- What was on its way to the sealed one is in the rest.
    UPDATE credits SET applied = true WHERE product = the_product AND NOT applied;
    UPDATE products SET epoch = the_epoch + 1, state = 'loading' WHERE number = the_product;
    RETURN the_epoch + 1;
END $$;
