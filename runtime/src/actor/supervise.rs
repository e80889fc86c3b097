//! Keeps a shard at work, whatever happens: claims it, and claims it again after any doubt about its record. Where a placement
//! decides who works on it, another host may have it after such a doubt: then it leaves, and the placement says who is next.

use super::holding::{Held, Loss};
use super::{Actor, Parts};
use crate::chance;
use crate::clock;
use crate::commit::CommitError;
use crate::follow::LastPin;
use crate::gate::DelayedShare;
use crate::message::Offset;
use crate::routing::Routing;
use crate::shard::{Bounds, Caution, Setup, Shard};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Waits between tries to claim.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long this host may take to hear of what fenced a shard: usually it was heard before.
const HEAR: Duration = Duration::from_millis(200);

/// Runs the shard until `stop`, whatever happens: a bug that makes it panic must not leave its messages lying.
pub async fn run(parts: Parts, held: Held) {
    let mut pause = Pause::default();
    // Between two claims too: publishers are bounded by it.
    let mut delayed = DelayedShare::of(parts.gate.delayed());
    while AssertUnwindSafe(drive(parts.clone(), &held, &mut delayed)).catch_unwind().await.is_err() {
        tracing::error!(shard = %parts.id, "the shard panicked (a bug: please report it), claiming it again");
        pause.wait(&parts.stop).await;
    }
}

async fn drive(parts: Parts, held: &Held, delayed: &mut DelayedShare) {
    let mut caution = Caution::default();
    let mut pause = Pause::default();
    while !parts.stop.is_cancelled() {
        let claim = match parts.log.claim(parts.id.clone(), parts.routing.routing().start()).await {
            Ok(claim) => claim,
            Err(error) => {
                tracing::warn!(shard = %parts.id, %error, "failed to claim the shard, trying again");
                pause.wait(&parts.stop).await;
                if parts.holding.is_placed() {
                    held.lose(Loss::Doubt);
                    break;
                }
                continue;
            }
        };
        held.claimed(claim.term);
        // Not before the claim: whoever changes it claims the shard between saying so and doing it.
        let routing = match parts.routing.after_claim().await {
            Ok(Some(routing)) => routing,
            Ok(None) => {
                tracing::warn!(shard = %parts.id, "a host is changing the handler's subscription, waiting for it");
                pause.wait(&parts.stop).await;
                continue;
            }
            Err(error) => {
                tracing::warn!(shard = %parts.id, %error, "failed to read the handler's routing, trying again");
                pause.wait(&parts.stop).await;
                continue;
            }
        };
        let inbox = parts.reader.join(&parts.id, claim.record.read);
        let version = parts.version.borrow().clone();
        let setup = Setup {
            id: parts.id.clone(),
            routing: routing.clone(),
            policy: version.policy.clone(),
            uses_state: version.invoke.uses_state(),
            digest: version.invoke.digest(),
            bounds: Bounds::default(),
            remembered: parts.remembered.clone(),
        };
        let (shard, shortened) = Shard::claimed(setup, claim, std::mem::take(&mut caution), clock::steady());
        if shortened > 0 {
            tracing::warn!(
                shard = %parts.id,
                shortened,
                "some retries or delayed messages were due later than they can be, as after a clock that was ahead: they \
                 are due earlier now"
            );
        }
        if shard.control().tripped {
            parts.gate.trip();
        }
        // On another host it may have heard of a command that was before this host's tail.
        let last = LastPin { offset: Offset(shard.control().pin_command), pin: shard.control().pin };
        if last.offset > Offset::START {
            parts.pins.note(&parts.id.handler, last);
        }
        let mut actor = Actor::new(&parts, shard, delayed, routing.clone(), inbox, version);
        match actor.work().await {
            Ok(()) => break,
            Err(error) => {
                caution = match &error {
                    CommitError::Refused { reason, .. } => actor.shard.caution_after_refusal(reason),
                    _ => actor.shard.caution().clone(),
                };
                if actor.progressed {
                    pause = Pause::default();
                }
                drop(actor);
                if let Some(loss) = loss(&parts, &routing, &error).await {
                    tracing::warn!(shard = %parts.id, %error, "leaving the shard to whoever has it now");
                    held.lose(loss);
                    break;
                }
                tracing::warn!(shard = %parts.id, %error, "claiming the shard again");
            }
        }
        pause.wait(&parts.stop).await;
    }
    parts.reader.leave(&parts.id);
}

/// Why the shard has to leave; `None`: it is still this host's.
async fn loss(parts: &Parts, routing: &Arc<Routing>, error: &CommitError) -> Option<Loss> {
    // One that is leaving anyway does not try again.
    if !parts.holding.is_placed() || parts.stop.is_cancelled() {
        return None;
    }
    match error {
        CommitError::Refused { .. } => None,
        CommitError::Fenced { .. } => {
            // Whoever changes a subscription claims every shard, and leaves it to whom it was. That was said in the log before.
            for look in 0..2 {
                let Ok(recorded) = parts.log.routings().await else { return Some(Loss::Doubt) };
                let recorded = recorded.routings.iter().find(|recorded| recorded.handler == parts.id.handler);
                if recorded
                    .is_none_or(|recorded| recorded.is_changing() || recorded.spans.last() != routing.spans.last())
                {
                    return None;
                }
                if look == 0 {
                    // Safe to cancel: a sleep holds nothing.
                    let _ = tokio::time::timeout(HEAR, parts.stop.cancelled()).await;
                }
            }
            Some(Loss::Fenced)
        }
        _ => Some(Loss::Doubt),
    }
}

/// Growing, jittered waits between failures.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Pause {
    async fn wait(&mut self, stop: &CancellationToken) {
        let wait = self.0.mul_f64(chance::fraction());
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        // Safe to cancel: a sleep holds nothing.
        let _ = tokio::time::timeout(wait, stop.cancelled()).await;
    }
}
