//! The lock file: one process at a time works on a data directory.

use crate::error::LogError;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

/// Held as long as the data directory is in use. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says which process holds it.
    pub(super) fn take(path: &Path) -> Result<Self, LogError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| LogError::Refused {
            reason: format!("failed to {what} the lock file `{}`: {error}", path.display()),
        };
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(|error| failed("open", &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(path, &mut file)),
            Err(error) => return Err(failed("lock", &error)),
        }
        let pid = std::process::id();
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{pid}"));
        written.map_err(|error| failed("write", &error))?;
        Ok(Self { _file: file })
    }
}

fn held(path: &Path, file: &mut File) -> LogError {
    let mut text = String::new();
    // The holder writes its pid after it took the lock, so the file may still be empty.
    let holder = match file.take(32).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("process {}", text.trim()),
        _ => "another process".to_owned(),
    };
    let directory = path.parent().unwrap_or(path).display();
    LogError::Refused {
        reason: format!("the log in `{directory}` is in use by {holder}: stop it first, or use another directory"),
    }
}
