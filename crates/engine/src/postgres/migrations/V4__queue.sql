-- What the rabbitmq engine adds: its orders are decided here, by the workers that read them from the queue.

-- Which engine sells from this ledger: two that do not know of each other's promises must not.
ALTER TABLE ledger ADD COLUMN engine text CHECK (engine IN ('redis', 'rabbitmq'));
UPDATE ledger SET engine = 'redis' WHERE EXISTS (SELECT FROM products);

-- The fencing token: raised by every worker that begins to decide for a product. One that comes back with an older one
-- has lost its place and decides nothing.
ALTER TABLE products ADD COLUMN fence bigint NOT NULL DEFAULT 0;

-- The number of the last order that was decided.
ALTER TABLE allocations ADD COLUMN decided bigint NOT NULL DEFAULT 0;

-- A request that was queued and then refused is kept as an order, so that its sender finds it, and so that the same
-- message decides nothing when it comes again. It is `revoked` from the start: it never took a unit.
ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders ADD CONSTRAINT orders_status_check
    CHECK (status IN ('confirmed', 'cancelled', 'failed', 'rejected') AND (status <> 'rejected' OR revoked));
-- Why it was refused, in figures: units left, or units that the customer had.
ALTER TABLE orders ADD COLUMN figure bigint;

-- Who sends to the queue, and which of their messages were confirmed by the broker and seen by a worker. What was
-- confirmed and is never seen was lost by the broker.
CREATE TABLE publishers (
    id uuid PRIMARY KEY,
    confirmed int8multirange NOT NULL DEFAULT '{}',
    seen int8multirange NOT NULL DEFAULT '{}',
    reported_at bigint NOT NULL
);

-- Makes the ledger an engine's, unless it is one's already; answers whose it is.
CREATE FUNCTION claim_ledger(the_engine text) RETURNS text LANGUAGE sql AS $$
    UPDATE ledger SET engine = coalesce(engine, the_engine) RETURNING engine;
$$;

-- Where orders are decided here, units that come back have nowhere else to go.
CREATE FUNCTION apply_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.applied := NEW.applied OR coalesce((SELECT engine = 'rabbitmq' FROM ledger), false);
    RETURN NEW;
END $$;
CREATE TRIGGER apply_credit BEFORE INSERT ON credits FOR EACH ROW EXECUTE FUNCTION apply_credit();

-- Writes orders that are charged already; answers those that the table refuses, which are kept to be tried again.
CREATE FUNCTION record_or_refuse(
    the_product integer, the_epoch integer, now_us bigint, retry_at bigint, rows granted[]
) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    one granted;
    bad uuid[] := '{}';
BEGIN
    BEGIN
        PERFORM record_orders(the_product, the_epoch, now_us, rows);
        RETURN bad;
    EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
        -- One bad order must not hold up the others.
        NULL;
    END;
    PERFORM FROM ledger FOR UPDATE;
    FOREACH one IN ARRAY rows LOOP
        BEGIN
            PERFORM record_orders(the_product, the_epoch, now_us, ARRAY[one]);
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            INSERT INTO refused (id, product, epoch, number, customer, quantity, price, currency, accepted_at,
                                 attempts, error, next_at, state, created_at, updated_at)
            VALUES (one.id, the_product, the_epoch, one.number, one.customer, one.quantity, one.price, one.currency,
                    one.accepted_at, 1, SQLERRM, retry_at, 'retrying', now_us, now_us);
            bad := bad || one.id;
        END;
    END LOOP;
    RETURN bad;
END $$;

-- Decides requests from the queue, in their order, as one step. `the_fence` is the token of an earlier call, or NULL
-- for a worker that begins: it gets a new one. With an old one nothing happens, and `stale` is true.
--
-- Answers for each request: 'confirmed', 'refused' (confirmed, but the table of orders does not take it yet), 'known'
-- (decided before), 'limit-reached' (the figure: units that the customer had) or 'sold-out' (units that were left).
CREATE FUNCTION decide(
    the_product integer, the_fence bigint, now_us bigint, retry_at bigint,
    senders uuid[], sequences bigint[], ids uuid[], customers text[], quantities integer[], prices bigint[],
    currencies text[], times bigint[],
    OUT new_fence bigint, OUT stale boolean, OUT outcomes text[], OUT figures bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    p products;
    room bigint;
    last_number bigint;
    charged bigint := 0;
    is_known boolean[];
    -- Units that the customer had before, and how many requests of his the batch has up to this one.
    held bigint[];
    nth bigint[];
    used bigint;
    numbers bigint[] := '{}';
    fresh granted[];
    bad uuid[];
BEGIN
    IF EXISTS (SELECT FROM unnest(quantities) q WHERE q IS NULL OR q < 1) THEN
        RAISE EXCEPTION 'an order has at least one unit' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO p FROM products WHERE number = the_product FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no product number %', the_product USING ERRCODE = 'no_data_found';
    END IF;
    new_fence := coalesce(the_fence, p.fence + 1);
    stale := the_fence IS NOT NULL AND the_fence <> p.fence;
    IF stale THEN
        RETURN;
    END IF;
    IF the_fence IS NULL THEN
        UPDATE products SET fence = new_fence WHERE number = the_product;
    END IF;

    WITH given AS (
        SELECT g.id, g.customer, g.place,
               row_number() OVER (PARTITION BY g.id ORDER BY g.place) > 1 AS is_repeated,
               row_number() OVER (PARTITION BY g.customer ORDER BY g.place) AS nth
        FROM unnest(ids, customers) WITH ORDINALITY AS g (id, customer, place)
    ), holding AS (
        SELECT u.customer, sum(u.quantity) AS units
        FROM (SELECT o.customer, o.quantity FROM orders o
              WHERE o.product = the_product AND o.status = 'confirmed' AND o.customer = ANY (customers)
              UNION ALL
              SELECT r.customer, r.quantity FROM refused r
              WHERE r.product = the_product AND r.ended IS NULL AND r.state <> 'retried'
                  AND r.customer = ANY (customers)) u
        WHERE p.limit_per_customer IS NOT NULL GROUP BY u.customer
    )
    SELECT array_agg(g.is_repeated OR EXISTS (SELECT FROM orders o WHERE o.id = g.id)
                     OR EXISTS (SELECT FROM refused r WHERE r.id = g.id) ORDER BY g.place),
           array_agg(coalesce(h.units, 0) ORDER BY g.place), array_agg(g.nth ORDER BY g.place)
    INTO is_known, held, nth
    FROM given g LEFT JOIN holding h ON h.customer = g.customer;

    SELECT a.units - a.sold, a.decided INTO STRICT room, last_number
    FROM allocations a WHERE a.product = the_product AND a.epoch = p.epoch;
    outcomes := '{}';
    figures := '{}';
    FOR i IN 1 .. cardinality(ids) LOOP
        numbers[i] := NULL;
        figures[i] := NULL;
        IF is_known[i] THEN
            outcomes[i] := 'known';
            CONTINUE;
        END IF;
        IF p.limit_per_customer IS NOT NULL THEN
            used := held[i];
            IF nth[i] > 1 THEN
                FOR j IN 1 .. i - 1 LOOP
                    IF customers[j] = customers[i] AND outcomes[j] = 'confirmed' THEN
                        used := used + quantities[j];
                    END IF;
                END LOOP;
            END IF;
            IF used + quantities[i] > p.limit_per_customer THEN
                outcomes[i] := 'limit-reached';
                figures[i] := used;
                CONTINUE;
            END IF;
        END IF;
        IF quantities[i] > room THEN
            outcomes[i] := 'sold-out';
            figures[i] := room;
            CONTINUE;
        END IF;
        room := room - quantities[i];
        charged := charged + quantities[i];
        last_number := last_number + 1;
        numbers[i] := last_number;
        outcomes[i] := 'confirmed';
    END LOOP;

    INSERT INTO publishers AS s (id, seen, reported_at)
    SELECT g.sender, range_agg(int8range(g.sequence, g.sequence + 1)), now_us
    FROM unnest(senders, sequences) AS g (sender, sequence) GROUP BY g.sender ORDER BY g.sender
    ON CONFLICT (id) DO UPDATE SET seen = s.seen + excluded.seen;

    INSERT INTO orders (id, product, epoch, number, customer, quantity, price, currency, accepted_at, status, ended_at,
                        reason, revoked, figure)
    SELECT g.id, the_product, p.epoch, 0, g.customer, g.quantity, g.price, g.currency, g.accepted_at, 'rejected',
           now_us, g.outcome, true, g.figure
    FROM unnest(ids, customers, quantities, prices, currencies, times, outcomes, figures) WITH ORDINALITY
         AS g (id, customer, quantity, price, currency, accepted_at, outcome, figure, place)
    WHERE g.outcome IN ('limit-reached', 'sold-out') ORDER BY g.place;

    IF charged > 0 THEN
        UPDATE allocations a SET sold = a.sold + charged, decided = last_number
        WHERE a.product = the_product AND a.epoch = p.epoch;
        SELECT array_agg(ROW(g.id, g.number, g.customer, g.quantity, g.price, g.currency, g.accepted_at)::granted
                         ORDER BY g.number)
        INTO fresh
        FROM unnest(ids, numbers, customers, quantities, prices, currencies, times)
             AS g (id, number, customer, quantity, price, currency, accepted_at)
        WHERE g.number IS NOT NULL;
        bad := record_or_refuse(the_product, p.epoch, now_us, retry_at, fresh);
        IF cardinality(bad) > 0 THEN
            FOR i IN 1 .. cardinality(ids) LOOP
                IF outcomes[i] = 'confirmed' AND ids[i] = ANY (bad) THEN
                    outcomes[i] := 'refused';
                END IF;
            END LOOP;
        END IF;
    END IF;
END $$;

-- What a publisher knows to be confirmed; answers what was seen of it. Forgets those who are long gone and lost
-- nothing.
CREATE FUNCTION report_confirmed(the_publisher uuid, ranges text, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer text;
BEGIN
    DELETE FROM publishers
    WHERE reported_at < now_us - 86400000000 AND id <> the_publisher AND isempty(confirmed - seen);
    INSERT INTO publishers AS s (id, confirmed, reported_at) VALUES (the_publisher, ranges::int8multirange, now_us)
    ON CONFLICT (id) DO UPDATE SET confirmed = s.confirmed + excluded.confirmed, reported_at = now_us
    RETURNING seen::text INTO answer;
    RETURN answer;
END $$;

-- What could not be read is a dead letter, too: it waits for an operator, who can only discard it.
ALTER TABLE unreadable
    ADD COLUMN number bigint NOT NULL UNIQUE DEFAULT nextval('dead_letter_numbers'),
    ADD COLUMN state text NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'discarded')),
    -- When it was discarded, and why.
    ADD COLUMN updated_at bigint,
    ADD COLUMN reason text;

-- As before, and what could not be read with the beginning of its bytes.
CREATE OR REPLACE VIEW dead_letters AS
SELECT r.dead_letter AS number, r.id, r.number AS grant_number, p.id AS product, r.customer, r.quantity, r.error,
       r.attempts_before + r.attempts AS attempts, r.created_at, r.updated_at, r.reason,
       CASE
           WHEN r.state = 'retrying' THEN 'retried'
           WHEN r.state = 'released' AND EXISTS (SELECT FROM credits c WHERE c.id = r.id AND NOT c.applied)
               THEN 'releasing'
           ELSE r.state
       END AS state, NULL::bytea AS bytes
FROM refused r JOIN products p ON p.number = r.product
WHERE r.dead_letter IS NOT NULL
UNION ALL
SELECT u.number, NULL, NULL, NULL, NULL, NULL, u.error, 0, u.found_at, coalesce(u.updated_at, u.found_at), u.reason,
       u.state, substring(u.bytes FROM 1 FOR 2048)
FROM unreadable u;

-- As retry_dead_letter, also for what is no order: 'unreadable'.
CREATE FUNCTION retry_letter(the_letter bigint, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM unreadable WHERE number = the_letter) THEN
        RETURN 'unreadable';
    END IF;
    RETURN retry_dead_letter(the_letter, now_us);
END $$;

-- As discard_dead_letter, also for what is no order.
CREATE FUNCTION discard_letter(the_letter bigint, why text, now_us bigint) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE unreadable SET state = 'discarded', reason = why, updated_at = now_us
    WHERE number = the_letter AND state = 'parked';
    IF FOUND THEN
        RETURN 'done';
    END IF;
    IF EXISTS (SELECT FROM unreadable WHERE number = the_letter) THEN
        RETURN 'discarded';
    END IF;
    RETURN discard_dead_letter(the_letter, why, now_us);
END $$;
