-- The check of an order's status no longer makes a table for every row.
--
-- `status IN (..)` is, from three values on, a table that SQLite fills for every row it checks. That cost more than all
-- the rest of an order. The table is made again with the same check in other words; everything else in it is as before.

-- It reads the table, which cannot be renamed while a view looks at a name that is not there.
DROP VIEW movements;

CREATE TABLE orders_checked (
    seq         INTEGER PRIMARY KEY CHECK (seq > 0),
    id          BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    product     TEXT    NOT NULL CHECK (length(product) BETWEEN 1 AND 39),
    customer    TEXT    NOT NULL CHECK (length(customer) BETWEEN 1 AND 128),
    key         TEXT             CHECK (length(key) BETWEEN 1 AND 255),
    quantity    INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    amount      INTEGER NOT NULL CHECK (amount BETWEEN 0 AND 10000000000),
    currency    TEXT    NOT NULL CHECK (length(currency) = 3),
    status      TEXT    NOT NULL CHECK (status = 'confirmed' OR status = 'cancelled' OR status = 'failed'),
    accepted_at INTEGER NOT NULL,
    -- How it ended; all empty while it lives.
    ended_seq   INTEGER,
    ended_at    INTEGER,
    reason      TEXT,
    CHECK ((status = 'confirmed') = (ended_seq IS NULL)),
    CHECK ((ended_seq IS NULL) = (ended_at IS NULL))
) STRICT;

INSERT INTO orders_checked (seq, id, product, customer, key, quantity, amount, currency, status, accepted_at,
                            ended_seq, ended_at, reason)
    SELECT seq, id, product, customer, key, quantity, amount, currency, status, accepted_at,
           ended_seq, ended_at, reason
    FROM orders ORDER BY seq;

-- Its indexes go with it.
DROP TABLE orders;
ALTER TABLE orders_checked RENAME TO orders;

CREATE INDEX orders_by_customer ON orders (customer, seq);
CREATE INDEX orders_by_end ON orders (ended_seq) WHERE ended_seq IS NOT NULL;

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
