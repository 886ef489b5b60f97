//! What changes in a design when its defect is repaired, as a diff of its steps.

/// Each strategy with a defect, and the steps with it (`-`), without it (`+`), and those that stay (two spaces).
const DIFFS: &[(&str, &[&str])] = &[
    (
        "naive",
        &[
            "- SELECT stock FROM products WHERE id = $1",
            "- if stock < quantity: sold out",
            "- UPDATE products SET stock = (what was read) - quantity",
            "+ UPDATE products SET stock = stock - quantity WHERE id = $1 AND stock >= quantity",
            "+ no row changed: sold out",
            "  INSERT INTO orders",
            "+ COMMIT both together",
        ],
    ),
    (
        "redis-sync",
        &[
            "- Redis: DECRBY stock",
            "- PostgreSQL, if a connection is free: INSERT INTO orders",
            "- otherwise 500, and the unit stays taken",
            "+ Redis, in one script: DECRBY stock, and XADD the order to a stream",
            "+ 202; a worker carries the stream to PostgreSQL, however long that takes",
        ],
    ),
    (
        "redis-queue",
        &[
            "  take the job, INSERT INTO orders",
            "- any error: try again, three times; then give the unit back and forget the order",
            "+ the database is away: keep the job and wait, as long as it takes",
            "+ this order can never be written: three tries, then a dead letter that is seen, and the unit back once",
        ],
    ),
    (
        "broker-lock",
        &[
            "- publish; 202",
            "+ publish, wait for the broker's confirm; 202",
            "  take the lock, decide, write",
            "- any error: log it, acknowledge",
            "+ error of a server: keep the message, try again",
            "+ COMMIT, then acknowledge",
        ],
    ),
    (
        "crash-before-enqueue",
        &[
            "- DECRBY stock",
            "- (here the process may die)",
            "- LPUSH the job",
            "+ one script: DECRBY stock and XADD the order",
        ],
    ),
    (
        "ttl-reseed",
        &[
            "- SET stock … PX (a while)",
            "- no key: SET stock = (what PostgreSQL has now)",
            "+ SET stock, without expiry",
            "+ no key: stop selling, wait until nothing is under way, count, and begin a new epoch",
        ],
    ),
    (
        "double-compensation",
        &[
            "- INCRBY stock",
            "- (here the process may die)",
            "- remove the dead letter",
            "+ in the ledger: mark the order failed, and note the release, in one transaction",
            "+ one script: if the release is not marked yet, INCRBY stock and mark it",
        ],
    ),
    (
        "commit-then-die",
        &[
            "  take the job",
            "- order id = random; INSERT INTO orders",
            "+ order id = the one made from the request; INSERT INTO orders … ON CONFLICT DO NOTHING",
            "  COMMIT, then acknowledge the job",
        ],
    ),
    (
        "unknown-commit",
        &[
            "  COMMIT",
            "- no answer: it failed; give the unit back",
            "+ no answer: unknown; run the same transaction again, which finds its order by its id",
        ],
    ),
    (
        "ack-on-error",
        &[
            "  take the message, write the order",
            "- acknowledge, whatever happened",
            "+ acknowledge after COMMIT; anything else keeps the message",
        ],
    ),
    (
        "check-then-store-key",
        &[
            "- SELECT the key: is there an order?",
            "- buy",
            "- INSERT the key",
            "+ BEGIN; INSERT the key … ON CONFLICT DO NOTHING; no row: answer with the order that has it",
            "+ buy; COMMIT key and order together",
        ],
    ),
    (
        "lock-by-user",
        &[
            "- SET lock (user id) NX PX; finally, whoever got it or not: delete it where the value is mine",
            "+ SET lock (random value) NX PX; only who got it deletes it, by one script, where the value is still his",
            "+ and the store decides by itself: stock >= quantity",
        ],
    ),
    (
        "lock-expires",
        &[
            "  SET lock (random value) NX PX 100",
            "- SELECT stock, think, UPDATE stock = (what was read) - quantity",
            "+ take a fencing token with the lock; the store refuses a write whose token is older than the last",
            "+ or needs no lock: UPDATE … SET stock = stock - quantity WHERE stock >= quantity",
        ],
    ),
    (
        "negative-quantity",
        &[
            "- if stock >= quantity: UPDATE stock = stock - quantity",
            "+ if quantity < 1 or quantity > max: 400",
            "+ CHECK (quantity >= 1) in the table",
        ],
    ),
    (
        "everysec",
        &[
            "- appendfsync everysec: yes now, on disk within a second",
            "+ appendfsync always: on disk, then yes",
            "+ and a Redis that is not the one it was is noticed: stop, count against the ledger, new epoch",
        ],
    ),
];

/// The lines of a strategy's diff. Empty for what has no defect.
#[must_use]
pub fn diff(strategy: &str) -> &'static [&'static str] {
    DIFFS.iter().find(|(name, _)| *name == strategy).map_or(&[], |(_, lines)| lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    #[test]
    fn every_defect_has_a_repair_that_takes_something_away_or_adds_something() {
        for entry in catalogue::all() {
            let diff = diff(entry.name);
            assert_eq!(entry.defect.is_some(), !diff.is_empty(), "{}", entry.name);
            assert!(
                entry.defect.is_none() || diff.iter().any(|line| line.starts_with("+ ")),
                "{}",
                entry.name
            );
            assert!(diff.iter().all(|line| ["- ", "+ ", "  "].iter().any(|sign| line.starts_with(sign))));
        }
    }
}
