//! Why an operation on the disk did not happen.

use std::io;

/// Errors of [`Disk`](crate::Disk) and, as [`io::Error`], of [`DiskFile`](crate::DiskFile).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The armed step was reached: the machine is off and nothing works any more.
    #[error("the power is off since step {step}; take an image with power_cut or image_at")]
    PowerOff {
        /// The last step that was carried out.
        step: u64,
    },
    /// An injected I/O error.
    #[error("injected I/O error at step {step}")]
    InputOutput {
        /// The step that failed.
        step: u64,
    },
    /// An injected full disk, or the capacity was reached.
    #[error("the disk is full at step {step}")]
    Full {
        /// The step that failed.
        step: u64,
    },
    /// No file has this name.
    #[error("no file {path:?} on this disk")]
    NotFound {
        /// The name that was asked for.
        path: String,
    },
    /// The file should have been new.
    #[error("file {path:?} exists already")]
    AlreadyExists {
        /// The name that was asked for.
        path: String,
    },
    /// The disk was made without a recording, so that the past cannot be rebuilt.
    #[error("this disk records no steps: make it with Recording::Kept")]
    NotRecorded,
    /// The step has not happened yet.
    #[error("step {step} has not happened: the disk is at step {steps}")]
    StepAhead {
        /// The step that was asked for.
        step: u64,
        /// How many steps there are.
        steps: u64,
    },
    /// The byte lies behind the end of the file.
    #[error("byte {offset} is outside {path:?}, which has {length_bytes} bytes")]
    OutOfRange {
        /// The file.
        path: String,
        /// The byte that was asked for.
        offset: u64,
        /// How long the file is.
        length_bytes: u64,
    },
    /// SQLite knows another file layer of this name.
    #[error("a file layer named {name:?} is registered already: choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name has a NUL byte in it, or SQLite refused it.
    #[error("SQLite cannot register a file layer named {name:?}")]
    NameRefused {
        /// The name.
        name: String,
    },
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        let kind = match error {
            DiskError::Full { .. } => io::ErrorKind::StorageFull,
            DiskError::NotFound { .. } => io::ErrorKind::NotFound,
            DiskError::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            DiskError::StepAhead { .. } | DiskError::OutOfRange { .. } => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
