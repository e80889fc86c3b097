//! The only place that reads the time.
//!
//! Wall-clock times are [`Timestamp`]s (milliseconds since 1970); waits inside a process run on the monotonic clock.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A wall-clock time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `wait` later, saturating.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The time `age` earlier, saturating at 1970.
    pub fn before(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC with milliseconds, as the CLI and the API print it.
impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()) {
            Some(time) => write!(f, "{time:.3}"),
            None => write!(f, "{} ms since 1970", self.0),
        }
    }
}

/// The wall clock now.
pub fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// The wall clock as it was when the process began, and moved on by the monotonic clock since: for times to wait for.
/// Whoever sets the machine's clock meanwhile delays nothing and hastens nothing.
pub fn steady() -> Timestamp {
    steady_at(instant())
}

/// What [`steady`] said at that point of the monotonic clock.
pub fn steady_at(instant: std::time::Instant) -> Timestamp {
    static BEGUN: OnceLock<(Timestamp, std::time::Instant)> = OnceLock::new();
    let (wall, begun) = BEGUN.get_or_init(|| (now(), self::instant()));
    wall.after(instant.saturating_duration_since(*begun))
}

/// The wall clock now, as file systems take it.
pub fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A point on the monotonic clock, for measuring durations.
pub fn instant() -> std::time::Instant {
    std::time::Instant::now()
}
