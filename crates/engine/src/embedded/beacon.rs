//! A small file beside the log that remembers how far the log reached.
//!
//! SQLite recovers a write-ahead file up to its last sound commit, so a truncated one looks like a shorter, healthy
//! log. The beacon makes that visible: at start the log must reach at least as far as the beacon, with the same chain
//! hash at that event. It adds detection, not durability, so it may lag by [`crate::limits::BEACON_EVERY`].
//!
//! Two slots of 512 bytes are written in turn: a torn write spoils one, and the other is the one before.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;
use yoink_core::Seq;

use super::bytes::{DecodeError, Decoder, Encoder};
use crate::failpoint;

const MAGIC: &[u8; 8] = b"YNKBEACN";
const SLOT_BYTES: usize = 512;

/// How far the log is known to reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Raised whenever an operator accepts a loss.
    pub(crate) incarnation: u64,
    /// The last event of a commit that was on disk.
    pub(crate) seq: Seq,
    /// The log's chain hash at that event.
    pub(crate) chain: u64,
}

/// The file under the beacon.
pub trait BeaconFile: std::fmt::Debug + Send {
    /// All of it; nothing if it is not there yet.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_all(&self) -> io::Result<Vec<u8>>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// It cannot be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable.
    ///
    /// # Errors
    /// It may not be durable.
    fn sync(&self) -> io::Result<()>;
}

impl BeaconFile for File {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut &*self, &mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[derive(Debug)]
pub(crate) struct Beacon {
    file: Box<dyn BeaconFile>,
    writes: u64,
}

impl Beacon {
    /// Opens or makes the file at `path`, and reads the newest sound promise in it.
    ///
    /// # Errors
    /// As [`Beacon::read`].
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Promise)> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        Self::read(Box::new(file))
    }

    /// Reads the newest sound promise in a file.
    ///
    /// # Errors
    /// The file cannot be read or written. A file with no sound slot is not an error: it promises nothing, as a
    /// crash during the very first write leaves it.
    pub(crate) fn read(file: Box<dyn BeaconFile>) -> io::Result<(Self, Promise)> {
        let slots = file.read_all()?;
        let newest = slots.chunks(SLOT_BYTES).filter_map(decode).max_by_key(|(writes, _)| *writes);
        let (writes, promise) = newest.unwrap_or_default();
        Ok((Self { file, writes }, promise))
    }

    /// Writes the promise over the older slot and makes it durable.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&mut self, promise: Promise) -> io::Result<()> {
        failpoint::hit("beacon.before-write");
        self.writes = self.writes.saturating_add(1);
        let slot = encode(self.writes, promise);
        let offset = (self.writes % 2).saturating_mul(SLOT_BYTES as u64);
        self.file.write_at(&slot, offset)?;
        self.file.sync()?;
        failpoint::hit("beacon.after-write");
        Ok(())
    }
}

fn encode(writes: u64, promise: Promise) -> Vec<u8> {
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    let mut to = Encoder(&mut slot);
    to.raw(MAGIC);
    for number in [writes, promise.incarnation, promise.seq, promise.chain] {
        to.raw(&number.to_le_bytes());
    }
    let hash = xxh3_64(&slot);
    slot.extend_from_slice(&hash.to_le_bytes());
    slot.resize(SLOT_BYTES, 0);
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Promise)> {
    fn fields(slot: &[u8]) -> Result<Option<(u64, Promise)>, DecodeError> {
        let mut from = Decoder(slot);
        let body = Decoder(slot).raw(MAGIC.len() + 4 * 8)?;
        if from.raw(MAGIC.len())? != MAGIC {
            return Ok(None);
        }
        let writes = u64::from_le_bytes(from.array()?);
        let incarnation = u64::from_le_bytes(from.array()?);
        let seq = u64::from_le_bytes(from.array()?);
        let chain = u64::from_le_bytes(from.array()?);
        let hash = u64::from_le_bytes(from.array()?);
        Ok((hash == xxh3_64(body)).then_some((writes, Promise { incarnation, seq, chain })))
    }
    fields(slot).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sound_slot_wins_and_a_torn_one_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("beacon");
        let (mut beacon, nothing) = Beacon::open(&path).unwrap();
        assert_eq!(nothing, Promise::default());
        for seq in 1..=5 {
            beacon.write(Promise { incarnation: 1, seq, chain: seq * 7 }).unwrap();
        }
        assert_eq!(Beacon::open(&path).unwrap().1, Promise { incarnation: 1, seq: 5, chain: 35 });
        // The fifth write went to slot 1; tear it.
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0xff; 20], 512 + 16).unwrap();
        assert_eq!(Beacon::open(&path).unwrap().1, Promise { incarnation: 1, seq: 4, chain: 28 });
        file.write_all_at(&[0xff; 20], 16).unwrap();
        assert_eq!(Beacon::open(&path).unwrap().1, Promise::default());
    }
}
