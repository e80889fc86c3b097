//! Drives one shard against the real log, reader, committer and sandbox.
//!
//! One task per shard; it ends when `stop` is cancelled: then it takes nothing new, lets runs finish, commits and
//! leaves. Any doubt about the record (a commit fenced, refused, or of unknown fate) ends the shard's memory: it claims
//! again and goes on from what the record says, or leaves where a placement has to say whether it is still this host's.

mod commands;
mod commit;
mod expiry;
mod gauges;
mod holding;
mod in_force;
mod reads;
mod supervise;
mod turn;
mod wait;

pub use holding::{Held, Holding, Loss};
pub use in_force::InForce;
pub use supervise::run;

use crate::clock;
use crate::commit::{CommitError, Committed};
use crate::committer::Committer;
use crate::follow::{Commands, Pins};
use crate::gate::{DelayedShare, Gate};
use crate::handler::{Policy, ShardId};
use crate::invoke::Invoke;
use crate::log::Log;
use crate::memory::Lease;
use crate::message::Offset;
use crate::reader::{Inbox, Reader};
use crate::routing::{Routed, Routing};
use crate::shard::{Remembered, Shard};
use crate::telemetry::{Calls, CommitMetrics, HandlerMetrics, StagedCounts};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gauges::Gauges;
use reads::Answer;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use turn::{Pending, Turn};

/// What a shard works with; shared by the shards of a handler but for `id`.
#[derive(Clone)]
pub struct Parts {
    pub id: ShardId,
    pub routing: Arc<InForce>,
    pub log: Arc<dyn Log>,
    pub reader: Reader,
    pub committer: Committer,
    /// Changes while the shard runs, at a message boundary.
    pub version: watch::Receiver<Arc<Version>>,
    pub gate: Arc<Gate>,
    /// Counts the marks of all shards.
    pub remembered: Remembered,
    /// Whether everything that was delivered to it is settled and durable.
    pub idle: Arc<AtomicBool>,
    /// Knows what this host holds.
    pub holding: Holding,
    pub commands: Commands,
    /// Rollbacks that operators asked for, by handler.
    pub pins: Pins,
    pub metrics: Arc<HandlerMetrics>,
    pub commit_metrics: CommitMetrics,
    pub stop: CancellationToken,
}

/// What of a handler may change while its shards run. Runs under way end under the version they began with.
pub struct Version {
    pub policy: Arc<Policy>,
    pub invoke: Arc<dyn Invoke>,
    /// One permit per run, shared by the handler's shards.
    pub permits: Arc<Semaphore>,
}

/// A claimed shard at work.
struct Actor<'p> {
    parts: &'p Parts,
    shard: Shard,
    /// What is recorded of the handler as the shard was claimed.
    routing: Arc<Routing>,
    routing_changes: watch::Receiver<Arc<Routing>>,
    inbox: Inbox,
    version: Arc<Version>,
    versions: watch::Receiver<Arc<Version>>,
    gate_changes: watch::Receiver<()>,
    commands: Commands,
    /// A read of commands is under way.
    reads_commands: bool,
    /// Whether what operators said before the claim is in force: nothing runs before.
    heard: bool,
    /// Delivered and not yet taken up, and bytes of it.
    queue: VecDeque<Routed>,
    queue_bytes: usize,
    /// What the shard and the queue take of the host's memory.
    lease: Lease,
    queue_upto: Option<Offset>,
    /// What the shard holds back of the handler's delayed messages.
    delayed: &'p mut DelayedShare,
    runs: FuturesUnordered<Pending<'p>>,
    /// A permit that was waited for, to be used by the next run.
    spare: Option<OwnedSemaphorePermit>,
    reads: FuturesUnordered<BoxFuture<'static, Answer>>,
    commit: Option<BoxFuture<'static, Result<Committed, CommitError>>>,
    commit_began: Instant,
    staged_counts: StagedCounts,
    calls: Calls,
    gauges: Gauges,
    /// Whether a commit succeeded since the claim.
    progressed: bool,
    inbox_ended: bool,
    /// It left the reader for as long as it takes nothing up.
    parked: bool,
    /// Since when the handler runs nothing.
    shut_since: Option<Instant>,
    /// It gave the memory of what waits back, and takes none until something may run again.
    rests: bool,
    /// When marks that nobody needs are looked for.
    expiry: expiry::Expiry,
}

impl<'p> Actor<'p> {
    fn new(
        parts: &'p Parts,
        shard: Shard,
        delayed: &'p mut DelayedShare,
        routing: Arc<Routing>,
        inbox: Inbox,
        version: Arc<Version>,
    ) -> Self {
        Self {
            parts,
            shard,
            routing,
            routing_changes: parts.routing.changes(),
            inbox,
            version,
            versions: parts.version.clone(),
            gate_changes: parts.gate.changes(),
            commands: parts.commands.clone(),
            reads_commands: false,
            heard: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            lease: Lease::of_shard(parts.reader.waiting()),
            queue_upto: None,
            delayed,
            runs: FuturesUnordered::new(),
            spare: None,
            reads: FuturesUnordered::new(),
            commit: None,
            commit_began: clock::instant(),
            staged_counts: StagedCounts::new(parts.metrics.clone()),
            calls: Calls::new(parts.metrics.clone()),
            gauges: Gauges::new(parts.metrics.clone()),
            progressed: false,
            inbox_ended: false,
            parked: false,
            shut_since: None,
            rests: false,
            expiry: expiry::Expiry::default(),
        }
    }

    /// Works until `stop` (`Ok`) or until the record has to be read again.
    async fn work(&mut self) -> Result<(), CommitError> {
        // Whoever changed it has claimed the shard since.
        let parts = self.parts;
        let changed_elsewhere = || CommitError::Fenced { shard: parts.id.clone() };
        if !Arc::ptr_eq(&self.routing, &self.parts.routing.routing()) {
            return Err(changed_elsewhere());
        }
        loop {
            let stopping = self.parts.stop.is_cancelled();
            if self.routing_changes.has_changed().unwrap_or(false) {
                return Err(changed_elsewhere());
            }
            self.take_version();
            self.hear_commands();
            self.allow();
            self.shard.delayed_beside(self.delayed.exchange(self.shard.delayed()));
            // Room first: with the last commit answered, what is staged goes out before the next runs.
            self.send_commit();
            let turn = if stopping { Turn::Idle } else { self.start_runs().await };
            self.calls.show();
            if !stopping {
                self.read_needs();
            }
            if stopping && self.runs.is_empty() && self.commit.is_none() {
                // What was taken up and is not settled has its head in the record; the rest is read again.
                self.shard.reached(self.shard.read(), true);
            }
            self.send_commit();
            if stopping && self.runs.is_empty() && self.commit.is_none() {
                return Ok(());
            }
            if turn == Turn::Spent {
                self.take_what_is_there()?;
                tokio::task::yield_now().await;
                continue;
            }
            self.wait(turn, stopping).await?;
        }
    }

    /// Takes memory for the next turn; at rest it would only be kept from others.
    fn allow(&mut self) {
        if !self.rests {
            self.shard.allow(self.lease.allow(self.shard.held_bytes(), self.queue_bytes));
        }
    }

    /// Goes on with a changed version: its runs are the next ones.
    fn take_version(&mut self) {
        if !self.versions.has_changed().unwrap_or(false) {
            return;
        }
        let version = self.versions.borrow_and_update().clone();
        self.shard.adopt(version.policy.clone());
        if !Arc::ptr_eq(&version.invoke, &self.version.invoke) {
            self.shard.swapped(version.invoke.digest(), clock::steady());
        }
        self.version = version;
        // It is of the old version.
        self.spare = None;
    }
}
