//! Who connects to a server, as people see it.

use std::fmt;

/// Writes whether anybody is named, and no word of a secret.
pub(crate) fn show<L: Default + PartialEq>(login: &L, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(if *login == L::default() { "nobody" } else { "(redacted)" })
}
