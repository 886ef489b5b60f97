//! A plain file on the disk, for code beside SQLite.

use std::io;
use std::sync::Arc;

use crate::disk::Disk;
use crate::state::{Action, DirectorySync, FileId};

/// A file by its name. Its writes and syncs are numbered together with SQLite's and lost in the same way.
#[derive(Debug, Clone)]
pub struct DiskFile {
    disk: Disk,
    path: Arc<str>,
}

impl DiskFile {
    pub(crate) fn new(disk: Disk, path: Arc<str>) -> Self {
        Self { disk, path }
    }

    /// Writes all of `bytes` at `offset`, creating the file if it is not there (a step of its own). A hole before
    /// `offset` reads as zeros. Nothing is durable before [`DiskFile::sync`].
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] for a full disk; otherwise the source is a [`DiskError`](crate::DiskError).
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = index(offset)?;
        let mut inner = self.disk.lock();
        inner.require_power()?;
        let file = match inner.find(&self.path) {
            Ok(file) => file,
            Err(_) => inner.create(&self.path)?,
        };
        inner.perform(&self.path, Action::Write { file, offset, bytes: Arc::from(bytes) })?;
        Ok(())
    }

    /// Makes the file exactly `length_bytes` long. Not durable before [`DiskFile::sync`].
    ///
    /// # Errors
    /// As [`DiskFile::write_at`], and [`io::ErrorKind::NotFound`].
    pub fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        let length = index(length_bytes)?;
        self.perform(|file| Action::Truncate { file, length })
    }

    /// Makes every earlier write to this file, and its name, durable.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`], and [`io::ErrorKind::NotFound`].
    pub fn sync(&self) -> io::Result<()> {
        self.perform(|file| Action::Sync { file, directory: DirectorySync::No })
    }

    /// The content in view.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`]; any other kind if the power is off.
    pub fn read_all(&self) -> io::Result<Vec<u8>> {
        self.disk.lock().require_power()?;
        Ok(self.disk.read_file(&*self.path)?)
    }

    fn perform(&self, action: impl Fn(FileId) -> Action) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.require_power()?;
        let file = inner.find(&self.path)?;
        inner.perform(&self.path, action(file))?;
        Ok(())
    }
}

fn index(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
}
