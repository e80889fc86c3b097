//! A fault of the host: no sandbox can be made. It says nothing about the message or the handler, so nothing runs for a
//! while and no attempt is used up, as if a breaker were open.

use std::time::{Duration, Instant};

/// Upper bounds of the waits: they double while the fault lasts.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HostFault {
    wait: Duration,
    pub(super) until: Instant,
}

impl HostFault {
    /// After another failed run; `random` is uniform in [0, 1). `None`: one that had begun before, and nothing changes.
    pub(super) fn after(before: Option<Self>, now: Instant, random: f64) -> Option<Self> {
        let wait = match before {
            Some(fault) if now < fault.until => return None,
            Some(fault) => (fault.wait * 2).min(WAIT_MAX),
            None => WAIT_MIN,
        };
        // At least half: a wait of nothing would be none.
        Some(Self { wait, until: now + wait.mul_f64(0.5 + random / 2.0) })
    }
}
