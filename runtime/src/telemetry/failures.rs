//! Failed runs of a handler, as people hear of them: the last one, the first of a kind at once, and then how many there were
//! at an interval. A handler that fails ten thousand times a second writes a line a minute for each kind of failure.
//!
//! Time is handed in.

use crate::clock::Timestamp;
use crate::message::{Key, Offset};
use crate::topic::Topic;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about one kind of failure.
pub const TELL_EVERY: Duration = Duration::from_secs(60);
/// A kind that was quiet for so long is news again.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);
/// Kinds told apart for one handler; the rest is counted as one.
const KINDS_MAX: usize = 16;
/// Characters of an error that tell kinds apart.
const SHAPE_CHARS_MAX: usize = 100;

/// A run that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRun {
    pub time: Timestamp,
    /// As in [`Failure::kind`](crate::invoke::Failure::kind).
    pub kind: &'static str,
    pub error: Arc<str>,
    pub topic: Topic,
    pub offset: Offset,
    pub key: Option<Key>,
    /// With this one.
    pub attempts: u32,
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    First(FailedRun),
    /// So many more of its kind since the last line; the newest of them.
    Again {
        failures: u64,
        newest: FailedRun,
    },
}

/// The failed runs of one handler on this host.
#[derive(Default)]
pub struct Failures {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: Option<FailedRun>,
    kinds: Vec<Kind>,
}

struct Kind {
    /// `None`: whatever found no place of its own.
    shape: Option<String>,
    told: Instant,
    seen: Instant,
    /// Since it was told.
    untold: u64,
    newest: FailedRun,
}

impl Failures {
    /// The newest one.
    pub fn last(&self) -> Option<FailedRun> {
        self.lock().last.clone()
    }

    /// A run failed of which people are told otherwise.
    pub fn note(&self, run: FailedRun) {
        self.lock().last = Some(run);
    }

    /// A run failed. What people are to be told now, if anything.
    pub fn failed(&self, run: FailedRun, now: Instant) -> Option<Told> {
        let mut inner = self.lock();
        inner.last = Some(run.clone());
        inner.kinds.retain(|kind| kind.untold > 0 || now.saturating_duration_since(kind.seen) < FORGET_AFTER);
        let shape = Some(shape(&run)).filter(|shape| {
            let is_known = inner.kinds.iter().any(|kind| kind.shape.as_ref() == Some(shape));
            is_known || inner.kinds.len() < KINDS_MAX
        });
        match inner.kinds.iter_mut().find(|kind| kind.shape == shape) {
            Some(kind) => {
                (kind.seen, kind.newest, kind.untold) = (now, run, kind.untold + 1);
                kind.tell(now)
            }
            None => {
                let newest = run.clone();
                inner.kinds.push(Kind { shape, told: now, seen: now, untold: 0, newest });
                Some(Told::First(run))
            }
        }
    }

    /// What people are to be told of runs that failed before, if the interval is over.
    pub fn due(&self, now: Instant) -> Vec<Told> {
        self.lock().kinds.iter_mut().filter_map(|kind| kind.tell(now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn tell(&mut self, now: Instant) -> Option<Told> {
        if self.untold == 0 || now.saturating_duration_since(self.told) < TELL_EVERY {
            return None;
        }
        self.told = now;
        Some(Told::Again { failures: std::mem::take(&mut self.untold), newest: self.newest.clone() })
    }
}

/// What errors of one kind have in common: numbers in them differ from message to message.
fn shape(run: &FailedRun) -> String {
    let mut shape = format!("{}: ", run.kind);
    let mut in_digits = false;
    for c in run.error.chars().take(SHAPE_CHARS_MAX) {
        let is_digit = c.is_ascii_digit();
        match (is_digit, in_digits) {
            (true, true) => {}
            (true, false) => shape.push('#'),
            (false, _) => shape.push(c),
        }
        in_digits = is_digit;
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn run(kind: &'static str, error: &str) -> FailedRun {
        let topic = Topic::parse("in").unwrap();
        FailedRun { time: Timestamp(1), kind, error: error.into(), topic, offset: Offset(1), key: None, attempts: 1 }
    }

    #[test]
    fn the_first_of_a_kind_is_told_at_once_and_the_rest_is_counted() {
        let (failures, begun) = (Failures::default(), clock::instant());
        assert_eq!(failures.failed(run("trap", "at 1"), begun), Some(Told::First(run("trap", "at 1"))));
        assert_eq!(failures.failed(run("retry", "at 1"), begun), Some(Told::First(run("retry", "at 1"))));
        for number in 2..1000 {
            assert_eq!(failures.failed(run("trap", &format!("at {number}")), begun + TELL_EVERY / 2), None);
        }
        assert_eq!(failures.due(begun + TELL_EVERY / 2), vec![]);
        let told = Told::Again { failures: 998, newest: run("trap", "at 999") };
        assert_eq!(failures.due(begun + TELL_EVERY), vec![told]);
        assert_eq!(failures.due(begun + TELL_EVERY * 5), vec![], "nothing failed since");
        let later = failures.failed(run("trap", "at 7"), begun + TELL_EVERY * 6);
        assert_eq!(later, Some(Told::Again { failures: 1, newest: run("trap", "at 7") }));
        assert_eq!(failures.last(), Some(run("trap", "at 7")));
    }

    #[test]
    fn a_kind_that_was_quiet_for_long_is_news_again() {
        let (failures, begun) = (Failures::default(), clock::instant());
        assert!(failures.failed(run("trap", "x"), begun).is_some());
        let later = failures.failed(run("trap", "x"), begun + FORGET_AFTER);
        assert_eq!(later, Some(Told::First(run("trap", "x"))));
    }

    #[test]
    fn errors_that_all_differ_cost_a_bounded_number_of_lines() {
        let (failures, begun) = (Failures::default(), clock::instant());
        let texts = (0..10_000).map(|number: u32| {
            number.to_string().replace(|c: char| c.is_ascii_digit(), "x") + &"y".repeat(number as usize % 90)
        });
        let told = texts.filter(|text| failures.failed(run("retry", text), begun).is_some()).count();
        assert_eq!(told, KINDS_MAX + 1, "one more for all that found no place");
        let counted: Vec<u64> = failures
            .due(begun + TELL_EVERY)
            .iter()
            .map(|told| match told {
                Told::Again { failures, .. } => *failures,
                Told::First(_) => 0,
            })
            .collect();
        assert_eq!(counted, [10_000 - KINDS_MAX as u64 - 1], "none is lost");
    }
}
