//! The breaker.
use std::time::Duration;

/// When a breaker trips, and how long it stays open.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub trip: Trip,
    pub wait: Duration,
    pub max_wait: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trip: Trip::Consecutive { failures: 5 },
            wait: Duration::from_millis(500),
            max_wait: Duration::from_secs(60),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trip {
    Consecutive { failures: u32 },
    Count { failures: u32, window: Duration },
    Rate { percent: u8, samples: u32, window: Duration },
}
