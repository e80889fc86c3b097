//! Waiting: for whatever happens first, when there is nothing to start.

use super::Actor;
use super::turn::Turn;
use crate::clock;
use crate::commit::CommitError;
use crate::gate::Shut;
use crate::message::Offset;
use crate::reader::{Delivery, Inbox};
use futures_util::FutureExt;
use futures_util::stream::StreamExt;
use std::sync::atomic::Ordering;

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
        // What was taken ahead and not needed is for others.
        self.lease.cover(self.shard.held_bytes() + self.queue_bytes);
        let waited = self.wait_for_anything(turn, stopping).await;
        self.parts.idle.store(false, Ordering::Release);
        waited?;
        self.take_what_is_there()
    }

    async fn wait_for_anything(&mut self, turn: Turn, stopping: bool) -> Result<(), CommitError> {
        let takes = matches!(turn, Turn::Idle | Turn::Shut(Shut::RetriesUntil(_)));
        let wants = !stopping && takes && self.queue.is_empty() && self.shard.wants_messages();
        // Shut, it goes on saying how far the log has nothing for it: that must not be kept for who wants none of it.
        let is_shut = self.shard.control().paused || matches!(turn, Turn::Shut(Shut::Until(_) | Shut::Changed));
        let passes = is_shut && !stopping && self.queue.is_empty() && !self.inbox_ended;
        if passes && let Some(upto) = self.queue_upto.take() {
            self.shard.reached(upto, true);
        }
        // Also without a permit: delayed messages need none. What is due is taken out at the top of the next turn.
        let due = self.shard.next_due().filter(|_| !stopping && turn != Turn::Spent);
        let sleep = due.map(|due| due.since(clock::steady()));
        let sleep = match turn {
            Turn::Shut(Shut::Until(until) | Shut::RetriesUntil(until)) => {
                let until = until.saturating_duration_since(clock::instant());
                Some(sleep.map_or(until, |sleep| sleep.min(until)))
            }
            _ => sleep,
        };
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
            heard = hear(&mut self.inbox, wants), if (wants || passes) && !self.inbox_ended => match heard {
                Heard::Delivery(Some(delivery)) => self.take(delivery),
                Heard::Delivery(None) => self.inbox_ended = true,
                Heard::Passed(upto) => self.shard.reached(upto, true),
            },
            // Safe to cancel: a permit that was not taken goes to the next in the queue. It is kept for the next run: given
            // back it would go to the next shard that waits, and on and on, and none of them would run.
            permit = self.version.permits.clone().acquire_owned(), if turn == Turn::NoPermit => self.spare = permit.ok(),
            // Safe to cancel: the due time is asked again.
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            // Safe to cancel, all three: what changed stays changed until it is looked at.
            _ = self.versions.changed(), if !stopping => self.versions.mark_changed(),
            () = self.commands.changed(), if !stopping => {}
            Ok(()) = self.gate_changes.changed(), if !stopping && matches!(turn, Turn::Shut(_)) => {}
            // Safe to cancel: a token stays cancelled.
            () = self.parts.stop.cancelled(), if !stopping => {}
        }
        Ok(())
    }
}

/// What an inbox says.
enum Heard {
    Delivery(Option<Delivery>),
    Passed(Offset),
}

/// What comes next, or for who wants none of it how far the log has nothing for the shard.
async fn hear(inbox: &mut Inbox, wants: bool) -> Heard {
    if wants { Heard::Delivery(inbox.next().await) } else { Heard::Passed(inbox.passed().await) }
}
