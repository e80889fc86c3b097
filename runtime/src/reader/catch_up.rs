//! The task that brings one handler's shards back to the tail: from the newest batches while they are in memory, otherwise
//! by reads from the log, shared by all shards that are behind. While none has room it sleeps.

use super::recent::Chunk;
use super::sorter::sort;
use super::subscription::{Plan, Step};
use super::{Options, State};
use crate::chance;
use crate::log::{Batch, LogError, ReadRequest};
use crate::message::Offset;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A chunk within these bounds is routed under the lock, so that the tail cannot move on meanwhile: the last step to it.
const LAST_STEP_MESSAGES_MAX: usize = 256;
const LAST_STEP_BYTES_MAX: usize = 256 * 1024;

/// Serves one handler until it is forgotten or the reader stops.
pub(super) async fn run(shared: Arc<State>, slot: usize, wake: Arc<Notify>) {
    let stop = shared.stop.clone();
    // It holds nothing but a plan between two steps, so it may be dropped anywhere.
    stop.run_until_cancelled(CatchUp { shared: &shared, slot, wake, failures: 0, read_to_end: None }.run()).await;
}

struct CatchUp<'s> {
    shared: &'s State,
    slot: usize,
    wake: Arc<Notify>,
    /// Reads that failed in a row.
    failures: u32,
    /// A read after this offset brought nothing, and there is no tail to go live on: shards that are there wait until
    /// the task is woken.
    read_to_end: Option<Offset>,
}

impl CatchUp<'_> {
    async fn run(mut self) {
        loop {
            match self.step() {
                Some(Step::End) => return,
                Some(Step::Wait) => {
                    self.wake.notified().await;
                    self.read_to_end = None;
                }
                Some(Step::Deliver(chunk, plan)) => drop(self.deliver(chunk, &plan)),
                Some(Step::Read(request, plan)) => self.read_and_deliver(request, plan).await,
                None => {}
            }
            // While the shards keep up it may never wait, and must not keep its worker thread from them.
            tokio::task::yield_now().await;
        }
    }

    /// What to do next; `None` when it was so little that it is done.
    fn step(&self) -> Option<Step> {
        let mut positions = self.shared.positions();
        let step = positions.step(self.slot, &self.wake, self.read_to_end);
        if let Step::Deliver(chunk, plan) = &step
            && chunk.messages.len() <= LAST_STEP_MESSAGES_MAX
            && (chunk.bytes <= LAST_STEP_BYTES_MAX || chunk.messages.len() == 1)
        {
            let mut batches = sort(&plan.routing, &chunk.messages);
            positions.deliver(self.slot, plan, &mut batches, chunk.upto);
            return None;
        }
        Some(step)
    }

    async fn read_and_deliver(&mut self, request: ReadRequest, plan: Plan) {
        match self.read(request).await {
            Ok(Batch { messages, upto }) => {
                if self.deliver(Chunk { messages, bytes: 0, upto }, &plan) {
                    self.recovered();
                } else if plan.tail.is_some() {
                    // What the tail has had must be there to be read: a replica that is late.
                    self.failed(&plan, "it does not yet have what its tail announced").await;
                } else {
                    self.read_to_end = Some(plan.after);
                }
            }
            Err(error) => self.failed(&plan, &error.to_string()).await,
        }
    }

    async fn read(&self, request: ReadRequest) -> Result<Batch, LogError> {
        let _permit = self.shared.reads.acquire().await.expect("nobody closes it");
        self.shared.log.read(request).await
    }

    /// Routes outside the lock and delivers under it; says whether that was of use.
    fn deliver(&self, chunk: Chunk, plan: &Plan) -> bool {
        let mut batches = sort(&plan.routing, &chunk.messages);
        self.shared.positions().deliver(self.slot, plan, &mut batches, chunk.upto)
    }

    /// Waits before the next try, longer with each failure in a row. Positions stay, so nothing is lost.
    async fn failed(&mut self, plan: &Plan, reason: &str) {
        if self.failures == 0 {
            let handler = &plan.routing.handler;
            tracing::warn!(%handler, after = %plan.after, reason, "failed to read from the log: trying again");
        }
        tokio::time::sleep(wait_after(self.failures, &self.shared.options)).await;
        self.failures = self.failures.saturating_add(1);
    }

    fn recovered(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "the log can be read again");
            self.failures = 0;
        }
    }
}

/// Full-jitter exponential backoff.
fn wait_after(failures: u32, options: &Options) -> Duration {
    let bound = options.retry_min.saturating_mul(1 << failures.min(16)).min(options.retry_max);
    bound.mul_f64(chance::fraction())
}
