//! A turn: runs are started one after the other, until nothing can be started or other tasks are due.
//!
//! A run is polled in place, since most guests never wait; one that waits, or computes for longer than a tick, gets a task
//! of its own.

use super::Actor;
use crate::clock;
use crate::effects::Effects;
use crate::gate::{Pass, Shut};
use crate::handler::Digest;
use crate::invoke::Failure;
use crate::pipeline::breaker::Sample;
use crate::reader::Delivery;
use crate::shard::Run;
use crate::telemetry::HandlerMetrics;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;

/// Runs, and time, before other tasks get a turn.
const TURN_RUNS: usize = 64;
const TURN_TIME: Duration = Duration::from_micros(500);

/// Why a turn of work ended.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Turn {
    /// Nothing to start until something arrives.
    Idle,
    /// Its share of the time is used up.
    Spent,
    /// All permits of the handler are taken.
    NoPermit,
    /// The handler's gate is shut, until a time or a change.
    Shut(Shut),
}

/// A run that did not complete at once has a task of its own: a guest that computes for long must not hold the shard,
/// and two of them may use two cores.
pub(super) type Pending = BoxFuture<'static, Finished>;

pub(super) struct Finished {
    lane: usize,
    result: Result<Effects, Failure>,
    took: Duration,
    /// Of the version that ran.
    digest: Option<Digest>,
    pass: Pass,
    // Held until the run ends.
    _permit: OwnedSemaphorePermit,
}

/// A run under way, as metrics show it, however it ends.
struct Running(Arc<HandlerMetrics>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.dec();
    }
}

impl Actor<'_> {
    /// Takes messages up and starts runs, until nothing can be started or the turn is over.
    pub(super) async fn start_runs(&mut self) -> Turn {
        let mut permit = self.spare.take();
        if !self.heard {
            return Turn::Idle;
        }
        self.gate_changes.mark_unchanged();
        if let Some(shut) = self.parts.gate.shut(clock::instant()) {
            // What is due goes on being due, and nothing is taken up.
            self.shard.wake(clock::steady());
            return Turn::Shut(shut);
        }
        let begun = clock::instant();
        for _ in 0..TURN_RUNS {
            let now = clock::steady();
            self.shard.wake(now);
            let held = match permit.take() {
                Some(permit) => permit,
                None => match self.version.permits.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => return Turn::NoPermit,
                },
            };
            let Some(run) = self.next_run(now) else { return Turn::Idle };
            let started = clock::instant();
            let pass = match self.parts.gate.pass(started) {
                Ok(pass) => pass,
                Err(shut) => {
                    self.shard.withdraw(run.lane);
                    return Turn::Shut(shut);
                }
            };
            let mut call = self.version.invoke.call(run.call);
            let digest = self.version.invoke.digest();
            // Most guests never wait: polled here they cost no task.
            let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
            match polled {
                Poll::Ready(result) => {
                    self.finish(run.lane, result, started.elapsed(), digest, pass);
                    if begun.elapsed() > TURN_TIME {
                        return Turn::Spent;
                    }
                    permit = Some(held);
                }
                Poll::Pending => {
                    self.parts.metrics.running.inc();
                    let running = Running(self.parts.metrics.clone());
                    let task = AbortOnDropHandle::new(tokio::spawn(call));
                    let (lane, _permit) = (run.lane, held);
                    self.runs.push(Box::pin(async move {
                        let result = task.await.unwrap_or_else(|panic| {
                            Err(Failure::Host { reason: format!("the run ended badly: {panic}") })
                        });
                        drop(running);
                        Finished { lane, result, took: started.elapsed(), digest, pass, _permit }
                    }));
                    // A guest that computes used up its first tick here.
                    if begun.elapsed() > TURN_TIME {
                        return Turn::Spent;
                    }
                }
            }
        }
        Turn::Spent
    }

    /// The next run, taking up one message after the other until there is one.
    fn next_run(&mut self, now: clock::Timestamp) -> Option<Run> {
        loop {
            if let Some(run) = self.shard.next_run(now) {
                return Some(run);
            }
            if !self.shard.wants_messages() {
                return None;
            }
            match self.queue.pop_front() {
                Some(routed) => self.shard.offer(routed),
                None => {
                    if let Some(upto) = self.queue_upto.take() {
                        self.shard.reached(upto, false);
                    }
                    let delivery = self.inbox.try_next()?;
                    self.take(delivery);
                }
            }
        }
    }

    pub(super) fn take(&mut self, delivery: Delivery) {
        // An empty delivery says only how far the log is: worth writing down.
        if delivery.messages.is_empty() && self.queue.is_empty() {
            self.shard.reached(delivery.upto, true);
        }
        self.queue.extend(delivery.messages);
        self.queue_upto = Some(delivery.upto);
    }

    fn finish(
        &mut self,
        lane: usize,
        result: Result<Effects, Failure>,
        took: Duration,
        digest: Option<Digest>,
        pass: Pass,
    ) {
        pass.report(Sample::of(&result));
        match &result {
            Ok(_) => self.parts.metrics.call_ok(took),
            Err(failure) => self.parts.metrics.call_failed(failure.kind(), took),
        }
        let random = if result.is_err() { rand::random::<f64>() } else { 0.0 };
        self.shard.finish(lane, result, digest, random, clock::steady());
    }

    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { lane, result, took, digest, pass, _permit } = finished;
        self.finish(lane, result, took, digest, pass);
    }
}
