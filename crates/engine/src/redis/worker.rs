//! Carries grants from the stream to the ledger.
//!
//! Read, write to the ledger in one transaction, and only then acknowledge: a crash at any point means that the same
//! entries are read again, by this worker or by another that claims them, and change nothing, because the order id is
//! the ledger's primary key.
//!
//! What the ledger says came after the epoch was sealed stays in the stream, if that is still there, and is offered to
//! the epoch on sale by this node (`offers.rs`): Redis was lost while a worker had it in hand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisError;
use yoink_core::OrderId;

use super::Shared;
use super::entry::parse_line;
use super::keys::{GROUP, SaleKeys};
use super::lane::CALL_PURCHASES_MAX;
use super::outcome::wants_new_connection;
use super::script;
use super::servers::{NoServer, Server, Servers};
use super::status::Command;
use super::stream::{ClaimedEntries, ReadEntries, StreamEntry};
use crate::failpoint;
use crate::node::Patience;
use crate::postgres::{Delivered, Grant, Postgres, PostgresError, Way};

/// The place of the first entry of a stream.
const FIRST: &str = "-";
/// Entries that one read takes; each holds up to [`CALL_PURCHASES_MAX`] grants.
const ENTRIES_MAX: usize = 16;
/// Entries that one read takes if they are small: each transaction of the ledger has its price, however little is in it.
const SMALL_ENTRIES_MAX: usize = 256;
/// The stream is looked at again after this long with nothing in it, and then ever less often.
const IDLE_MIN: Duration = Duration::from_millis(2);
const IDLE_MAX: Duration = Duration::from_millis(50);
const IDLE_MAX_OF_MANY: Duration = Duration::from_millis(500);
/// How often entries of workers that are gone are looked for.
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// The longest wait after the ledger or Redis failed.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// An entry that is older than so many times what makes it claimable is carried even if the group does not know it:
/// somebody may have moved the group's place in the stream, or deleted a consumer with what it had in hand.
const FORGOTTEN_AFTER_CLAIMS: u32 = 4;

/// One consumer of one product's stream.
pub(crate) struct Worker {
    pub(crate) product: i32,
    /// Its name in the consumer group: another for every process and every worker in it.
    pub(crate) name: String,
    pub(crate) postgres: Postgres,
    pub(crate) servers: Arc<Servers>,
    pub(crate) shared: Arc<Shared>,
}

/// An entry as read: its id and its grants.
struct Entry {
    id: String,
    /// How many grants the backlog loses with it.
    grants: usize,
    /// Units of them that the ledger has charged to the epoch.
    charged: u64,
}

/// What became of some entries.
#[derive(Debug, Default)]
struct Carried {
    /// How many left the stream.
    entries: usize,
    /// How many grants they held.
    grants: usize,
    /// Why some did not, if that may be trouble of the ledger. What fails alone holds nothing up.
    trouble: Option<PostgresError>,
}

impl Carried {
    fn of(entries: &[Entry], trouble: Option<PostgresError>) -> Self {
        Self { entries: entries.len(), grants: entries.iter().map(|entry| entry.grants).sum(), trouble }
    }

    fn add(&mut self, more: Self) {
        self.entries += more.entries;
        self.grants += more.grants;
        self.trouble = more.trouble.or(self.trouble.take());
    }

    /// How many entries of this size the next read is to take.
    fn next_count(&self) -> usize {
        let size = self.grants.checked_div(self.entries).unwrap_or(CALL_PURCHASES_MAX).max(1);
        (ENTRIES_MAX * CALL_PURCHASES_MAX / size).clamp(ENTRIES_MAX, SMALL_ENTRIES_MAX)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CarryError {
    #[error(transparent)]
    NoServer(#[from] NoServer),
    #[error("Redis failed: {0}")]
    Redis(#[from] RedisError),
    #[error("the ledger failed: {0}")]
    Postgres(#[from] PostgresError),
}

impl Worker {
    /// Runs until it is aborted.
    pub(crate) async fn run(self) {
        let mut idle = IDLE_MIN;
        // What failed is still in the stream, and nobody else takes it over for a while: where to look for it.
        let (mut place, mut is_troubled): (Option<String>, bool) = (None, false);
        let mut patience = Patience::up_to(BACKOFF_MAX);
        let mut claimed_at: Option<Instant> = None;
        let mut count = ENTRIES_MAX;
        loop {
            if self.shared.node.delivery_is_paused() {
                tokio::time::sleep(IDLE_MAX).await;
                continue;
            }
            let is_time_to_claim = claimed_at.is_none_or(|at| at.elapsed() >= CLAIM_EVERY);
            // One that the ledger does not have any more may come back.
            let Some(listed) = self.shared.node.catalogue.by_number(self.product) else {
                tokio::time::sleep(IDLE_MAX).await;
                continue;
            };
            let epoch = listed.epoch();
            let begun = Instant::now();
            let carried = match place.as_deref() {
                Some(first) => self.carry_page(epoch, (first, "+"), count).await,
                None => self.turn(epoch, is_time_to_claim, count).await.map(|carried| (carried, None)),
            };
            if is_time_to_claim {
                claimed_at = Some(Instant::now());
            }
            let (carried, next) = match carried {
                Ok(carried) => carried,
                Err(error) => {
                    (place, count) = (Some(FIRST.to_owned()), ENTRIES_MAX);
                    self.shared.node.note_delivery_error(&error);
                    tokio::time::sleep(patience.next()).await;
                    continue;
                }
            };
            if carried.entries > 0 {
                idle = IDLE_MIN;
                patience.reset();
            }
            count = carried.next_count();
            let is_idle = carried.entries == 0 && next.is_none();
            is_troubled |= carried.trouble.is_some();
            // What comes behind what failed may be taken. Then it is begun anew.
            place = next.or_else(|| std::mem::take(&mut is_troubled).then(|| FIRST.to_owned()));
            if let Some(error) = carried.trouble {
                self.shared.node.note_delivery_error(&error);
                tokio::time::sleep(patience.next()).await;
            } else if is_idle {
                tokio::time::sleep(idle).await;
                // Many streams share one Redis: the more there are, the less often an idle one is asked for.
                let idle_max =
                    IDLE_MAX.saturating_mul(self.shared.node.catalogue.crowd()).min(IDLE_MAX_OF_MANY);
                idle = idle.saturating_mul(2).min(idle_max);
            } else if place.is_none() {
                // Nothing is left behind from trouble.
                self.shared.rush.rest_after(begun.elapsed()).await;
            }
        }
    }

    async fn turn(&self, epoch: i32, claims: bool, count: usize) -> Result<Carried, CarryError> {
        let mut carried = Carried::default();
        if claims {
            carried.add(self.carry_claimed(epoch).await?);
            carried.add(self.carry_forgotten(epoch).await?);
        }
        carried.add(self.carry_new(epoch, count).await?);
        Ok(carried)
    }

    /// Carries everything that is in the stream of an epoch, whoever had it in hand, but for what the ledger does not take
    /// although it takes others. For the loader: once the sale is closed nothing comes any more.
    pub(crate) async fn drain(&self, epoch: i32) -> Result<(), CarryError> {
        let mut place = Some(FIRST.to_owned());
        while let Some(first) = place {
            let (carried, next) = self.carry_page(epoch, (&first, "+"), ENTRIES_MAX).await?;
            if let Some(error) = carried.trouble {
                return Err(error.into());
            }
            place = next;
        }
        Ok(())
    }

    /// Carries entries of the stream from `first` up to `end`, whatever the group says of them. What the ledger has leaves
    /// the stream. Gives where the next ones begin, unless these were the last.
    async fn carry_page(
        &self,
        epoch: i32,
        (first, end): (&str, &str),
        count: usize,
    ) -> Result<(Carried, Option<String>), CarryError> {
        let keys = self.shared.keys(self.product, epoch);
        let server = self.servers.of(self.product).await?;
        let found: Result<Vec<StreamEntry>, RedisError> = redis::cmd("XRANGE")
            .arg(&keys.grants)
            .arg(&[first, end, "COUNT"])
            .arg(count)
            .query_async(&mut server.connection.clone())
            .await;
        let entries = self.heed(&server, found)?;
        let last = entries.last().filter(|_| entries.len() == count);
        let next = last.map(|last| format!("({}", last.id));
        Ok((self.carry(&server, epoch, &keys, entries).await?, next))
    }

    async fn carry_forgotten(&self, epoch: i32) -> Result<Carried, CarryError> {
        let server = self.servers.of(self.product).await?;
        let age = self.shared.options.claim_after.saturating_mul(FORGOTTEN_AFTER_CLAIMS);
        // The first part of an entry's id is the server's time in milliseconds.
        let end_ms = server.now_us() / 1_000 - i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let end = end_ms.max(0).to_string();
        let (mut carried, mut place) = (Carried::default(), Some(FIRST.to_owned()));
        // Those that stay are passed by.
        while let Some(first) = place.take_if(|_| carried.entries == 0 && carried.trouble.is_none()) {
            let (page, next) = self.carry_page(epoch, (&first, &end), ENTRIES_MAX).await?;
            carried.add(page);
            place = next;
        }
        Ok(carried)
    }

    async fn carry_new(&self, epoch: i32, count: usize) -> Result<Carried, CarryError> {
        let keys = self.shared.keys(self.product, epoch);
        let server = self.servers.of(self.product).await?;
        let begun = Instant::now();
        let read: Result<ReadEntries, RedisError> = redis::cmd("XREADGROUP")
            .arg("GROUP")
            .arg(GROUP)
            .arg(&self.name)
            .arg("COUNT")
            .arg(count)
            .arg("STREAMS")
            .arg(&keys.grants)
            .arg(">")
            .query_async(&mut server.connection.clone())
            .await;
        self.shared.gauges.asked(Command::Read, begun);
        let read = match read {
            Err(error) if error.code() == Some("NOGROUP") => return self.make_group(&server, &keys).await,
            read => self.heed(&server, read)?,
        };
        let entries = read.unwrap_or_default().into_iter().flat_map(|(_, entries)| entries);
        self.carry(&server, epoch, &keys, entries.collect()).await
    }

    async fn carry_claimed(&self, epoch: i32) -> Result<Carried, CarryError> {
        let keys = self.shared.keys(self.product, epoch);
        let server = self.servers.of(self.product).await?;
        let claimed: Result<ClaimedEntries, RedisError> = redis::cmd("XAUTOCLAIM")
            .arg(&keys.grants)
            .arg(GROUP)
            .arg(&self.name)
            .arg(self.shared.options.claim_after.as_millis() as u64)
            .arg("0-0")
            .arg("COUNT")
            .arg(ENTRIES_MAX)
            .query_async(&mut server.connection.clone())
            .await;
        let claimed = match claimed {
            Err(error) if error.code() == Some("NOGROUP") => return self.make_group(&server, &keys).await,
            claimed => self.heed(&server, claimed)?,
        };
        self.carry(&server, epoch, &keys, claimed.0).await
    }

    /// Somebody destroyed the group: begin again at the first entry. What was carried before changes nothing.
    async fn make_group(&self, server: &Server, keys: &SaleKeys) -> Result<Carried, CarryError> {
        let mut connection = server.connection.clone();
        let exists: bool = redis::cmd("EXISTS").arg(&keys.grants).query_async(&mut connection).await?;
        if exists {
            let made: Result<(), RedisError> = redis::cmd("XGROUP")
                .arg("CREATE")
                .arg(&keys.grants)
                .arg(GROUP)
                .arg("0")
                .query_async(&mut connection)
                .await;
            match made {
                Err(error) if error.code() != Some("BUSYGROUP") => return Err(error.into()),
                _ => tracing::warn!(stream = keys.grants, "the consumer group was gone and was made anew"),
            }
        }
        Ok(Carried::default())
    }

    async fn carry(
        &self,
        server: &Server,
        epoch: i32,
        keys: &SaleKeys,
        found: Vec<StreamEntry>,
    ) -> Result<Carried, CarryError> {
        if found.is_empty() {
            return Ok(Carried::default());
        }
        let mut grants = Vec::new();
        let mut entries = Vec::new();
        for entry in found {
            let before = grants.len();
            self.read_entry(&keys.grants, &entry, &mut grants).await?;
            entries.push(Entry { id: entry.id, grants: grants.len() - before, charged: 0 });
        }
        failpoint::hit("worker.read");
        if self.shared.mistakes().ack_before_commit {
            self.settle(server, epoch, keys, &entries).await?;
            return Ok(Carried::of(&entries, None));
        }
        let mut trouble = None;
        if !grants.is_empty() {
            trouble = self.deliver(epoch, &grants, &mut entries).await?;
        }
        failpoint::hit("worker.committed");
        if !entries.is_empty() {
            self.settle(server, epoch, keys, &entries).await?;
        }
        Ok(Carried::of(&entries, trouble))
    }

    /// Reads the grants of an entry; what cannot be read is written down in the ledger, once, for a person to look at.
    async fn read_entry(
        &self,
        stream: &str,
        entry: &StreamEntry,
        grants: &mut Vec<Grant>,
    ) -> Result<(), CarryError> {
        let Some(lines) = entry.lines() else {
            let bytes = entry.shown().into_bytes();
            return self.note_unreadable(stream, &entry.id, &bytes, "it has no field v1 of text").await;
        };
        for (index, line) in lines.lines().enumerate() {
            match parse_line(line) {
                Ok(grant) => grants.push(grant),
                Err(what) => {
                    let place = format!("{} line {}", entry.id, index + 1);
                    self.note_unreadable(stream, &place, line.as_bytes(), what).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn note_unreadable(
        &self,
        stream: &str,
        entry: &str,
        bytes: &[u8],
        what: &str,
    ) -> Result<(), CarryError> {
        tracing::error!(stream, entry, what, "an entry of the stream is not a grant: it was written down");
        Ok(self.postgres.note_unreadable(stream, entry, bytes, what, self.shared.node.now()).await?)
    }

    /// Writes grants to the ledger. Of `entries`, which hold them, those are left that the ledger has. Gives why others are
    /// not, if that may be trouble of the ledger.
    async fn deliver(
        &self,
        epoch: i32,
        grants: &[Grant],
        entries: &mut Vec<Entry>,
    ) -> Result<Option<PostgresError>, CarryError> {
        let written = self.write(Way::Carry, epoch, grants).await?;
        self.shared.heed_delivered(self.product, epoch, grants, &written.delivered);
        let outcomes: HashMap<OrderId, Delivered> = written.delivered.iter().copied().collect();
        // One that is there twice is charged once.
        let has_two = outcomes.len() < written.delivered.len();
        let mut grants = grants.iter();
        entries.retain_mut(|entry| {
            let outcomes_of = grants.by_ref().take(entry.grants);
            let mut is_known = true;
            for grant in outcomes_of {
                is_known &= !written.left.contains(&grant.order);
                match outcomes.get(&grant.order) {
                    Some(Delivered::Sealed) => is_known = false,
                    Some(outcome) if outcome.is_charged() && !has_two => {
                        entry.charged += u64::from(grant.quantity.unsigned_abs());
                    }
                    Some(_) | None => {}
                }
            }
            is_known
        });
        Ok(written.error.filter(|_| !written.fail_alone))
    }

    async fn settle(
        &self,
        server: &Server,
        epoch: i32,
        keys: &SaleKeys,
        entries: &[Entry],
    ) -> Result<(), CarryError> {
        let mut call = script::SETTLE.prepare_invoke();
        call.key(&keys.sale).key(&keys.grants).arg(epoch).arg(GROUP);
        for entry in entries {
            call.arg(&entry.id).arg(entry.grants).arg(entry.charged);
        }
        let begun = Instant::now();
        let settled: Result<i64, RedisError> = call.invoke_async(&mut server.connection.clone()).await;
        self.shared.gauges.asked(Command::Settle, begun);
        match settled {
            // Without the group there is nothing to acknowledge; it is made anew and reads everything again.
            Err(error) if error.code() == Some("NOGROUP") => Ok(()),
            settled => self.heed(server, settled).map(drop),
        }
    }

    /// A connection that broke is not used again.
    fn heed<T>(&self, server: &Server, result: Result<T, RedisError>) -> Result<T, CarryError> {
        if let Err(error) = &result
            && wants_new_connection(error)
        {
            self.servers.forget(server, self.product);
        }
        Ok(result?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_small_entries_more_are_read_at_a_time() {
        let count_after = |entries, grants| Carried { entries, grants, trouble: None }.next_count();
        assert_eq!(count_after(0, 0), ENTRIES_MAX, "nothing is known");
        assert_eq!(count_after(1, CALL_PURCHASES_MAX), ENTRIES_MAX);
        assert_eq!(count_after(10, 10 * CALL_PURCHASES_MAX / 4), 4 * ENTRIES_MAX);
        assert_eq!(count_after(7, 7), SMALL_ENTRIES_MAX);
        assert_eq!(count_after(2, 0), SMALL_ENTRIES_MAX, "entries of no grants");
    }
}
