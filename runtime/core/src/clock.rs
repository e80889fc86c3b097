//! The only place that reads the time.
//!
//! Wall-clock times are [`Timestamp`]s (milliseconds since 1970). Waits inside a process run on the monotonic clock, and the
//! host's own time, by which the log is dated, on the boot clock: [`crate::skew`] says why.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall-clock time in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time `wait` later, saturating.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(millis(wait)))
    }

    /// The time `age` earlier, saturating at 1970.
    pub fn before(self, age: Duration) -> Self {
        Self(self.0.saturating_sub(millis(age)))
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

/// The wall clock now: what the machine says, right or wrong. What the log dates runs on [`steady`].
pub fn now() -> Timestamp {
    #[cfg(debug_assertions)]
    if let Some(time) = simulated::wall() {
        return time;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    Timestamp(wall.saturating_add_signed(SHIFT_MS.load(Ordering::Relaxed)))
}

/// Tests of the program set the clock of one process by this; nothing else does.
static SHIFT_MS: AtomicI64 = AtomicI64::new(0);

/// From now on the wall clock of this process is so far ahead, or behind. For tests.
#[doc(hidden)]
pub fn shift(ms: i64) {
    SHIFT_MS.store(ms, Ordering::Relaxed);
}

/// How long the machine has been up, the time that it was suspended included. No one sets this clock.
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// The host's time: the wall clock as it was when the process began, or what [`begin_at`] said, and moved on by the boot
/// clock since. The log's messages are dated by it, and whoever waits for a time waits for this one. Whoever sets the
/// machine's clock meanwhile delays nothing, hastens nothing and makes nothing older.
pub fn steady() -> Timestamp {
    #[cfg(debug_assertions)]
    if let Some(time) = simulated::now() {
        return time;
    }
    let host = HostTime::begun();
    host.look_for_suspend();
    host.at(instant())
}

/// What [`steady`] said at that point of the monotonic clock. A suspend counts once [`steady`] was asked.
pub fn steady_at(instant: Instant) -> Timestamp {
    #[cfg(debug_assertions)]
    if let Some(time) = simulated::at(instant) {
        return time;
    }
    HostTime::begun().at(instant)
}

/// The host's time is this, from now on. Before anything is dated.
pub fn begin_at(time: Timestamp) {
    let host = HostTime::begun();
    host.look_for_suspend();
    let since = host.since(instant());
    host.base_ms.store(time.0.saturating_sub(since), Ordering::Relaxed);
}

struct HostTime {
    instant: Instant,
    since_boot: Duration,
    /// The host's time at `instant`.
    base_ms: AtomicU64,
    /// How long the machine was suspended since, as far as is known: the monotonic clock does not count that, and asking the
    /// boot clock for each run would cost as much again.
    suspended_ms: AtomicU64,
}

impl HostTime {
    fn begun() -> &'static Self {
        static BEGUN: OnceLock<HostTime> = OnceLock::new();
        BEGUN.get_or_init(|| Self {
            instant: instant(),
            since_boot: since_boot(),
            base_ms: AtomicU64::new(now().0),
            suspended_ms: AtomicU64::new(0),
        })
    }

    fn look_for_suspend(&self) {
        // In this order: a pause between both looks makes the suspend seem shorter, never longer.
        let since_boot = since_boot();
        let awake = instant().saturating_duration_since(self.instant);
        let suspended = since_boot.saturating_sub(self.since_boot).saturating_sub(awake);
        self.suspended_ms.fetch_max(millis(suspended), Ordering::Relaxed);
    }

    fn since(&self, instant: Instant) -> u64 {
        let awake = millis(instant.saturating_duration_since(self.instant));
        awake.saturating_add(self.suspended_ms.load(Ordering::Relaxed))
    }

    fn at(&self, instant: Instant) -> Timestamp {
        Timestamp(self.base_ms.load(Ordering::Relaxed).saturating_add(self.since(instant)))
    }
}

/// Whole milliseconds of a duration, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock now, as file systems take it.
pub fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A point on the monotonic clock, for measuring durations.
pub fn instant() -> Instant {
    #[cfg(debug_assertions)]
    if let Some(instant) = simulated::instant() {
        return instant;
    }
    Instant::now()
}

/// Time that a test moves on, for everything on its thread. Builds with debug assertions only.
#[cfg(debug_assertions)]
pub mod simulated {
    use super::{Timestamp, millis};
    use std::cell::Cell;
    use std::time::Instant;

    /// What the wall clock says when a simulation begins.
    const BEGIN: Timestamp = Timestamp(1_700_000_000_000);

    #[derive(Clone, Copy)]
    struct Source {
        instant: fn() -> Instant,
        begun: Instant,
    }

    thread_local! {
        static SOURCE: Cell<Option<Source>> = const { Cell::new(None) };
        static SHIFT_MS: Cell<i64> = const { Cell::new(0) };
    }

    /// From now on the clocks of this thread follow this one.
    pub fn begin(instant: fn() -> Instant) {
        SOURCE.set(Some(Source { instant, begun: instant() }));
        SHIFT_MS.set(0);
    }

    /// Someone sets the wall clock of this thread: from now on it is so far ahead, or behind.
    pub fn shift(ms: i64) {
        SHIFT_MS.set(ms);
    }

    /// The real clocks again.
    pub fn end() {
        SOURCE.set(None);
    }

    pub(super) fn instant() -> Option<Instant> {
        SOURCE.get().map(|source| (source.instant)())
    }

    pub(super) fn now() -> Option<Timestamp> {
        at(instant()?)
    }

    pub(super) fn wall() -> Option<Timestamp> {
        now().map(|now| Timestamp(now.0.saturating_add_signed(SHIFT_MS.get())))
    }

    pub(super) fn at(instant: Instant) -> Option<Timestamp> {
        let source = SOURCE.get()?;
        Some(Timestamp(BEGIN.0 + millis(instant.saturating_duration_since(source.begun))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_the_machine_was_suspended_counts_once_it_is_looked_for() {
        let (hour, wall) = (Duration::from_secs(3600), Timestamp(1_000_000));
        let slept = HostTime {
            instant: instant(),
            // As if the boot clock had gone on for an hour that the monotonic clock did not see.
            since_boot: since_boot().saturating_sub(hour),
            base_ms: AtomicU64::new(wall.0),
            suspended_ms: AtomicU64::new(0),
        };
        let before = slept.at(instant());
        slept.look_for_suspend();
        assert!(slept.at(instant()) > before, "the suspend is not seen");
        // Both clocks are not read at one moment, and a machine may be up for less than an hour.
        let seen = hour.min(since_boot()).saturating_sub(Duration::from_secs(60));
        assert!(slept.at(instant()) >= wall.after(seen));
    }
}
