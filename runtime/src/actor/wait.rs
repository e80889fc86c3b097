//! Waiting: for whatever happens first, when there is nothing to start.

use super::Actor;
use super::turn::Turn;
use crate::clock;
use crate::commit::CommitError;
use crate::gate::Shut;
use crate::message::Offset;
use crate::reader::{Delivery, Inbox};
use crate::shard::Keep;
use futures_util::FutureExt;
use futures_util::stream::StreamExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A longer wait looks at the clock again in between: while the machine is suspended a sleep does not go on.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A handler that runs nothing for longer than this gives the memory of what waits for it back.
const RESTS_AFTER: Duration = Duration::from_secs(1);

impl Actor<'_> {
    /// What completed meanwhile, without waiting.
    pub(super) fn take_what_is_there(&mut self) -> Result<(), CommitError> {
        if let Some(result) = self.commit.as_mut().and_then(|commit| commit.now_or_never()) {
            self.committed(result)?;
        }
        while let Some(Some(finished)) = self.runs.next().now_or_never() {
            self.finished(finished);
        }
        while let Some(Some(answer)) = self.reads.next().now_or_never() {
            self.answer(answer)?;
        }
        Ok(())
    }

    pub(super) async fn wait(&mut self, turn: Turn, stopping: bool) -> Result<(), CommitError> {
        let in_hand = !self.queue.is_empty() || !self.shard.is_idle() || self.shard.open_len() > 0;
        self.parts.idle.store(!in_hand, Ordering::Release);
        // Asked of the handler of delays only, so others need not look through what waits.
        if self.parts.id.handler.is_delay() {
            let all_tried = self.queue.is_empty() && self.shard.are_all_tried();
            self.parts.gate.delayed().set_all_tried(all_tried);
        }
        let is_shut = self.is_shut(turn);
        let rests_in = self.rests_in(is_shut || matches!(turn, Turn::Shut(Shut::RetriesUntil(_))));
        self.rests = rests_in.is_some_and(|left| left.is_zero()) && !stopping;
        if self.rests {
            self.shard.rest(if self.is_shut_by_hand() { Keep::Nothing } else { Keep::FirstTry });
        }
        // What was taken ahead and not needed is for others.
        self.lease.cover(self.shard.held_bytes() + self.queue_bytes);
        let waited = self.wait_for_anything(turn, stopping, is_shut, rests_in).await;
        self.parts.idle.store(false, Ordering::Release);
        if self.parts.id.handler.is_delay() {
            self.parts.gate.delayed().set_all_tried(false);
        }
        waited?;
        self.take_what_is_there()
    }

    /// Whether nothing runs until a time or a change. At its rate a handler runs, unless it is very low.
    fn is_shut(&self, turn: Turn) -> bool {
        let shut = match turn {
            Turn::Shut(Shut::Until(_) | Shut::Changed) => true,
            Turn::Shut(Shut::AtRate(until)) => until.saturating_duration_since(clock::instant()) > RESTS_AFTER,
            _ => false,
        };
        shut || self.shard.control().paused
    }

    /// An operator shut it: it may be for days.
    fn is_shut_by_hand(&self) -> bool {
        self.shard.control().paused || self.shard.control().tripped
    }

    /// In how long what waits has nothing to do for so long that it gives its memory back.
    fn rests_in(&mut self, is_shut: bool) -> Option<Duration> {
        self.shut_since = self.shut_since.filter(|_| is_shut).or_else(|| is_shut.then(clock::instant));
        let since = self.shut_since?;
        let after = if self.is_shut_by_hand() { Duration::ZERO } else { RESTS_AFTER };
        Some(after.saturating_sub(clock::instant().saturating_duration_since(since)))
    }

    async fn wait_for_anything(
        &mut self,
        turn: Turn,
        stopping: bool,
        is_shut: bool,
        rests_in: Option<Duration>,
    ) -> Result<(), CommitError> {
        let takes = matches!(turn, Turn::Idle | Turn::Shut(Shut::RetriesUntil(_)));
        let wants = !stopping && takes && self.queue.is_empty() && self.shard.wants_messages();
        // Shut, it goes on saying how far the log has nothing for it: that must not be kept for who wants none of it.
        let passes = is_shut && !stopping && self.queue.is_empty() && !self.inbox_ended && !self.parked;
        if passes && let Some(upto) = self.queue_upto.take() {
            self.shard.reached(upto, true);
            return Ok(());
        }
        let for_long = is_shut && self.rests;
        if for_long && !(self.queue.is_empty() && self.inbox.is_empty()) {
            self.park();
            return Ok(());
        } else if wants && self.parked {
            self.unpark();
        }
        // Also without a permit: delayed messages need none. What is due is taken out at the top of the next turn.
        let due = self.shard.next_due().filter(|_| !stopping && turn != Turn::Spent);
        let sleep = due.map(|due| due.since(clock::steady()).min(LOOK_AGAIN));
        let sleep = match turn {
            Turn::Shut(Shut::Until(until) | Shut::AtRate(until) | Shut::RetriesUntil(until)) => {
                let until = until.saturating_duration_since(clock::instant());
                Some(sleep.map_or(until, |sleep| sleep.min(until)))
            }
            _ => sleep,
        };
        // Once, to see whether it is shut for long.
        let sleep = sleep.into_iter().chain(rests_in.filter(|left| !left.is_zero() && !stopping));
        let expires_in = self.expire_marks().filter(|_| !stopping);
        let sleep = sleep.chain(expires_in).min();
        tokio::select! {
            biased;
            // Safe to cancel: the future stays where it is and is polled again.
            result = async { self.commit.as_mut().expect("checked by the guard").await }, if self.commit.is_some() => {
                self.committed(result)?;
            }
            // Safe to cancel: `next` takes a run out only when it is done.
            Some(finished) = self.runs.next(), if !self.runs.is_empty() => {
                self.finished(finished);
            }
            // Safe to cancel, likewise.
            Some(answer) = self.reads.next(), if !self.reads.is_empty() => self.answer(answer)?,
            // Safe to cancel: the inbox promises it.
            heard = hear(&mut self.inbox, wants, for_long), if (wants || passes) && !self.inbox_ended && !self.parked => match heard {
                Heard::Delivery(Some(delivery)) => self.take(delivery),
                Heard::Delivery(None) => self.inbox_ended = true,
                Heard::Passed(Some(upto)) => self.shard.reached(upto, true),
                // To be parked.
                Heard::Passed(None) => {}
            },
            // Safe to cancel: a permit that was not taken goes to the next in the queue. It is kept for the next run: given
            // back it would go to the next shard that waits, and on and on, and none of them would run.
            permit = self.version.permits.clone().acquire_owned(), if turn == Turn::NoPermit => self.spare = permit.ok(),
            // Safe to cancel: the due time is asked again.
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            // Safe to cancel, all four: what changed stays changed until it is looked at.
            _ = self.versions.changed(), if !stopping => self.versions.mark_changed(),
            () = self.commands.changed(), if !stopping => {}
            _ = self.routing_changes.changed(), if !stopping => self.routing_changes.mark_changed(),
            Ok(()) = self.gate_changes.changed(), if !stopping && matches!(turn, Turn::Shut(_)) => {}
            // Safe to cancel: a token stays cancelled.
            () = self.parts.stop.cancelled(), if !stopping => {}
        }
        Ok(())
    }
}

impl Actor<'_> {
    /// What waits for a handler that runs nothing gives its memory back: it is in the log.
    fn park(&mut self) {
        if self.queue.is_empty() {
            self.shard.reached(self.inbox.passed_now(), true);
        }
        self.inbox.leave();
        self.queue.clear();
        (self.queue_bytes, self.queue_upto, self.parked) = (0, None, true);
        self.lease.cover(self.shard.held_bytes());
    }

    /// What was given back, and what came meanwhile, is delivered anew.
    fn unpark(&mut self) {
        self.inbox = self.parts.reader.join(&self.parts.id, self.shard.read());
        self.parked = false;
    }
}

/// What an inbox says.
enum Heard {
    Delivery(Option<Delivery>),
    Passed(Option<Offset>),
}

/// What comes next, or for who wants none of it how far the log has nothing for the shard.
async fn hear(inbox: &mut Inbox, wants: bool, or_filled: bool) -> Heard {
    if wants { Heard::Delivery(inbox.next().await) } else { Heard::Passed(inbox.passed(or_filled).await) }
}
