//! A machine's clock that was set: how far it is from where the host's time was, and what becomes of the times that the log
//! holds when it is taken as it is.
//!
//! Everything that the log dates is dated by the host's time, which nobody sets: within a process it runs on the boot clock,
//! and a process that starts in the same boot of the machine goes on where the last one was. So a step of the machine's
//! clock ages no mark, delays no retry and deletes no message. Only when an operator accepts the clock as it is, the host's
//! time jumps to it, and then the log's times are moved along ([`Redate`]): what was young stays young.

use crate::clock::Timestamp;
use std::time::Duration;

/// From here on people are told. NTP corrects less all the time.
pub const WARN_ABOVE: Duration = Duration::from_secs(1);

/// Where the host's time was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The log's last time; 0 in a new one.
    pub last: Timestamp,
    /// The host's time when the machine booted, if the last host ran in the same boot.
    pub boot: Option<Timestamp>,
}

/// Where the machine's clock is, seen from the host's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// Within what NTP corrects, or it cannot be known.
    None,
    Ahead(Duration),
    Behind(Duration),
}

impl Skew {
    /// The machine's clock says `wall` when the host's time is `host`.
    pub fn of(wall: Timestamp, host: Timestamp) -> Self {
        match (wall.since(host), host.since(wall)) {
            (ahead, _) if ahead > WARN_ABOVE => Self::Ahead(ahead),
            (_, behind) if behind > WARN_ABOVE => Self::Behind(behind),
            _ => Self::None,
        }
    }

    pub fn by(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Ahead(by) | Self::Behind(by) => by,
        }
    }
}

/// What a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    pub skew: Skew,
    /// The host's time, if it goes on where it was.
    pub goes_on_at: Timestamp,
    wall: Timestamp,
    boot: Timestamp,
}

impl Left {
    /// Compares the machine's clock with where the host's time was left.
    ///
    /// A clock that is ahead looks like a host that was away for long, unless both ran in one boot of the machine.
    pub fn compare(self, wall: Timestamp, since_boot: Duration) -> Compared {
        // A log that is later than the host of this boot was written elsewhere, or by hand: then it alone counts.
        let known = self.boot.map(|boot| boot.after(since_boot)).filter(|time| time.after(WARN_ABOVE) >= self.last);
        let goes_on_at = known.unwrap_or(wall).max(self.last);
        let boot = self.boot.unwrap_or(goes_on_at.before(since_boot));
        Compared { skew: Skew::of(wall, goes_on_at), goes_on_at, wall, boot }
    }
}

impl Compared {
    /// How the log's times move when the machine's clock is taken as it is; `None`: they are right.
    pub fn redate(&self) -> Option<Redate> {
        match self.skew {
            Skew::None => None,
            Skew::Behind(by) => Some(Redate::Back { now: self.wall, by }),
            Skew::Ahead(by) => Some(Redate::Forward { now: self.wall, since: self.boot, by }),
        }
    }
}

/// How the times of a log move when its host's time is set. No later time becomes an earlier one than before, so messages
/// stay in the order of their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redate {
    /// The clock was ahead: nothing is of the future any more. When each message really came nobody knows, so it is dated
    /// `now`: a mark may live once more as long as it should, and never less.
    Back { now: Timestamp, by: Duration },
    /// The clock was behind since the machine booted: what was dated in this boot moves along.
    Forward { now: Timestamp, since: Timestamp, by: Duration },
}

impl Redate {
    /// The time of a message, a mark or a dead letter.
    pub fn time(&self, time: Timestamp) -> Timestamp {
        match *self {
            Self::Back { now, .. } => time.min(now),
            Self::Forward { now, since, by } if time >= since => time.after(by).min(now).max(time),
            Self::Forward { .. } => time,
        }
    }

    /// A time that something waits for: it waits as long as it did.
    pub fn due(&self, due: Timestamp) -> Timestamp {
        match *self {
            Self::Back { now, by } if due > now => due.before(by).max(now),
            Self::Forward { since, by, .. } if due >= since && due > Timestamp(0) => due.after(by),
            Self::Back { .. } | Self::Forward { .. } => due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const UP: Duration = Duration::from_secs(3600);

    fn left(last: Timestamp, host: Option<Timestamp>) -> Left {
        Left { last, boot: host.map(|host| host.before(UP)) }
    }

    #[track_caller]
    fn check(left: Left, skew: Skew, goes_on_at: Timestamp) {
        let compared = left.compare(NOW, UP);
        assert_eq!((compared.skew, compared.goes_on_at), (skew, goes_on_at));
    }

    #[test]
    fn a_clock_that_was_set_back_is_known_by_the_log_alone() {
        check(left(NOW.after(YEAR), None), Skew::Behind(YEAR), NOW.after(YEAR));
        check(left(NOW.after(YEAR), Some(NOW.after(YEAR))), Skew::Behind(YEAR), NOW.after(YEAR));
    }

    #[test]
    fn a_clock_that_was_set_ahead_is_known_within_one_boot() {
        let then = NOW.before(YEAR);
        check(left(then, Some(then)), Skew::Ahead(YEAR), then);
        // A host that was away for a year, or a machine whose clock was a year behind: nobody can tell.
        check(left(then, None), Skew::None, NOW);
    }

    #[test]
    fn what_ntp_corrects_is_no_skew_and_time_never_goes_back() {
        let second = Duration::from_secs(1);
        check(left(NOW.after(second), None), Skew::None, NOW.after(second));
        check(left(NOW, Some(NOW.before(second))), Skew::None, NOW);
        check(left(Timestamp(0), None), Skew::None, NOW);
    }

    #[test]
    fn a_log_that_is_later_than_the_host_of_this_boot_counts_alone() {
        check(left(NOW.after(YEAR), Some(NOW)), Skew::Behind(YEAR), NOW.after(YEAR));
        check(left(NOW.before(UP), Some(NOW.before(YEAR))), Skew::None, NOW);
    }

    #[test]
    fn what_waits_two_seconds_waits_two_seconds_after_either_step() {
        for host in [NOW.after(YEAR), NOW.before(YEAR)] {
            let redate = left(host, Some(host)).compare(NOW, UP).redate().unwrap();
            let wait = Duration::from_secs(2);
            assert_eq!(redate.due(host.after(wait)), NOW.after(wait));
            assert_eq!(redate.time(host), NOW);
            assert_eq!(redate.due(Timestamp(0)), Timestamp(0));
        }
    }

    proptest! {
        #[test]
        fn redated_times_keep_their_order_and_are_not_of_the_future(
            a: u32, b: u32, now: u32, host: u32, up in 0u64..10_000_000, forward: bool,
        ) {
            let [a, b, now, host] = [a, b, now, host].map(|time| Timestamp(time.into()));
            let last = a.max(b).min(host);
            let known = forward.then(|| host.before(Duration::from_millis(up)));
            let compared = Left { last, boot: known }.compare(now, Duration::from_millis(up));
            if let Some(redate) = compared.redate() {
                let (first, second) = (a.min(b).min(last), last);
                prop_assert!(redate.time(first) <= redate.time(second));
                prop_assert!(redate.time(second) <= now);
            }
        }
    }
}
