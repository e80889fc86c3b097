//! Marks of a shard that hears nothing: looked for from time to time, and let go by how far the log is without it.

use super::Actor;
use super::wait::LOOK_AGAIN;
use crate::clock;
use std::time::{Duration, Instant};

/// The least time between two looks that found nothing: the log's clock may not be the host's.
const LOOKS_AGAIN: Duration = Duration::from_secs(1);

/// When to look.
#[derive(Default)]
pub(super) struct Expiry {
    /// Not before this.
    after: Option<Instant>,
    /// Grows with each look in vain.
    pause: Duration,
}

impl Actor<'_> {
    /// Lets marks go that no later message can need, if it is time to look. In how long to look again.
    pub(super) fn expire_marks(&mut self) -> Option<Duration> {
        let due = self.shard.marks_due()?;
        let now = clock::instant();
        let slack = self.shard.marks_slack().max(LOOKS_AGAIN);
        // A little later: then there is more to let go.
        let due_in = due.after(slack).since(clock::steady_at(now));
        let pause = self.expiry.after.map_or(Duration::ZERO, |after| after.saturating_duration_since(now));
        let wait = due_in.max(pause);
        if !wait.is_zero() {
            // While the machine is suspended a sleep does not go on.
            return Some(wait.min(slack.max(LOOK_AGAIN)));
        }
        let passed = self.parts.reader.passed_at(&self.parts.id).filter(|_| self.queue.is_empty());
        let expired = passed.map_or(0, |(upto, time)| self.shard.passed(upto, time));
        self.expiry.pause = if expired > 0 { LOOKS_AGAIN } else { (self.expiry.pause * 2).clamp(LOOKS_AGAIN, slack) };
        self.expiry.after = Some(now + self.expiry.pause);
        Some(self.expiry.pause)
    }
}
