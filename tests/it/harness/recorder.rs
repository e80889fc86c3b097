//! Writes down what SQLite does to the files of a directory, so that a test can say what a loss of power may leave.
//!
//! It holds for the whole process: only for children (`again.rs`). A write, a cut and a deletion are recorded before they
//! are done, a sync when it is done, with the place in the record at which it began: it makes durable what was done to
//! its file before that.
#![allow(unsafe_code, reason = "system calls are replaced, which only exists as an interface of C")]

use super::disk::{self, Write, pwrite64};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io::{Read as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// What happened, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Wrote {
        file: String,
        at: u64,
        bytes: Vec<u8>,
    },
    Cut {
        file: String,
        bytes: u64,
    },
    Deleted {
        file: String,
    },
    /// All that was done to the file before this place in the record is durable. An empty name is the directory: which
    /// files there are.
    Synced {
        file: String,
        before: usize,
    },
    /// The test itself says so.
    Said(String),
}

struct Recorder {
    directory: PathBuf,
    record: Mutex<Record>,
}

struct Record {
    file: std::io::BufWriter<std::fs::File>,
    length: usize,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// From now on everything done to files of `directory` goes into the file `record`, which is complete when the process
/// says [`finish`].
pub fn start(directory: &Path, record: &Path) {
    let file = std::io::BufWriter::new(std::fs::File::create(record).unwrap());
    let recorder =
        Recorder { directory: directory.canonicalize().unwrap(), record: Mutex::new(Record { file, length: 0 }) };
    assert!(RECORDER.set(recorder).is_ok(), "recording began twice");
    type Cut = unsafe extern "C" fn(c_int, i64) -> c_int;
    type Delete = unsafe extern "C" fn(*const c_char) -> c_int;
    // SAFETY: they have the signatures of what they replace.
    unsafe {
        for name in [c"pwrite", c"pwrite64"] {
            disk::replace(name, std::mem::transmute::<Write, unsafe extern "C" fn()>(write));
        }
        disk::replace(c"ftruncate", std::mem::transmute::<Cut, unsafe extern "C" fn()>(cut));
        disk::replace(c"unlink", std::mem::transmute::<Delete, unsafe extern "C" fn()>(delete));
        // It would grow files past the recorder.
        disk::replace(c"write", no_other_write);
    }
}

/// Records what the test itself says.
pub fn say(what: impl std::fmt::Display) {
    add(Event::Said(what.to_string()));
}

/// The record is complete.
pub fn finish() {
    RECORDER.get().unwrap().record.lock().unwrap().file.flush().unwrap();
}

/// What was recorded.
pub fn read(record: &Path) -> Vec<Event> {
    let mut file = std::io::BufReader::new(std::fs::File::open(record).unwrap());
    let mut events = vec![];
    let mut length = [0; 4];
    while file.read_exact(&mut length).is_ok() {
        let mut event = vec![0; u32::from_le_bytes(length) as usize];
        file.read_exact(&mut event).unwrap();
        events.push(decode(&event));
    }
    events
}

/// Where a sync that begins now stands in the record.
pub fn sync_begins() -> usize {
    RECORDER.get().map_or(0, |recorder| recorder.record.lock().unwrap().length)
}

pub fn synced(file: c_int, begun: usize) {
    if let Some(file) = name_of(file) {
        add(Event::Synced { file, before: begun });
    }
}

fn add(event: Event) {
    let mut record = RECORDER.get().unwrap().record.lock().unwrap();
    let event = encode(&event);
    record.file.write_all(&u32::try_from(event.len()).unwrap().to_le_bytes()).unwrap();
    record.file.write_all(&event).unwrap();
    record.length += 1;
}

/// A kind, a name with its length, a number, and bytes.
fn encode(event: &Event) -> Vec<u8> {
    let (kind, file, number, bytes): (u8, &str, u64, &[u8]) = match event {
        Event::Wrote { file, at, bytes } => (0, file, *at, bytes),
        Event::Cut { file, bytes } => (1, file, *bytes, &[]),
        Event::Deleted { file } => (2, file, 0, &[]),
        Event::Synced { file, before } => (3, file, *before as u64, &[]),
        Event::Said(text) => (4, "", 0, text.as_bytes()),
    };
    let name_bytes = u8::try_from(file.len()).unwrap();
    [&[kind, name_bytes], file.as_bytes(), &number.to_le_bytes(), bytes].concat()
}

fn decode(event: &[u8]) -> Event {
    let (file, rest) = event[2..].split_at(usize::from(event[1]));
    let (number, bytes) = rest.split_first_chunk().unwrap();
    let (file, number) = (String::from_utf8(file.to_vec()).unwrap(), u64::from_le_bytes(*number));
    match event[0] {
        0 => Event::Wrote { file, at: number, bytes: bytes.to_vec() },
        1 => Event::Cut { file, bytes: number },
        2 => Event::Deleted { file },
        3 => Event::Synced { file, before: usize::try_from(number).unwrap() },
        4 => Event::Said(String::from_utf8(bytes.to_vec()).unwrap()),
        kind => panic!("{kind} is no event"),
    }
}

/// The name of an open file of the directory, empty for the directory itself; `None`: it is elsewhere, or nobody records.
fn name_of(file: c_int) -> Option<String> {
    RECORDER.get()?;
    name_in(&std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap())
}

fn name_in(path: &Path) -> Option<String> {
    let name = path.strip_prefix(&RECORDER.get().unwrap().directory).ok()?.to_str().unwrap();
    // How connections of one process share their locks: made anew by whoever opens the database first.
    (!name.ends_with("-shm")).then(|| name.to_owned())
}

unsafe extern "C" fn write(file: c_int, bytes: *const c_void, count: usize, at: i64) -> isize {
    if let Some(file) = name_of(file) {
        // SAFETY: SQLite vouches for the bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) }.to_vec();
        add(Event::Wrote { file, at: u64::try_from(at).unwrap(), bytes });
    }
    // SAFETY: as SQLite called it. That it writes less than all of it is recorded as if it had written all.
    unsafe { pwrite64(file, bytes, count, at) }
}

unsafe extern "C" fn cut(file: c_int, bytes: i64) -> c_int {
    let bytes = u64::try_from(bytes).unwrap();
    if let Some(file) = name_of(file) {
        add(Event::Cut { file, bytes });
    }
    // SAFETY: SQLite holds the file open.
    match rustix::fs::ftruncate(unsafe { BorrowedFd::borrow_raw(file) }, bytes) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

unsafe extern "C" fn delete(path: *const c_char) -> c_int {
    // SAFETY: SQLite passes a path that ends with a zero.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())).to_owned();
    if let Some(file) = name_in(&path) {
        add(Event::Deleted { file });
    }
    match rustix::fs::unlink(&path) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

unsafe extern "C" fn no_other_write() {
    // It may not unwind into C.
    eprintln!("SQLite writes in a way that is not recorded");
    std::process::abort();
}
