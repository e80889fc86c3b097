//! Values that must not be seen, and the small files that they come from.

use super::findings::Findings;
use super::item::Item;
use super::values;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

/// Most bytes in one value (64 KiB): settings, not data.
pub(super) const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// A text that no diagnostics, error or API shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

/// Reads a small text file, without the newline at its end. Relative paths start at `directory`.
pub(super) fn from_file(
    findings: &mut Findings<'_>,
    item: &Item<'_>,
    directory: &Path,
    expected: &str,
) -> Option<String> {
    let path = directory.join(values::text(findings, item, expected)?);
    match read_small(&path) {
        Ok(text) => Some(text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).into()),
        Err(error) => {
            findings
                .error(item.span(), format!("failed to read `{}`: {error}", path.display()))
                .expected(expected)
                .hint("paths are relative to the settings file");
            None
        }
    }
}

/// A small text file as it is.
pub(super) fn read_small(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {SECRET_BYTES_MAX} bytes")));
    }
    Ok(text)
}
