//! An open file of SQLite's, and the locks on it. All of it safe code: `vfs` only translates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::disk::Disk;
use crate::error::DiskError;
use crate::state::{Action, DirectorySync, FileId};

/// SQLite's five locks, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LockLevel {
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

/// Who holds which lock: file, then handle number.
#[derive(Debug, Default)]
pub(crate) struct Locks(BTreeMap<FileId, BTreeMap<u64, LockLevel>>);

impl Locks {
    fn strongest_of_others(&self, file: FileId, handle: u64) -> LockLevel {
        let holders = self.0.get(&file).into_iter().flatten();
        holders
            .filter(|(holder, _)| **holder != handle)
            .map(|(_, level)| *level)
            .max()
            .unwrap_or(LockLevel::None)
    }

    fn set(&mut self, file: FileId, handle: u64, level: LockLevel) {
        let holders = self.0.entry(file).or_default();
        match level {
            LockLevel::None => holders.remove(&handle),
            _ => holders.insert(handle, level),
        };
    }

    fn get(&self, file: FileId, handle: u64) -> LockLevel {
        self.0.get(&file).and_then(|holders| holders.get(&handle)).copied().unwrap_or(LockLevel::None)
    }
}

/// How SQLite wants a file opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenRequest {
    pub(crate) may_create: bool,
    pub(crate) must_be_new: bool,
    pub(crate) is_journal: bool,
    pub(crate) delete_on_close: bool,
}

/// One open file of one connection.
#[derive(Debug)]
pub(crate) struct FileHandle {
    disk: Disk,
    file: FileId,
    path: Arc<str>,
    number: u64,
    delete_on_close: bool,
    /// A new journal: its first sync has to make its name durable too, and with it all earlier changes of names.
    directory_sync_due: AtomicBool,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

impl FileHandle {
    /// Opens `path`, or a file with an invented name.
    pub(crate) fn open(
        disk: Disk,
        path: Option<&str>,
        request: OpenRequest,
    ) -> Result<FileHandle, DiskError> {
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let path: Arc<str> = path.map_or_else(|| format!("temporary-{number}").into(), Arc::from);
        let mut inner = disk.lock();
        inner.require_power()?;
        let (file, is_new) = match inner.find(&path) {
            Ok(_) if request.must_be_new => {
                return Err(DiskError::AlreadyExists { path: path.to_string() });
            }
            Ok(file) => (file, false),
            Err(_) if request.may_create => (inner.create(&path)?, true),
            Err(error) => return Err(error),
        };
        drop(inner);
        let directory_sync_due = AtomicBool::new(is_new && request.is_journal);
        Ok(FileHandle {
            disk,
            file,
            path,
            number,
            delete_on_close: request.delete_on_close,
            directory_sync_due,
        })
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Fills `buffer` from `offset` on and says how many bytes there were; the rest of `buffer` is zeros.
    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let inner = self.disk.lock();
        inner.require_power()?;
        let content =
            inner.state.files.get(&self.file).map(|file| file.current.as_slice()).unwrap_or_default();
        let available = content.get(offset..).unwrap_or_default();
        let count = available.len().min(buffer.len());
        let (filled, missing) = buffer.split_at_mut(count);
        filled.copy_from_slice(available.get(..count).unwrap_or_default());
        missing.fill(0);
        Ok(count)
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DiskError> {
        let action = Action::Write { file: self.file, offset, bytes: Arc::from(bytes) };
        self.disk.lock().perform(&self.path, action)
    }

    pub(crate) fn truncate(&self, length: usize) -> Result<(), DiskError> {
        self.disk.lock().perform(&self.path, Action::Truncate { file: self.file, length })
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        let directory = match self.directory_sync_due.swap(false, Ordering::Relaxed) {
            true => DirectorySync::Yes,
            false => DirectorySync::No,
        };
        self.disk.lock().perform(&self.path, Action::Sync { file: self.file, directory })
    }

    pub(crate) fn length(&self) -> Result<usize, DiskError> {
        let inner = self.disk.lock();
        inner.require_power()?;
        Ok(inner.state.files.get(&self.file).map_or(0, |file| file.current.len()))
    }

    /// Raises the lock to `wanted`. False: another connection is in the way, and nothing changed.
    pub(crate) fn raise_lock(&self, wanted: LockLevel) -> bool {
        let mut inner = self.disk.lock();
        if inner.locks.get(self.file, self.number) >= wanted {
            return true;
        }
        let others = inner.locks.strongest_of_others(self.file, self.number);
        let others_allowed = match wanted {
            LockLevel::None | LockLevel::Shared => LockLevel::Reserved,
            LockLevel::Reserved | LockLevel::Pending => LockLevel::Shared,
            LockLevel::Exclusive => LockLevel::None,
        };
        let free = others <= others_allowed;
        if free {
            inner.locks.set(self.file, self.number, wanted);
        }
        free
    }

    /// Lowers the lock to `wanted`, if it is higher.
    pub(crate) fn lower_lock(&self, wanted: LockLevel) {
        let mut inner = self.disk.lock();
        if inner.locks.get(self.file, self.number) > wanted {
            inner.locks.set(self.file, self.number, wanted);
        }
    }

    /// Whether any connection means to write.
    pub(crate) fn is_reserved(&self) -> bool {
        let inner = self.disk.lock();
        let own = inner.locks.get(self.file, self.number);
        own.max(inner.locks.strongest_of_others(self.file, self.number)) >= LockLevel::Reserved
    }
}

impl Drop for FileHandle {
    fn drop(&mut self) {
        let mut inner = self.disk.lock();
        inner.locks.set(self.file, self.number, LockLevel::None);
        if self.delete_on_close {
            // A temporary file: if the machine is off there is nobody left to tell.
            let _ = inner.delete(&self.path, DirectorySync::No);
        }
    }
}
