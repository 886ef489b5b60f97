//! The inventory as one file, so that a restart need not replay the log from its beginning.
//!
//! A snapshot only saves time: the log keeps every event, and a snapshot that is missing, torn or of another log is
//! ignored. The file is a list of chunks, each with its length and hash, so it is read in one pass with little memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;
use yoink_core::{
    AdjustmentRecord, Figures, Inventory, Order, OrderEnd, OrderId, OrderState, Part, Seq, Timestamp,
};

use super::bytes::{DecodeError, Decoder, Encoder};
use super::{codec, folder};
use crate::failpoint;

const MAGIC: &[u8; 8] = b"YNKSNAP1";
/// A chunk is closed when it has this many bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// A chunk is never longer than its closing size and one part.
const CHUNK_BYTES_MAX: usize = CHUNK_BYTES + (64 << 10);

const PRODUCT: u8 = 1;
const ADJUSTMENT: u8 = 2;
const ORDER: u8 = 3;

/// Where in the log a snapshot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The last event in it.
    pub(crate) seq: Seq,
    /// The log's chain hash at that event.
    pub(crate) chain: u64,
}

/// Why a snapshot was not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("it is damaged: {0}")]
    Decode(#[from] DecodeError),
    #[error("it is damaged: a chunk is not what was written")]
    Hash,
    #[error("its parts do not fit together: {0}")]
    Parts(yoink_core::Inconsistency),
}

/// Writes the inventory to `path`, replacing what is there in one step.
///
/// # Errors
/// The first failing operation; what was there is then still there.
pub(crate) fn write(path: &Path, inventory: &Inventory, chain: u64) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
    let mut chunks = ChunkWriter { to: BufWriter::new(file), chunk: Vec::new(), written: 0 };
    {
        let mut to = Encoder(&mut chunks.chunk);
        to.raw(MAGIC);
        to.unsigned(inventory.last_seq());
        to.signed(inventory.last_at().0);
        to.unsigned(chain);
        to.unsigned(inventory.orders_len() as u64);
    }
    for part in inventory.parts() {
        encode_part(&part, &mut chunks.chunk);
        if chunks.chunk.len() >= CHUNK_BYTES {
            chunks.close()?;
        }
    }
    chunks.close()?;
    chunks.close()?; // an empty one ends the file
    let file = chunks.to.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    failpoint::hit("snapshot.before-rename");
    fs::rename(&fresh, path)?;
    folder::sync_parent(path)?;
    failpoint::hit("snapshot.after-rename");
    Ok(())
}

/// Reads the snapshot at `path`; `None` if there is none.
///
/// # Errors
/// It cannot be read or is damaged.
pub(crate) fn read(path: &Path) -> Result<Option<(Inventory, Position)>, SnapshotError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut chunks = ChunkReader { from: BufReader::new(file), chunk: Vec::new(), read: 0 };
    chunks.next()?;
    let mut from = Decoder(&chunks.chunk);
    if from.raw(MAGIC.len())? != MAGIC {
        return Err(SnapshotError::Hash);
    }
    let seq = from.unsigned()?;
    let at = Timestamp(from.signed()?);
    let chain = from.unsigned()?;
    let orders = usize::try_from(from.unsigned()?).map_err(|_| DecodeError::TooLarge)?;
    let mut inventory = Inventory::new();
    inventory.reserve_orders(orders.min(1 << 26));
    insert_parts(&mut from, &mut inventory)?;
    while chunks.next()? {
        insert_parts(&mut Decoder(&chunks.chunk), &mut inventory)?;
    }
    if inventory.orders_len() != orders {
        return Err(DecodeError::Short.into());
    }
    inventory.finish_parts(seq, at).map_err(SnapshotError::Parts)?;
    Ok(Some((inventory, Position { seq, chain })))
}

fn insert_parts(from: &mut Decoder<'_>, inventory: &mut Inventory) -> Result<(), SnapshotError> {
    while !from.is_empty() {
        decode_part(from, |part| inventory.insert_part(part).map_err(SnapshotError::Parts))?;
    }
    Ok(())
}

struct ChunkWriter {
    to: BufWriter<File>,
    chunk: Vec<u8>,
    written: u64,
}

impl ChunkWriter {
    fn close(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.chunk.len()).map_err(io::Error::other)?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&xxh3_64_with_seed(&self.chunk, self.written).to_le_bytes())?;
        self.to.write_all(&self.chunk)?;
        self.written = self.written.saturating_add(1);
        self.chunk.clear();
        Ok(())
    }
}

struct ChunkReader {
    from: BufReader<File>,
    chunk: Vec<u8>,
    read: u64,
}

impl ChunkReader {
    /// Reads the next chunk; `false` at the empty one that ends the file.
    fn next(&mut self) -> Result<bool, SnapshotError> {
        let mut length = [0; 4];
        let mut hash = [0; 8];
        self.from.read_exact(&mut length)?;
        self.from.read_exact(&mut hash)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(SnapshotError::Hash);
        }
        self.chunk.resize(length, 0);
        self.from.read_exact(&mut self.chunk)?;
        if xxh3_64_with_seed(&self.chunk, self.read) != u64::from_le_bytes(hash) {
            return Err(SnapshotError::Hash);
        }
        self.read = self.read.saturating_add(1);
        Ok(length > 0)
    }
}

fn encode_part(part: &Part<'_>, chunk: &mut Vec<u8>) {
    let mut to = Encoder(chunk);
    match part {
        Part::Product { id, details, paused, figures } => {
            to.byte(PRODUCT);
            to.text(id.as_str());
            codec::encode_details(&mut to, details);
            to.byte(u8::from(*paused));
            for units in [figures.stocked, figures.available, figures.held, figures.sold, figures.withheld] {
                to.unsigned(units);
            }
        }
        Part::Adjustment { product, key, record } => {
            to.byte(ADJUSTMENT);
            to.text(product.as_str());
            to.text(key.as_str());
            to.unsigned(record.seq);
            to.signed(record.delta);
        }
        Part::Order(order) => {
            to.byte(ORDER);
            to.raw(&order.id.0);
            to.unsigned(order.seq);
            to.signed(order.accepted_at.0);
            to.text(order.customer);
            to.text(order.product.as_str());
            to.unsigned(u64::from(order.quantity));
            codec::encode_money(&mut to, order.unit_price);
            to.option(order.key, |to, key| to.text(key));
            to.byte(match order.state {
                OrderState::Live => 0,
                OrderState::Cancelled => 1,
                OrderState::Failed => 2,
            });
            to.option(order.end, |to, end| {
                to.unsigned(end.seq);
                to.signed(end.at.0);
                to.text(&end.reason);
            });
        }
    }
}

/// Hands the next part to `insert`; it borrows from the chunk, so it cannot be returned with what it owns.
fn decode_part(
    from: &mut Decoder<'_>,
    insert: impl FnOnce(Part<'_>) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    match from.byte()? {
        PRODUCT => {
            let id = codec::decode_product_id(from)?;
            let details = codec::decode_details(from, id)?;
            let paused = from.byte()? != 0;
            let figures = Figures {
                stocked: from.unsigned()?,
                available: from.unsigned()?,
                held: from.unsigned()?,
                sold: from.unsigned()?,
                withheld: from.unsigned()?,
            };
            insert(Part::Product { id, details, paused, figures })
        }
        ADJUSTMENT => {
            let product = codec::decode_product_id(from)?;
            let key = codec::decode_key(from)?;
            let record = AdjustmentRecord { seq: from.unsigned()?, delta: from.signed()? };
            insert(Part::Adjustment { product, key, record })
        }
        ORDER => {
            let (id, seq) = (OrderId(from.array()?), from.unsigned()?);
            let accepted_at = codec::decode_timestamp(from)?;
            let customer = from.text()?;
            let product = codec::decode_product_id(from)?;
            let quantity = from.unsigned_32()?;
            let unit_price = codec::decode_money(from)?;
            let key = from.option(Decoder::text)?;
            let state = match from.byte()? {
                0 => OrderState::Live,
                1 => OrderState::Cancelled,
                2 => OrderState::Failed,
                other => return Err(DecodeError::UnknownKind(other).into()),
            };
            let end = from.option(|from| {
                Ok(OrderEnd {
                    seq: from.unsigned()?,
                    at: codec::decode_timestamp(from)?,
                    reason: from.text()?.into(),
                })
            })?;
            insert(Part::Order(Order {
                id,
                seq,
                accepted_at,
                customer,
                product,
                quantity,
                unit_price,
                key,
                state,
                end: end.as_ref(),
            }))
        }
        other => Err(DecodeError::UnknownKind(other).into()),
    }
}
