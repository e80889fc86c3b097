//! How often a handler may run: a bucket that drains at the allowed rate, and each run fills it by one.
//!
//! In any span of time at most `span × rate + burst` runs are admitted, and one who asks whenever told to gets the full
//! rate, but for a nanosecond a run. The arithmetic is in whole numbers, so no rate is too odd. No clock is read.

use crate::handler::RateLimit;
use std::time::{Duration, Instant};

/// What may run at once after a pause is what the rate allows in this time, and at least one run: long enough to let a
/// batch through, short enough that a second looks even.
const BURST: Duration = Duration::from_millis(100);

/// Counts the runs of one handler against its limit.
#[derive(Debug)]
pub struct Rate {
    /// What the bucket loses in a nanosecond.
    drain: u128,
    /// What a run adds to it: with the unit chosen so, both are whole.
    run: u128,
    /// What it holds at most.
    size: u128,
    fill: u128,
    /// When `fill` was right; `None` before the first run.
    at: Option<Instant>,
}

impl Rate {
    pub fn new(limit: RateLimit) -> Self {
        let (drain, run) = (u128::from(limit.runs.max(1)), limit.per.as_nanos().max(1));
        let burst = (BURST.as_nanos() * drain / run).max(1);
        Self { drain, run, size: burst * run, fill: 0, at: None }
    }

    /// Takes a new limit; runs of late count against it too, but no more of them than it allows at once.
    pub fn configure(&mut self, limit: RateLimit) {
        let new = Self::new(limit);
        let fill = self.fill.saturating_mul(new.run) / self.run;
        *self = Self { fill: fill.min(new.size), at: self.at, ..new };
    }

    /// Counts one run, or says when to ask again.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let elapsed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.fill = self.fill.saturating_sub(elapsed.as_nanos().saturating_mul(self.drain));
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        let filled = self.fill + self.run;
        if filled <= self.size {
            self.fill = filled;
            return Ok(());
        }
        let wait = (filled - self.size).div_ceil(self.drain);
        let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        Err(self.at.unwrap_or(now) + wait)
    }

    /// Gives back a run that was taken just now and did not take place.
    pub fn give_back(&mut self) {
        self.fill = self.fill.saturating_sub(self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> impl Strategy<Value = RateLimit> {
        let per = prop_oneof![Just(1u64), Just(7), Just(1000), Just(60_000), Just(3_600_000)];
        (1u32..5000, per).prop_map(|(runs, per_ms)| RateLimit { runs, per: Duration::from_millis(per_ms) })
    }

    fn burst(limit: RateLimit) -> u128 {
        (u128::from(limit.runs) * 100_000_000 / limit.per.as_nanos()).max(1)
    }

    #[test]
    fn a_thousand_a_second_lets_a_hundred_through_at_once() {
        let now = crate::clock::instant();
        let mut rate = Rate::new(RateLimit { runs: 1000, per: Duration::from_secs(1) });
        assert_eq!((0..1000).filter(|_| rate.take(now).is_ok()).count(), 100);
        assert_eq!(rate.take(now), Err(now + Duration::from_millis(1)));
        rate.give_back();
        assert_eq!(rate.take(now), Ok(()));
    }

    #[test]
    fn a_rare_run_is_still_let_through() {
        let now = crate::clock::instant();
        let hour = Duration::from_secs(3600);
        let mut rate = Rate::new(RateLimit { runs: 1, per: hour });
        assert_eq!(rate.take(now), Ok(()));
        assert_eq!(rate.take(now), Err(now + hour));
        assert_eq!(rate.take(now + hour), Ok(()));
    }

    #[test]
    fn a_new_limit_counts_runs_of_late_and_holds_at_once() {
        let now = crate::clock::instant();
        let (slow, fast) = (Duration::from_secs(60), Duration::from_millis(1));
        let mut rate = Rate::new(RateLimit { runs: 1, per: slow });
        assert_eq!(rate.take(now), Ok(()));
        rate.configure(RateLimit { runs: 10, per: Duration::from_millis(10) });
        assert_eq!((0..1000).filter(|_| rate.take(now).is_ok()).count(), 99, "one of the burst of 100 is used");
        assert_eq!(rate.take(now), Err(now + fast));
        rate.configure(RateLimit { runs: 1, per: slow });
        assert_eq!(rate.take(now), Err(now + slow), "not 100 minutes");
    }

    #[test]
    fn no_limit_however_odd_panics() {
        let now = crate::clock::instant();
        for (runs, per) in
            [(0, Duration::ZERO), (u32::MAX, Duration::MAX), (u32::MAX, Duration::ZERO), (0, Duration::MAX)]
        {
            let mut rate = Rate::new(RateLimit { runs, per });
            assert_eq!(rate.take(now), Ok(()));
            let _ = rate.take(now + Duration::from_secs(1_000_000));
            rate.configure(RateLimit { runs: per.subsec_nanos(), per: Duration::from_nanos(u64::from(runs)) });
            assert!(rate.take(now + Duration::from_secs(2_000_000)).is_ok());
        }
    }

    proptest! {
        #[test]
        fn no_span_has_more_runs_than_the_rate_and_one_burst(
            limit in limits(),
            steps in prop::collection::vec((0u64..300_000, 0usize..40, any::<bool>()), 1..60),
        ) {
            let mut rate = Rate::new(limit);
            let mut now = crate::clock::instant();
            let mut admitted = vec![];
            for (step_us, asks, gives_back) in steps {
                now += Duration::from_micros(step_us);
                for _ in 0..asks {
                    match rate.take(now) {
                        Ok(()) if gives_back => rate.give_back(),
                        Ok(()) => admitted.push(now),
                        Err(at) => prop_assert!(at > now),
                    }
                }
            }
            for (first, &start) in admitted.iter().enumerate() {
                for (more, &end) in admitted[first..].iter().enumerate() {
                    let of_rate = (end - start).as_nanos() * u128::from(limit.runs) / limit.per.as_nanos();
                    prop_assert!((more as u128) < of_rate + burst(limit), "{} runs in {:?}", more + 1, end - start);
                }
            }
        }

        #[test]
        fn one_who_asks_when_told_gets_the_full_rate(limit in limits(), runs in 1u32..2000) {
            let mut rate = Rate::new(limit);
            let start = crate::clock::instant();
            let mut now = start;
            for _ in 0..runs {
                while let Err(at) = rate.take(now) {
                    prop_assert!(at > now);
                    now = at;
                }
            }
            // Each wait may be rounded up.
            let beyond_burst = u128::from(runs).saturating_sub(burst(limit));
            let expected = (beyond_burst * limit.per.as_nanos()).div_ceil(u128::from(limit.runs));
            let took = (now - start).as_nanos();
            prop_assert!((expected..=expected + u128::from(runs)).contains(&took), "{took} ns, not {expected}");
        }
    }
}
