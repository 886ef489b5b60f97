//! The numbered record of what was done to a disk.

/// One operation that tried to change the disk. Reads are not steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// 1 for the first; dense.
    pub number: u64,
    /// What was asked.
    pub kind: StepKind,
    /// The file.
    pub path: String,
    /// First byte written, or the new length of a truncation; else 0.
    pub offset: u64,
    /// Bytes written; else 0.
    pub length_bytes: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// The kinds of [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKind {
    /// A file that was not there was opened for writing.
    Create,
    /// Bytes were written.
    Write,
    /// The file was made shorter or longer.
    Truncate,
    /// The file was synced: a boundary, before which nothing is promised.
    Sync,
    /// The file's name was removed.
    Delete,
}

/// What became of a [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// It was refused with an injected error, and the caller knows.
    Failed,
    /// A sync that was reported as done but made nothing durable.
    Lied,
}
