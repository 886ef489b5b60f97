-- The ledger: every order that was delivered, found by id, place in the log, or customer.
--
-- The key is the place in the log: orders arrive in that order, so rows are appended to the end of the table, and the
-- index by customer holds an 8-byte number instead of a 16-byte id. Ids are UUIDs of version 7, so the index behind
-- UNIQUE is appended to as well. All times are microseconds since 1970, all money is in minor units.
CREATE TABLE orders (
    seq         INTEGER PRIMARY KEY CHECK (seq > 0),
    id          BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    product     TEXT    NOT NULL CHECK (length(product) BETWEEN 1 AND 39),
    customer    TEXT    NOT NULL CHECK (length(customer) BETWEEN 1 AND 128),
    key         TEXT             CHECK (length(key) BETWEEN 1 AND 255),
    quantity    INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    amount      INTEGER NOT NULL CHECK (amount BETWEEN 0 AND 10000000000),
    currency    TEXT    NOT NULL CHECK (length(currency) = 3),
    status      TEXT    NOT NULL CHECK (status IN ('confirmed', 'cancelled', 'failed')),
    accepted_at INTEGER NOT NULL,
    -- How it ended; all empty while it lives.
    ended_seq   INTEGER,
    ended_at    INTEGER,
    reason      TEXT,
    CHECK ((status = 'confirmed') = (ended_seq IS NULL)),
    CHECK ((ended_seq IS NULL) = (ended_at IS NULL))
) STRICT;

CREATE INDEX orders_by_customer ON orders (customer, seq);
-- Orders that ended are few; this costs nothing when an order arrives.
CREATE INDEX orders_by_end ON orders (ended_seq) WHERE ended_seq IS NOT NULL;

-- Units that came or went without an order. Those of orders are in the view below and cost no second row.
CREATE TABLE adjustments (
    seq     INTEGER PRIMARY KEY CHECK (seq > 0),
    at      INTEGER NOT NULL,
    product TEXT    NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('created', 'restocked', 'withdrawn')),
    units   INTEGER NOT NULL CHECK (units >= 0),
    reason  TEXT
) STRICT;

-- Every movement of units, in the order of the log. `units` is what was added to, or taken from, what is available.
-- An order that the ledger never took is in neither direction: its units came back.
-- The casts give the columns of all three parts the same types. Only then does SQLite merge the parts by `seq` as it
-- reads them; otherwise every page of an export reads and sorts all that follows.
CREATE VIEW movements (seq, at, product, kind, units, reason, order_id) AS
    SELECT seq, at, product, kind, CAST(CASE kind WHEN 'withdrawn' THEN -units ELSE units END AS INTEGER), reason,
           CAST(NULL AS BLOB)
    FROM adjustments
    UNION ALL
    SELECT seq, accepted_at, product, CAST('sold' AS TEXT), CAST(-quantity AS INTEGER), CAST(NULL AS TEXT), id
    FROM orders
    UNION ALL
    SELECT ended_seq, ended_at, product, CAST('returned' AS TEXT), quantity, reason, id
    FROM orders WHERE ended_seq IS NOT NULL;

-- Orders that the ledger refused and that will be tried again. No checks on what is in them: it must hold what
-- `orders` would not.
CREATE TABLE retries (
    seq         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    product     TEXT    NOT NULL,
    customer    TEXT    NOT NULL,
    key         TEXT,
    quantity    INTEGER NOT NULL,
    amount      INTEGER NOT NULL,
    currency    TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    ended_seq   INTEGER,
    ended_at    INTEGER,
    reason      TEXT,
    attempts    INTEGER NOT NULL,
    next_at     INTEGER NOT NULL,
    error       TEXT    NOT NULL
) STRICT;

-- Orders that the ledger refused for good. They never expire.
CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    seq         INTEGER NOT NULL UNIQUE,
    order_id    BLOB    NOT NULL UNIQUE,
    product     TEXT    NOT NULL,
    customer    TEXT    NOT NULL,
    key         TEXT,
    quantity    INTEGER NOT NULL,
    amount      INTEGER NOT NULL,
    currency    TEXT    NOT NULL,
    -- What the log says of the order: 'confirmed' while it lives (the word that its row would have had).
    status      TEXT    NOT NULL,
    accepted_at INTEGER NOT NULL,
    ended_seq   INTEGER,
    ended_at    INTEGER,
    end_reason  TEXT,
    attempts    INTEGER NOT NULL,
    error       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('parked', 'releasing', 'released', 'retried', 'discarded')),
    -- What 'releasing' becomes when the units are back.
    then_state  TEXT             CHECK (then_state IN ('released', 'discarded')),
    -- Why an operator discarded it.
    reason      TEXT,
    CHECK ((state = 'releasing') = (then_state IS NOT NULL))
) STRICT;

CREATE INDEX dead_letters_open ON dead_letters (state, id) WHERE state IN ('parked', 'releasing');

-- One row. `position` is the last event of the log whose effect is in this file; it moves in the same transaction as
-- the rows that the event made.
CREATE TABLE meta (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    position INTEGER NOT NULL CHECK (position >= 0),
    paused   INTEGER NOT NULL CHECK (paused IN (0, 1))
) STRICT;
INSERT INTO meta (only_row, position, paused) VALUES (1, 0, 0);
