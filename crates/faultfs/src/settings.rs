//! What kind of disk is modelled.

/// The properties of a disk; its images inherit them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Decides every random choice: same seed and same steps, same losses.
    pub seed: u64,
    /// The unit in which a write can tear.
    pub sector: SectorSize,
    /// What a torn write does to its neighbours.
    pub overwrite: Overwrite,
    /// Whether the past can be rebuilt.
    pub recording: Recording,
}

impl Settings {
    /// The harshest disk: 512-byte sectors, neighbours at risk, every step recorded.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            sector: SectorSize::Bytes512,
            overwrite: Overwrite::Careless,
            recording: Recording::Kept,
        }
    }
}

/// The smallest piece that the disk writes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes.
    Bytes512,
    /// 4096 bytes.
    Bytes4096,
}

impl SectorSize {
    pub(crate) fn bytes(self) -> usize {
        match self {
            SectorSize::Bytes512 => 512,
            SectorSize::Bytes4096 => 4096,
        }
    }
}

/// What happens to the bytes beside a write when the power goes in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// The whole torn sector may turn to rubbish, also bytes that were synced long ago. SQLite is told so, and pads
    /// its WAL to sectors.
    Careless,
    /// Only bytes of the write itself change. SQLite is told so, and does not pad: as on its usual Unix layer.
    PowerSafe,
}

/// Whether the disk keeps a copy of every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// Every step can be rebuilt with [`Disk::image_at`](crate::Disk::image_at); memory grows with what is written.
    Kept,
    /// Only the present can be cut, with [`Disk::power_cut`](crate::Disk::power_cut).
    Off,
}
