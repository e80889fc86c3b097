//! The rate.
use std::time::Duration;

/// Most runs begun in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub runs: u32,
    pub per: Duration,
}
