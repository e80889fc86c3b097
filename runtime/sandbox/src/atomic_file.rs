//! Files that are there whole or not at all, whatever dies while they are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Puts a file in place, readable by its owner alone. It is written as `temporary`, in the same directory, and then renamed;
/// a failure leaves what was there before. Blocks for the disk.
pub fn write(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(temporary, path))
        // DURABLE: the name too.
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        // Nothing else knows its name, and the disk may be full.
        let _ = fs::remove_file(temporary);
    }
    written
}
