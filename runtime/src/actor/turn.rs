//! A turn: runs are started one after the other, until nothing can be started or other tasks are due.
//!
//! A run is polled in place, since most guests never wait; one that waits, or computes for longer than a tick, gets a task
//! of its own.

use super::Actor;
use crate::chance;
use crate::clock;
use crate::effects::Effects;
use crate::gate::{Gate, Pass, Shut};
use crate::handler::Digest;
use crate::invoke::Failure;
use crate::pipeline;
use crate::pipeline::breaker::Sample;
use crate::reader::Delivery;
use crate::shard::{Finish, Run, Shard};
use crate::telemetry::{FailedRun, HandlerMetrics, events, spans};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

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
pub(super) type Pending<'p> = BoxFuture<'p, Finished<'p>>;

pub(super) struct Finished<'p> {
    lane: usize,
    result: Result<Effects, Failure>,
    started: Instant,
    /// Of the version that ran.
    digest: Option<Digest>,
    pass: Pass<'p>,
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

impl<'p> Actor<'p> {
    /// Takes messages up and starts runs, until nothing can be started or the turn is over.
    pub(super) async fn start_runs(&mut self) -> Turn {
        let mut permit = self.spare.take();
        let begun = clock::instant();
        // Taken out whether or not anything may run: a time in the past that stays would be waited for again and again.
        self.shard.wake(clock::steady_at(begun));
        if !self.heard {
            return Turn::Idle;
        }
        let gate: &'p Gate = &self.parts.gate;
        self.gate_changes.mark_unchanged();
        if let Some(shut) = gate.shut(begun) {
            return Turn::Shut(shut);
        }
        // The clock is looked at once a run: where one ends the next begins.
        let mut now = begun;
        for _ in 0..TURN_RUNS {
            let started = now;
            self.shard.wake(clock::steady_at(started));
            let held = match permit.take() {
                Some(permit) => permit,
                None => match self.version.permits.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => return Turn::NoPermit,
                },
            };
            let steady = clock::steady_at(started);
            // What never failed tells more about the handler, and must not wait for what fails.
            let half_open = gate.is_half_open(started);
            let first = if half_open { self.next_run(Shard::next_first_try, steady) } else { None };
            // At rest no message of a retry is to be fetched in vain.
            if first.is_none()
                && half_open
                && self.rests
                && let Some(shut) = gate.shut_for_retries(started)
            {
                return Turn::Shut(shut);
            }
            let Some(run) = first.or_else(|| self.next_run(Shard::next_run, steady)) else {
                return if self.rests { self.turn_at_rest(started, half_open) } else { Turn::Idle };
            };
            let pass = match gate.pass(run.tries, started) {
                Ok(pass) => {
                    // A probe says nothing yet: it is one run.
                    if !half_open {
                        (self.shut_since, self.rests) = (None, false);
                    }
                    pass
                }
                Err(shut) => {
                    self.shard.withdraw(run.lane);
                    return Turn::Shut(shut);
                }
            };
            let span = spans::run(&self.parts.id, &run.call);
            let mut call = self.version.invoke.call(run.call);
            if !span.is_disabled() {
                call = call.instrument(span).boxed();
            }
            // Most guests never wait: polled here they cost no task.
            let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
            now = clock::instant();
            match polled {
                Poll::Ready(result) => {
                    let digest = result.as_ref().err().and_then(|_| self.version.invoke.digest());
                    self.finish(run.lane, result, now - started, digest, pass, now);
                    permit = Some(held);
                }
                Poll::Pending => {
                    self.parts.metrics.running.inc();
                    let running = Running(self.parts.metrics.clone());
                    let task = AbortOnDropHandle::new(tokio::spawn(call));
                    let (lane, digest, _permit) = (run.lane, self.version.invoke.digest(), held);
                    self.runs.push(Box::pin(async move {
                        let result = task.await.unwrap_or_else(|panic| {
                            // A bug of the host that this message brings out: it must not shut the handler for ever.
                            Err(Failure::Trap { reason: format!("the run ended badly: {panic}") })
                        });
                        drop(running);
                        Finished { lane, result, started, digest, pass, _permit }
                    }));
                }
            }
            // A guest that waits may have computed for its first tick.
            if now - begun > TURN_TIME {
                return Turn::Spent;
            }
        }
        Turn::Spent
    }

    /// Nothing can be started: because of the gate after all, or for want of the message that is to be tried next?
    fn turn_at_rest(&self, now: Instant, half_open: bool) -> Turn {
        match self.parts.gate.shut(now) {
            Some(shut) => Turn::Shut(shut),
            None if half_open && self.shard.expects_message() => Turn::Shut(Shut::Changed),
            None => Turn::Idle,
        }
    }

    /// The next run, taking up one message after the other until there is one.
    fn next_run(
        &mut self,
        next: impl Fn(&mut Shard, clock::Timestamp) -> Option<Run>,
        now: clock::Timestamp,
    ) -> Option<Run> {
        loop {
            if let Some(run) = next(&mut self.shard, now) {
                return Some(run);
            }
            if !self.shard.wants_messages() {
                return None;
            }
            match self.queue.pop_front() {
                Some(routed) => {
                    self.queue_bytes -= routed.message.bytes();
                    self.shard.offer(routed);
                }
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
        self.queue_bytes += delivery.bytes;
        self.lease.add(delivery.bytes);
        self.queue.extend(delivery.messages);
        self.queue_upto = Some(delivery.upto);
    }

    fn finish(
        &mut self,
        lane: usize,
        result: Result<Effects, Failure>,
        took: Duration,
        digest: Option<Digest>,
        pass: Pass<'_>,
        now: Instant,
    ) {
        let gate = &self.parts.gate;
        match &result {
            Ok(_) => self.calls.ok(took),
            Err(failure) => {
                self.calls.failed(failure.kind(), took);
                self.tell_failure(lane, failure, now);
            }
        }
        pass.report(Sample::of(&result));
        match &result {
            Err(Failure::Host { reason }) => gate.host_failed(reason, now),
            _ => gate.host_works(),
        }
        let delays = result.as_ref().is_ok_and(|effects| effects.outputs.iter().any(|output| output.delay.is_some()));
        if delays {
            // As of now: other shards may have taken the room that there was when the run began.
            self.shard.delayed_beside(self.delayed.exchange(self.shard.delayed()));
        }
        let random = if result.is_err() { chance::fraction() } else { 0.0 };
        let finished = self.shard.finish(lane, result, digest, random, clock::steady_at(now));
        if finished == Finish::Full {
            gate.delayed_full(now);
        }
        if delays {
            self.delayed.exchange(self.shard.delayed());
        }
    }

    /// Before the breaker hears of it: if it trips it says what went wrong last.
    fn tell_failure(&self, lane: usize, failure: &Failure, now: Instant) {
        let Some((routed, failed)) = self.shard.running(lane) else { return };
        let run = FailedRun {
            time: clock::steady(),
            kind: failure.kind(),
            error: pipeline::clip(failure.to_string()).into(),
            topic: routed.message.topic.clone(),
            offset: routed.message.offset,
            key: routed.key.clone(),
            attempts: failed.saturating_add(1),
        };
        events::run_failed(&self.parts.metrics, run, now);
    }

    pub(super) fn finished(&mut self, finished: Finished<'_>) {
        let Finished { lane, result, started, digest, pass, _permit } = finished;
        let now = clock::instant();
        self.finish(lane, result, now - started, digest, pass, now);
    }
}
