//! The settings file as text, or why there is none. What the text says is for others.

use super::problem::{Problem, Problems, Severity};
use std::io::Read as _;
use std::path::Path;

/// A larger file is a mistake (1 MiB).
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The text of the file, without a mark of byte order.
pub(super) fn read(file: &Path) -> Result<String, Problems> {
    let mut bytes = vec![];
    let read = std::fs::File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(unreadable(file, &error));
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let message = format!("the settings are larger than {FILE_BYTES_MAX} bytes");
        return Err(refused(file, message, "is this the right file? settings of that size are none"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = format!("the settings are not UTF-8: line {line} has a byte that is no text");
        refused(file, message, "save it as UTF-8")
    })?;
    // Some editors begin a file so; it is no part of the text.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A file of which nothing can be read.
pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Problems {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::NotFound => {
            "name the file with --config or SLUICEBOX_CONFIG, go to the directory where it is, or make one with \
             `sluicebox new`"
        }
        ErrorKind::PermissionDenied => "give the user that runs sluicebox leave to read it",
        ErrorKind::IsADirectory => "name the file in it, such as sluicebox.toml",
        _ => "name another file with --config or SLUICEBOX_CONFIG",
    };
    refused(file, format!("failed to read the settings: {error}"), hint)
}

/// A problem of the whole file.
pub(super) fn refused(file: &Path, message: String, hint: &str) -> Problems {
    let expected = Some(format!("a TOML file of at most {FILE_BYTES_MAX} bytes with at least one setting"));
    let (severity, hint) = (Severity::Error, Some(hint.to_owned()));
    Problems(vec![Problem { severity, file: file.into(), place: None, message, expected, hint }])
}
