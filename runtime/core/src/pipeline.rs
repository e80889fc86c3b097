//! What becomes of a message: pure decisions, no IO. Time and randomness are handed in.
//!
//! [`admit`] decides before a run, [`settle`] after it. Between them stands the sandbox call, which the shard makes.
//! The order in `admit` is part of the promise: what cannot be routed is dead before anything else is asked, and a
//! duplicate is found at each try anew, since its twin may have been done meanwhile.

pub mod backoff;
pub mod breaker;
pub mod limits;
pub mod rate;

use crate::clock::Timestamp;
use crate::effects::Effects;
use crate::handler::Policy;
use crate::invoke::Failure;
use crate::message::Message;
use crate::routing::Routed;
use std::sync::Arc;

/// Longest error text kept with a head or a dead letter. Bytes.
pub const ERROR_BYTES_MAX: usize = 1024;

/// Whether a message runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Run,
    /// Its id was done within the window.
    Duplicate,
    Dead(Verdict),
}

/// Why a message is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One of the kinds that [`crate::commit::DeadLetter`] lists.
    pub kind: &'static str,
    pub error: String,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done(Effects),
    Retry {
        due: Timestamp,
        error: Arc<str>,
    },
    /// As `Retry`, but the try does not count.
    Later {
        due: Timestamp,
        error: Arc<str>,
    },
    /// The run did not take place: the message is ready as before.
    Postponed,
    Dead(Verdict),
}

/// What became of a message, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settled {
    Done,
    Duplicate,
    /// A try failed; it will be tried again.
    Retry,
    Dead,
}

impl Settled {
    /// All of them, in the order of their numbers.
    pub const ALL: [Settled; 4] = [Settled::Done, Settled::Duplicate, Settled::Retry, Settled::Dead];

    pub fn as_str(self) -> &'static str {
        match self {
            Settled::Done => "done",
            Settled::Duplicate => "duplicate",
            Settled::Retry => "retry",
            Settled::Dead => "dead",
        }
    }
}

/// Decides whether a message runs. `done` says whether an id was done within the window.
pub fn admit(routed: &Routed, policy: &Policy, done: impl FnOnce(&Routed) -> bool) -> Admission {
    if let Some(unroutable) = &routed.unroutable {
        return Admission::Dead(Verdict { kind: unroutable.kind, error: clip(unroutable.error.clone()) });
    }
    if let Err(error) = limits::check(&routed.message, policy) {
        return Admission::Dead(Verdict { kind: "too-large", error });
    }
    if done(routed) {
        return Admission::Duplicate;
    }
    Admission::Run
}

/// Decides what a run leads to. `attempt` counts this run; `random` is uniform in [0, 1).
pub fn settle(result: Result<Effects, Failure>, attempt: u32, policy: &Policy, random: f64, now: Timestamp) -> Outcome {
    let failure = match result {
        Ok(effects) => return Outcome::Done(effects),
        Err(failure) => failure,
    };
    let after = match &failure {
        Failure::Reject { reason } => {
            return Outcome::Dead(Verdict { kind: failure.kind(), error: clip(reason.clone()) });
        }
        Failure::Retry { after, .. } => *after,
        Failure::Timeout { .. } | Failure::Trap { .. } | Failure::Memory { .. } => None,
        Failure::Full { .. } => {
            // The longest backoff: room comes when something is due, not by trying.
            let wait = backoff::wait(&policy.retry, u32::MAX, random).max(policy.retry.min);
            return Outcome::Later { due: now.after(wait), error: clip(failure.to_string()).into() };
        }
        Failure::Host { .. } => return Outcome::Postponed,
    };
    let error = clip(failure.to_string());
    if attempt >= policy.retry.attempts {
        return Outcome::Dead(Verdict { kind: failure.kind(), error });
    }
    let wait = backoff::wait(&policy.retry, attempt, random);
    // A delay the handler asked for is a floor under the backoff, and bounded like it.
    let wait = wait.max(after.unwrap_or_default().min(backoff::ASKED_MAX));
    Outcome::Retry { due: now.after(wait), error: error.into() }
}

/// Whether the policy remembers ids of this message's topic.
pub fn deduplicates(policy: &Policy, message: &Message) -> bool {
    policy.dedup.as_ref().is_some_and(|dedup| {
        dedup.topics.as_ref().is_none_or(|topics| topics.iter().any(|pattern| pattern.matches(&message.topic)))
    })
}

/// Cuts an error text to [`ERROR_BYTES_MAX`] at a character boundary.
pub fn clip(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        let end = (0..=ERROR_BYTES_MAX - 3).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn failed(failure: Failure, attempt: u32) -> Outcome {
        settle(Err(failure), attempt, &Policy::default(), 0.5, Timestamp(1000))
    }

    fn retry(after: Option<Duration>) -> Failure {
        Failure::Retry { reason: "busy".into(), after }
    }

    #[test]
    fn a_reject_is_dead_at_the_first_attempt() {
        let outcome = failed(Failure::Reject { reason: "no such user".into() }, 1);
        assert_eq!(outcome, Outcome::Dead(Verdict { kind: "reject", error: "no such user".into() }));
    }

    #[test]
    fn failures_that_time_may_heal_are_retried_until_the_attempts_are_used_up() {
        for failure in
            [retry(None), Failure::Timeout { limit: Duration::from_secs(1) }, Failure::Trap { reason: "x".into() }]
        {
            assert!(matches!(failed(failure.clone(), 7), Outcome::Retry { .. }), "{failure}");
            assert!(matches!(failed(failure.clone(), 8), Outcome::Dead(_)), "{failure}");
        }
    }

    #[test]
    fn what_is_not_the_messages_fault_is_no_attempt() {
        let host = Failure::Host { reason: "no sandbox".into() };
        assert_eq!(failed(host, 8), Outcome::Postponed);
        let full = Failure::Full { reason: "as much is delayed as may be".into() };
        assert!(matches!(failed(full, 8), Outcome::Later { due: Timestamp(31_000), .. }));
    }

    #[test]
    fn an_asked_delay_is_a_floor_under_the_backoff() {
        let Outcome::Retry { due, .. } = failed(retry(Some(Duration::from_secs(10))), 1) else { panic!() };
        assert_eq!(due, Timestamp(11_000));
        let Outcome::Retry { due, .. } = failed(retry(Some(Duration::from_millis(1))), 1) else { panic!() };
        assert_eq!(due, Timestamp(1050));
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let text = clip("é".repeat(2000));
        assert!(text.len() <= ERROR_BYTES_MAX && text.ends_with("é…"), "{}", text.len());
    }
}
