//! A disk that fails on command. It stands between SQLite and the kernel: the calls that write and sync return what a
//! full or broken disk returns, so everything above them is the real thing. It holds for the whole process: only for
//! children (`again.rs`).
#![allow(unsafe_code, reason = "system calls are replaced, which only exists as an interface of C")]

use super::recorder;
use rusqlite::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes by which files may still grow.
static ROOM: AtomicU64 = AtomicU64::new(u64::MAX);
static SYNC_FAILS: AtomicBool = AtomicBool::new(false);

/// From now on SQLite's files may grow by so many bytes; writing over what they have goes on.
pub fn leave_room(bytes: u64) {
    static REPLACED: OnceLock<()> = OnceLock::new();
    REPLACED.get_or_init(replace_write);
    ROOM.store(bytes, Ordering::SeqCst);
}

/// Whether each sync fails from now on, as on a disk that lost what it was given.
pub fn fail_sync(fails: bool) {
    SYNC_FAILS.store(fails, Ordering::SeqCst);
}

pub type Write = unsafe extern "C" fn(c_int, *const c_void, usize, i64) -> isize;

fn replace_write() {
    // SAFETY: it has this signature.
    let replacement = unsafe { std::mem::transmute::<Write, unsafe extern "C" fn()>(write_if_there_is_room) };
    // Which one it uses was decided when it was compiled.
    [c"pwrite", c"pwrite64"].iter().for_each(|name| replace(name, replacement));
}

/// Makes SQLite call something else than the C library's function of this name, which must have its signature.
pub fn replace(name: &CStr, replacement: unsafe extern "C" fn()) {
    // SAFETY: the default file system of SQLite lives as long as the process.
    unsafe {
        let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
        assert_eq!((*vfs).xSetSystemCall.unwrap()(vfs, name.as_ptr(), Some(replacement)), ffi::SQLITE_OK);
    }
}

unsafe extern "C" {
    pub fn pwrite64(file: c_int, bytes: *const c_void, count: usize, at: i64) -> isize;
}

unsafe extern "C" fn write_if_there_is_room(file: c_int, bytes: *const c_void, count: usize, at: i64) -> isize {
    // SAFETY: SQLite holds the file open while it writes to it, and vouches for the bytes.
    unsafe {
        let size = rustix::fs::fstat(BorrowedFd::borrow_raw(file)).unwrap().st_size as u64;
        let growth = (at as u64 + count as u64).saturating_sub(size);
        let taken = ROOM.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(growth));
        let file = if taken.is_ok() { file } else { full_device() };
        pwrite64(file, bytes, count, at)
    }
}

/// The device whose every write says that there is no room, which sets the error of the C library.
fn full_device() -> c_int {
    static FULL: OnceLock<std::fs::File> = OnceLock::new();
    FULL.get_or_init(|| std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()).as_raw_fd()
}

/// Takes the place of the C library's for all that is linked into the test binary.
#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    sync_with(file, |file| rustix::fs::fsync(file))
}

/// Which of both SQLite calls was decided when it was compiled.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    sync_with(file, |file| rustix::fs::fdatasync(file))
}

fn sync_with(file: c_int, sync: fn(BorrowedFd<'_>) -> rustix::io::Result<()>) -> c_int {
    if SYNC_FAILS.load(Ordering::SeqCst) {
        return -1;
    }
    let begun = recorder::sync_begins();
    // SAFETY: the caller holds the file open. This asks the kernel directly, so it does not come back here.
    match sync(unsafe { BorrowedFd::borrow_raw(file) }) {
        Ok(()) => {
            recorder::synced(file, begun);
            0
        }
        Err(_) => -1,
    }
}
