//! What JetStream says when it does not do what it is asked.

use serde::Deserialize;
use std::fmt;

/// The `error` of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    /// Says which it is; 0 where somebody else answered.
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    description: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.description, self.err_code)
    }
}
