//! SQLite's file layer as a table of C functions: the one module with `unsafe`.
//!
//! Each function checks and converts what SQLite passes and calls safe code of `handle`. A panic in here would end the
//! process (it may not cross C), which is right for a test that met something impossible.
//!
//! Who owns what: the table of a [`Mount`] is never freed (a few hundred bytes), because a connection may outlive its
//! mount and keeps a pointer to it. The disk itself is held by the mount and by every open file, and goes with the
//! last of them; the table has only a weak reference.
#![expect(unsafe_code, reason = "SQLite calls file layers through C function pointers")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rusqlite::ffi;

use crate::disk::{Disk, Shared};
use crate::error::DiskError;
use crate::handle::{FileHandle, LockLevel, OpenRequest};
use crate::random::Random;
use crate::settings::Overwrite;
use crate::state::DirectorySync;

/// A disk that SQLite can open files on, under [`Mount::name`]. Dropping it takes the name back; connections that are
/// already open go on working.
#[derive(Debug)]
pub struct Mount {
    name: String,
    /// The table that SQLite knows; never freed.
    table: TablePointer,
    /// Keeps the disk alive while nothing on it is open.
    _disk: Disk,
}

#[derive(Debug, Clone, Copy)]
struct TablePointer(*mut ffi::sqlite3_vfs);

// SAFETY: the table is written before it is registered and from then on only by SQLite, under its own mutex; Rust only
// passes the pointer back to SQLite.
unsafe impl Send for TablePointer {}
// SAFETY: as for Send.
unsafe impl Sync for TablePointer {}

/// What a table carries besides functions.
#[derive(Debug)]
struct TableData {
    disk: Weak<Shared>,
    /// A clock of its own, in milliseconds, which steps at each look: nothing on this disk depends on the real time.
    clock_ms: AtomicI64,
    randomness: Mutex<Random>,
}

/// Noon of 1 January 2026 as SQLite counts: Julian days times 86,400,000.
const CLOCK_START_MS: i64 = 2_461_042 * 86_400_000;
const PATH_BYTES_MAX: c_int = 1024;

/// Looking a name up and registering it are two calls.
static REGISTRATION: Mutex<()> = Mutex::new(());
static NEXT_NAME: AtomicU64 = AtomicU64::new(1);

impl Mount {
    pub(crate) fn with_fresh_name(disk: &Disk) -> Result<Mount, DiskError> {
        let number = NEXT_NAME.fetch_add(1, Ordering::Relaxed);
        Mount::with_name(disk, &format!("yoink-faultfs-{number}"))
    }

    pub(crate) fn with_name(disk: &Disk, name: &str) -> Result<Mount, DiskError> {
        let refused = || DiskError::NameRefused { name: name.to_owned() };
        let c_name = CString::new(name).map_err(|_| refused())?;
        let _guard = REGISTRATION.lock();
        // SAFETY: `c_name` is a C string that outlives the call.
        let taken = unsafe { ffi::sqlite3_vfs_find(c_name.as_ptr()) };
        if !taken.is_null() {
            return Err(DiskError::NameTaken { name: name.to_owned() });
        }
        let data = TableData {
            disk: Arc::downgrade(&disk.shared),
            clock_ms: AtomicI64::new(CLOCK_START_MS),
            randomness: Mutex::new(Random::new(disk.settings().seed)),
        };
        let table = Box::into_raw(Box::new(table_of_functions(c_name, data)));
        // SAFETY: the table and everything it points to were leaked above, so they live as long as SQLite.
        let result = unsafe { ffi::sqlite3_vfs_register(table, 0) };
        if result != ffi::SQLITE_OK {
            return Err(refused());
        }
        Ok(Mount { name: name.to_owned(), table: TablePointer(table), _disk: disk.clone() })
    }

    /// The name to give to `Connection::open_with_flags_and_vfs`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _guard = REGISTRATION.lock();
        // SAFETY: the table was registered by `with_name` and is unregistered only here.
        unsafe { ffi::sqlite3_vfs_unregister(self.table.0) };
    }
}

fn table_of_functions(name: CString, data: TableData) -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: size_of::<OpenFile>() as c_int,
        mxPathname: PATH_BYTES_MAX,
        pNext: ptr::null_mut(),
        zName: name.into_raw(),
        pAppData: Box::into_raw(Box::new(data)).cast(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        // Loading extensions is not offered; SQLite does not call these unless asked to load one.
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// The memory that SQLite gives us for an open file: its own part first.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    handle: *mut FileHandle,
}

static FILE_FUNCTIONS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 1: no shared memory and no memory maps, so WAL asks for `locking_mode=EXCLUSIVE`.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// The code for SQLite: `own` for anything but a full disk.
fn code(result: Result<(), DiskError>, own: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(DiskError::Full { .. }) => ffi::SQLITE_FULL,
        Err(_) => own,
    }
}

// --- The layer -------------------------------------------------------------------------------------------------------

/// # Safety
/// `vfs` is a table made by `table_of_functions`.
unsafe fn data_of<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a TableData {
    // SAFETY: tables are never freed, and `pAppData` never changes.
    let data = unsafe { (*vfs).pAppData };
    // SAFETY: it was made from a `Box<TableData>` that is never freed.
    unsafe { &*data.cast::<TableData>() }
}

fn disk_of(data: &TableData) -> Option<Disk> {
    data.disk.upgrade().map(|shared| Disk { shared })
}

/// # Safety
/// `name` is NULL or a C string that lives as long as the result is used.
unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a str> {
    if name.is_null() {
        return None;
    }
    // SAFETY: by this function's own condition.
    unsafe { CStr::from_ptr(name) }.to_str().ok()
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let file = file.cast::<OpenFile>();
    // SAFETY: SQLite allocated `szOsFile` bytes at `file`; NULL functions say that nothing needs closing.
    unsafe { (*file).base.pMethods = ptr::null() };
    // SAFETY: SQLite passes the table that the function was registered with.
    let Some(disk) = disk_of(unsafe { data_of(vfs) }) else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: SQLite keeps the name until the file is closed, and we copy it.
    let path = unsafe { path_of(name) };
    if path.is_none() && !name.is_null() {
        return ffi::SQLITE_CANTOPEN;
    }
    let journals = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let request = OpenRequest {
        may_create: flags & ffi::SQLITE_OPEN_CREATE != 0,
        must_be_new: flags & ffi::SQLITE_OPEN_EXCLUSIVE != 0,
        is_journal: flags & journals != 0,
        delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
    };
    let handle = match FileHandle::open(disk, path, request) {
        Ok(handle) => Box::into_raw(Box::new(handle)),
        Err(error) => return code(Err(error), ffi::SQLITE_CANTOPEN),
    };
    let opened = OpenFile { base: ffi::sqlite3_file { pMethods: &FILE_FUNCTIONS }, handle };
    // SAFETY: as above; the old content needs no drop.
    unsafe { file.write(opened) };
    if !flags_out.is_null() {
        // SAFETY: SQLite passes NULL or a place for the flags.
        unsafe { *flags_out = flags };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    // SAFETY: SQLite passes the table that the function was registered with.
    let disk = disk_of(unsafe { data_of(vfs) });
    // SAFETY: SQLite passes a C string that lives during the call.
    let (Some(disk), Some(path)) = (disk, unsafe { path_of(name) }) else {
        return ffi::SQLITE_IOERR_DELETE;
    };
    let directory = if sync_directory != 0 { DirectorySync::Yes } else { DirectorySync::No };
    match disk.lock().delete(&Arc::from(path), directory) {
        Err(DiskError::NotFound { .. }) => ffi::SQLITE_IOERR_DELETE_NOENT,
        result => code(result, ffi::SQLITE_IOERR_DELETE),
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    found: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the table that the function was registered with.
    let disk = disk_of(unsafe { data_of(vfs) });
    // SAFETY: SQLite passes a C string that lives during the call.
    let (Some(disk), Some(path)) = (disk, unsafe { path_of(name) }) else {
        return ffi::SQLITE_IOERR_ACCESS;
    };
    let inner = disk.lock();
    if inner.require_power().is_err() {
        return ffi::SQLITE_IOERR_ACCESS;
    }
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *found = c_int::from(inner.find(path).is_ok()) };
    ffi::SQLITE_OK
}

/// Names are taken as they are: this disk has no current directory.
unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    capacity: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a C string that lives during the call.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    match usize::try_from(capacity) {
        Ok(capacity) if bytes.len() <= capacity => {
            // SAFETY: `out` has room for `capacity` bytes and does not overlap the name.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_CANTOPEN,
    }
}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    let length = usize::try_from(count).unwrap_or(0);
    // SAFETY: `out` has room for `count` bytes; it may be uninitialised, so it is zeroed before a slice is made of it.
    unsafe { ptr::write_bytes(out, 0, length) };
    // SAFETY: initialised just above, and nobody else has it during the call.
    let bytes = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), length) };
    // SAFETY: SQLite passes the table that the function was registered with.
    unsafe { data_of(vfs) }.randomness.lock().fill(bytes);
    count
}

/// Time on this disk is not real: nobody sleeps.
unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

unsafe extern "C" fn current_time_ms(vfs: *mut ffi::sqlite3_vfs, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite passes the table that the function was registered with.
    let now_ms = unsafe { data_of(vfs) }.clock_ms.fetch_add(1, Ordering::Relaxed);
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = now_ms };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    let mut now_ms = 0;
    // SAFETY: the same table, and a place for the answer.
    let result = unsafe { current_time_ms(vfs, &raw mut now_ms) };
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = now_ms as f64 / 86_400_000.0 };
    result
}

unsafe extern "C" fn last_error(_vfs: *mut ffi::sqlite3_vfs, _capacity: c_int, _out: *mut c_char) -> c_int {
    0
}

// --- One file --------------------------------------------------------------------------------------------------------

/// # Safety
/// `file` was opened by `open` and is not closed yet.
unsafe fn handle_of<'a>(file: *mut ffi::sqlite3_file) -> &'a FileHandle {
    // SAFETY: `open` filled the whole `OpenFile`, of which SQLite's part is the first field.
    let handle = unsafe { (*file.cast::<OpenFile>()).handle };
    // SAFETY: made from a box by `open`, and freed only by `close`.
    unsafe { &*handle }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let file = file.cast::<OpenFile>();
    // SAFETY: SQLite closes a file once, after its last use.
    let handle = unsafe { (*file).handle };
    // SAFETY: made from a box by `open`; nobody uses it after this.
    drop(unsafe { Box::from_raw(handle) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(count), usize::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: `out` has room for `count` bytes; it may be uninitialised, so it is zeroed before a slice is made of it.
    unsafe { ptr::write_bytes(out.cast::<u8>(), 0, length) };
    // SAFETY: initialised just above, and nobody else has it during the call.
    let buffer = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), length) };
    // SAFETY: SQLite reads only from open files.
    match unsafe { handle_of(file) }.read(offset, buffer) {
        Ok(read) if read == length => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(count), usize::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes `count` bytes that nobody changes during the call.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    // SAFETY: SQLite writes only to open files.
    code(unsafe { handle_of(file) }.write(offset, bytes), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    let Ok(length) = usize::try_from(length) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    // SAFETY: SQLite truncates only open files.
    code(unsafe { handle_of(file) }.truncate(length), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite syncs only open files.
    code(unsafe { handle_of(file) }.sync(), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: SQLite measures only open files.
    let Ok(length) = unsafe { handle_of(file) }.length() else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = length as ffi::sqlite3_int64 };
    ffi::SQLITE_OK
}

fn level(lock: c_int) -> LockLevel {
    match lock {
        ffi::SQLITE_LOCK_NONE => LockLevel::None,
        ffi::SQLITE_LOCK_SHARED => LockLevel::Shared,
        ffi::SQLITE_LOCK_RESERVED => LockLevel::Reserved,
        ffi::SQLITE_LOCK_PENDING => LockLevel::Pending,
        _ => LockLevel::Exclusive,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, lock: c_int) -> c_int {
    // SAFETY: SQLite locks only open files.
    if unsafe { handle_of(file) }.raise_lock(level(lock)) { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, lock: c_int) -> c_int {
    // SAFETY: SQLite unlocks only open files.
    unsafe { handle_of(file) }.lower_lock(level(lock));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite asks only about open files.
    let reserved = unsafe { handle_of(file) }.is_reserved();
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, _code: c_int, _data: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite asks only about open files.
    let settings = unsafe { handle_of(file) }.disk().settings();
    settings.sector.bytes() as c_int
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite asks only about open files.
    match unsafe { handle_of(file) }.disk().settings().overwrite {
        Overwrite::Careless => 0,
        Overwrite::PowerSafe => ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE,
    }
}
