//! Who sends to the queue, and what of it was seen: how it is noticed that a broker lost messages.

use std::time::Duration;

use deadpool_postgres::Object;
use uuid::Uuid;
use yoink_core::Timestamp;

use super::connection::Parameter;
use super::{Postgres, PostgresError, row};

/// Publishers report every second.
const DEAD_AFTER_US: i64 = 5_000_000;
/// Who makes a queue holds this advisory lock.
const MAKING_QUEUES: i64 = 7_096_336;

/// Numbers of messages, as ascending ranges, each from its first to behind its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequences(Vec<(i64, i64)>);

impl Sequences {
    /// Whether it has this number.
    pub fn has(&self, number: i64) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= number);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|(_, to)| number < *to)
    }

    /// The highest number, or 0.
    pub fn last(&self) -> i64 {
        self.0.last().map_or(0, |(_, to)| to.saturating_sub(1))
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(from, to)| to.saturating_sub(*from).unsigned_abs()).sum()
    }

    /// Adds a number; quick if it is one more than the last.
    pub fn add(&mut self, number: i64) {
        if self.has(number) {
            return;
        }
        let next = number.saturating_add(1);
        let at = self.0.partition_point(|(from, _)| *from <= number);
        let before = at.checked_sub(1);
        let joins_before = before.and_then(|at| self.0.get(at)).is_some_and(|(_, to)| *to == number);
        let joins_after = self.0.get(at).is_some_and(|(from, _)| *from == next);
        match (before, joins_before, joins_after) {
            (Some(before), true, true) => {
                let (_, to) = self.0.remove(at);
                self.0.iter_mut().skip(before).take(1).for_each(|range| range.1 = to);
            }
            (Some(before), true, false) => {
                self.0.iter_mut().skip(before).take(1).for_each(|range| range.1 = next);
            }
            (_, _, true) => self.0.iter_mut().skip(at).take(1).for_each(|range| range.0 = number),
            (_, _, false) => self.0.insert(at, (number, next)),
        }
    }

    /// The numbers that the other one does not have.
    pub fn without(&self, other: &Self) -> impl Iterator<Item = i64> {
        let mut left = Vec::new();
        let mut others = other.0.iter().peekable();
        for (from, to) in &self.0 {
            let mut from = *from;
            while let Some((other_from, other_to)) = others.peek().filter(|(other_from, _)| other_from < to) {
                if from < *other_from {
                    left.push(from..*other_from);
                }
                from = from.max(*other_to);
                if other_to > to {
                    break; // it may reach into the next range, too
                }
                others.next();
            }
            if from < *to {
                left.push(from..*to);
            }
        }
        left.into_iter().flatten()
    }

    /// As PostgreSQL writes an `int8multirange`.
    fn text(&self) -> String {
        let ranges: Vec<String> = self.0.iter().map(|(from, to)| format!("[{from},{to})")).collect();
        format!("{{{}}}", ranges.join(","))
    }

    fn parse(text: &str) -> Option<Self> {
        let inside = text.strip_prefix('{')?.strip_suffix('}')?;
        let ranges = inside.split("),").filter(|range| !range.is_empty()).map(|range| {
            let (from, to) = range.strip_prefix('[')?.trim_end_matches(')').split_once(',')?;
            Some((from.parse().ok()?, to.parse().ok()?))
        });
        ranges.collect::<Option<Vec<_>>>().map(Self)
    }
}

/// A turn that nobody else has meanwhile. Dropped, it ends with its connection.
pub struct Turn(Option<Object>);

impl Turn {
    /// Gives it to the next one.
    pub async fn end(mut self) {
        let Some(connection) = &self.0 else { return };
        let done = connection.execute("SELECT pg_advisory_unlock($1)", &[&MAKING_QUEUES]).await;
        if done.is_ok() {
            drop(self.0.take());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

/// Messages that a broker confirmed and no worker ever saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Who sent them.
    pub publisher: Uuid,
    /// How many.
    pub messages: u64,
    /// Which, in words.
    pub numbers: String,
    /// When the publisher reported last.
    pub reported_at: Timestamp,
}

impl Unseen {
    /// Whether its publisher is there, as far as can be told at `now`: one that reported nothing for five seconds has
    /// died, and with it what it kept.
    pub fn is_of_the_living(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.reported_at.0) < DEAD_AFTER_US
    }
}

impl Postgres {
    /// Writes down which messages of a publisher the broker has confirmed; answers which were seen by workers.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn report_confirmed(
        &self,
        publisher: Uuid,
        confirmed: &Sequences,
        now: Timestamp,
    ) -> Result<Sequences, PostgresError> {
        let sql = "SELECT report_confirmed($1, $2, $3) AS seen";
        let rows = self.change("report messages", sql, &[&publisher, &confirmed.text(), &now.0]).await?;
        row::parsed(row::only(&rows, "report")?, "seen", Sequences::parse)
    }

    /// Messages that were confirmed and not seen, by publisher. Those on their way are among them.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn unseen(&self) -> Result<Vec<Unseen>, PostgresError> {
        let sql = "SELECT id, (confirmed - seen)::text AS numbers, reported_at FROM publishers
                   WHERE NOT isempty(confirmed - seen) ORDER BY id";
        let rows = self.read("look for lost messages", sql, &[]).await?;
        let unseen = rows.iter().map(|row| {
            let numbers: &str = row::get(row, "numbers")?;
            Ok(Unseen {
                publisher: row::get(row, "id")?,
                messages: row::parsed(row, "numbers", Sequences::parse)?.count(),
                numbers: numbers.to_owned(),
                reported_at: Timestamp(row::get(row, "reported_at")?),
            })
        });
        unseen.collect()
    }

    /// Writes down how many requests the workers of a node have in hand; when, by the ledger's clock.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn report_in_hand(
        &self,
        publisher: Uuid,
        requests: u64,
        now: Timestamp,
    ) -> Result<(), PostgresError> {
        let requests = row::signed(requests);
        let parameters: [Parameter<'_>; 3] = [&publisher, &requests, &now.0];
        let sql = "SELECT report_in_hand($1, $2, $3)";
        self.change("report what is in hand", sql, &parameters).await.map(drop)
    }

    /// How many requests the workers of all nodes have in hand, or may have: as of the last report of each, unless it is
    /// older than `since`, by the ledger's clock.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn in_hand(&self, since: Duration) -> Result<u64, PostgresError> {
        let seconds = since.as_secs_f64();
        let sql = "SELECT coalesce(sum(in_hand), 0)::bigint AS requests FROM publishers
                   WHERE in_hand_at > clock_timestamp() - make_interval(secs => $1)";
        let rows = self.read("count what is in hand", sql, &[&seconds]).await?;
        row::count(row::only(&rows, "count")?, "requests")
    }

    /// Waits until nobody else makes queues.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn turn_to_make_queues(&self) -> Result<Turn, PostgresError> {
        // From here on it is thrown away unless the turn ends well.
        let turn = Turn(Some(self.connection("wait for others who make queues").await?));
        if let Some(connection) = &turn.0 {
            let waited = connection.execute("SELECT pg_advisory_lock($1)", &[&MAKING_QUEUES]).await;
            waited.map_err(|source| {
                PostgresError::executing(
                    "wait for others who make queues",
                    super::error::Effect::Reads,
                    source,
                )
            })?;
        }
        Ok(turn)
    }

    /// Makes the ledger this engine's, unless it is one's already; answers whose it is.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn claim_ledger(&self, engine: &str) -> Result<String, PostgresError> {
        let rows = self.change("claim the ledger", "SELECT claim_ledger($1) AS engine", &[&engine]).await?;
        row::get(row::only(&rows, "ledger")?, "engine")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sequences_are_a_set_of_numbers(numbers in prop::collection::vec(1_i64..40, 0..60)) {
            let mut sequences = Sequences::default();
            for number in &numbers {
                sequences.add(*number);
            }
            let set: BTreeSet<i64> = numbers.into_iter().collect();
            for number in 0..42 {
                prop_assert_eq!(sequences.has(number), set.contains(&number), "{}", number);
            }
            prop_assert_eq!(sequences.count(), set.len() as u64);
            prop_assert_eq!(sequences.last(), set.last().copied().unwrap_or(0));
            prop_assert!(sequences.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", sequences);
            prop_assert_eq!(Sequences::parse(&sequences.text()), Some(sequences));
        }

        #[test]
        fn what_one_has_and_the_other_does_not(
            ones in prop::collection::btree_set(1_i64..40, 0..40),
            others in prop::collection::btree_set(1_i64..40, 0..40),
        ) {
            let sequences = |numbers: &BTreeSet<i64>| {
                let mut sequences = Sequences::default();
                numbers.iter().for_each(|number| sequences.add(*number));
                sequences
            };
            let left: Vec<i64> = sequences(&ones).without(&sequences(&others)).collect();
            prop_assert_eq!(left, ones.difference(&others).copied().collect::<Vec<_>>());
        }
    }
}
