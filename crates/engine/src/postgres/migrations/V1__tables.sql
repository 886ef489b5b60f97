-- The ledger of the engines that run on PostgreSQL. It is the only authority on how many units there are and who has
-- them: whatever Redis or a broker says, `sold <= units` below is what keeps a unit from being sold twice.
--
-- Times are microseconds since 1970 in UTC. Every function that changes a product's units locks the product's row
-- first and the ledger's row last, so they wait for each other and never in a ring.

CREATE TABLE ledger (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    -- Which ledger this is: a Redis that was loaded from another one is not sold from.
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- What order ids are derived with (HMAC-SHA256), so that nobody else can name one.
    secret bytea NOT NULL DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    -- The last event, and its time: events never go back in time, whatever the clocks of those who made them say.
    seq bigint NOT NULL DEFAULT 0,
    last_at bigint NOT NULL DEFAULT 0,
    delivery_paused boolean NOT NULL DEFAULT false
);
INSERT INTO ledger DEFAULT VALUES;

CREATE TABLE products (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    name text NOT NULL,
    price bigint NOT NULL CHECK (price >= 0),
    currency text NOT NULL,
    -- What it began with.
    stock bigint NOT NULL CHECK (stock >= 0),
    starts_at bigint,
    ends_at bigint,
    limit_per_customer integer,
    max_per_order integer NOT NULL,
    paused boolean NOT NULL DEFAULT false,
    stocked bigint NOT NULL CHECK (stocked >= 0),
    withheld bigint NOT NULL DEFAULT 0 CHECK (withheld >= 0 AND withheld <= stocked),
    -- Raised by every change of what is said about it; Redis takes only a newer one.
    version bigint NOT NULL DEFAULT 1,
    -- The allocation that is being sold from.
    epoch integer NOT NULL DEFAULT 1,
    state text NOT NULL DEFAULT 'loading' CHECK (state IN ('loading', 'open')),
    -- Who is loading Redis with it, and until when nobody else should try.
    loader uuid,
    loader_until timestamptz
);

-- Units that one filling of Redis may sell. When Redis is lost, its allocation is sealed at what was sold of it, and
-- the rest goes to the next one.
CREATE TABLE allocations (
    product integer NOT NULL REFERENCES products,
    epoch integer NOT NULL,
    -- Given to it so far: units come from stock, and from orders that ended.
    units bigint NOT NULL CHECK (units >= 0),
    -- Sold of it so far, orders that ended since included.
    sold bigint NOT NULL DEFAULT 0 CHECK (sold >= 0),
    sealed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (product, epoch),
    CONSTRAINT never_oversold CHECK (sold <= units)
);

-- The order of arrival, for paging. Taken by whoever holds the ledger's row, so that no place comes to be seen behind
-- a later one.
CREATE SEQUENCE places;

CREATE TABLE orders (
    place bigint NOT NULL DEFAULT nextval('places'),
    id uuid PRIMARY KEY,
    product integer NOT NULL,
    epoch integer NOT NULL,
    -- Which grant of the epoch it was.
    number bigint NOT NULL,
    customer text NOT NULL,
    quantity integer NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    price bigint NOT NULL,
    currency text NOT NULL,
    accepted_at bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('confirmed', 'cancelled', 'failed')),
    ended_at bigint,
    reason text,
    -- Accepted by Redis, but the ledger had no unit for it: it failed without ever taking one.
    revoked boolean NOT NULL DEFAULT false
);
-- A second order under one number is the proof that Redis went back in time. A revoked one took nothing, and must
-- have its row whatever its number is.
CREATE UNIQUE INDEX orders_by_grant ON orders (product, epoch, number) WHERE NOT revoked;
CREATE INDEX orders_revoked ON orders (product, epoch) WHERE revoked;
CREATE UNIQUE INDEX orders_by_place ON orders (place);
CREATE INDEX orders_by_customer ON orders (customer, place);

-- Orders that the table above refuses (a constraint, bad data). Their units are charged to their allocation all the
-- same, unless they were revoked. They are tried again, then are dead letters.
CREATE TABLE refused (
    place bigint NOT NULL DEFAULT nextval('places'),
    dead_letter bigint UNIQUE,
    id uuid PRIMARY KEY,
    product integer NOT NULL,
    epoch integer NOT NULL,
    number bigint NOT NULL,
    customer text NOT NULL,
    quantity integer NOT NULL,
    price bigint NOT NULL,
    currency text NOT NULL,
    accepted_at bigint NOT NULL,
    attempts integer NOT NULL,
    -- Those before an operator sent it to be tried again.
    attempts_before integer NOT NULL DEFAULT 0,
    error text NOT NULL,
    next_at bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('retrying', 'parked', 'released', 'retried', 'discarded')),
    -- How the order ended, if it did.
    ended text CHECK (ended IN ('cancelled', 'failed')),
    ended_at bigint,
    ended_reason text,
    -- As in orders.
    revoked boolean NOT NULL DEFAULT false,
    -- Why an operator discarded it.
    reason text,
    -- When it was refused first; of a dead letter, when it became one.
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX refused_open ON refused (next_at) WHERE state = 'retrying';
CREATE INDEX refused_by_place ON refused (place);
CREATE SEQUENCE dead_letter_numbers;

-- What could not be read as an order at all.
CREATE TABLE unreadable (
    stream text NOT NULL,
    entry text NOT NULL,
    bytes bytea NOT NULL,
    error text NOT NULL,
    found_at bigint NOT NULL,
    PRIMARY KEY (stream, entry)
);

-- Units on their way (back) into Redis: each is applied there once, by a script that leaves a mark.
CREATE TABLE credits (
    id uuid PRIMARY KEY,
    product integer NOT NULL,
    epoch integer NOT NULL,
    units bigint NOT NULL CHECK (units > 0),
    -- 'returned': by an order that ended. 'restocked': new. 'void': granted twice for one order.
    kind text NOT NULL CHECK (kind IN ('returned', 'restocked', 'void')),
    customer text,
    applied boolean NOT NULL DEFAULT false,
    made_at bigint NOT NULL
);
CREATE INDEX credits_waiting ON credits (product) WHERE NOT applied;

-- Refused orders that became dead letters, as operators see them.
CREATE VIEW dead_letters AS
SELECT r.dead_letter AS number, r.id, r.number AS grant_number, p.id AS product, r.customer, r.quantity, r.error,
       r.attempts_before + r.attempts AS attempts, r.created_at, r.updated_at, r.reason,
       CASE
           WHEN r.state = 'retrying' THEN 'retried'
           WHEN r.state = 'released' AND EXISTS (SELECT FROM credits c WHERE c.id = r.id AND NOT c.applied)
               THEN 'releasing'
           ELSE r.state
       END AS state
FROM refused r JOIN products p ON p.number = r.product
WHERE r.dead_letter IS NOT NULL;

CREATE TABLE adjustments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    product integer NOT NULL,
    key text NOT NULL,
    delta bigint NOT NULL,
    reason text NOT NULL,
    -- A withdrawal takes its units from Redis before the ledger: until then it waits here.
    done boolean NOT NULL,
    -- The epoch that it was done in.
    epoch integer,
    seq bigint,
    made_at bigint NOT NULL,
    UNIQUE (product, key)
);

-- Repairs that an operator asked for, each with its reason.
CREATE TABLE repairs (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    product integer NOT NULL,
    what text NOT NULL,
    reason text NOT NULL,
    made_at bigint NOT NULL
);

CREATE TABLE events (
    seq bigint PRIMARY KEY,
    at bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('product-created', 'product-changed', 'stock-adjusted', 'sale-paused',
        'sale-resumed', 'order-accepted', 'order-cancelled', 'order-failed')),
    product integer NOT NULL,
    order_id uuid,
    body jsonb
);
