//! One running handler: its shards, its gate, and the version in force.

use super::{Handler, Overview, Parts};
use crate::actor::{self, Version};
use crate::gate::Gate;
use crate::handler::{HandlerName, ShardId};
use crate::message::Offset;
use crate::reader::Reader;
use crate::routing::Routing;
use crate::telemetry::HandlerMetrics;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs that have not ended by then are stopped: they begin again after the change, and nothing of them was done.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(super) struct Running {
    handler: Mutex<Handler>,
    name: HandlerName,
    routing: Arc<Routing>,
    version: watch::Sender<Arc<Version>>,
    gate: Arc<Gate>,
    /// By shard: see [`actor::Parts::idle`].
    idle: Vec<Arc<AtomicBool>>,
    /// By shard: the greatest offset up to which everything was seen to be settled.
    settled: Vec<AtomicU64>,
    metrics: Arc<HandlerMetrics>,
    stop: CancellationToken,
    shards: JoinSet<()>,
}

impl Running {
    pub(super) fn start(parts: &Parts, handler: Handler, routing: Arc<Routing>, gate: Arc<Gate>) -> Self {
        let name = handler.name.clone();
        let metrics = parts.metrics.handler(&name);
        let version = watch::Sender::new(Arc::new(version(&handler)));
        let stop = CancellationToken::new();
        parts.reader.route(routing.clone());
        let mut shards = JoinSet::new();
        let idle: Vec<Arc<AtomicBool>> = (0..routing.shards).map(|_| Arc::default()).collect();
        for (index, idle) in (0..routing.shards).zip(&idle) {
            shards.spawn(actor::run(actor::Parts {
                id: ShardId { handler: name.clone(), index },
                routing: routing.clone(),
                log: parts.log.clone(),
                reader: parts.reader.clone(),
                committer: parts.committer.clone(),
                version: version.subscribe(),
                gate: gate.clone(),
                idle: idle.clone(),
                commands: parts.follower.commands(&name),
                pins: parts.pins.clone(),
                metrics: metrics.clone(),
                commit_metrics: parts.metrics.commits(),
                stop: stop.clone(),
            }));
        }
        Self {
            handler: Mutex::new(handler),
            name,
            settled: idle.iter().map(|_| AtomicU64::new(0)).collect(),
            routing,
            version,
            gate,
            idle,
            metrics,
            stop,
            shards,
        }
    }

    pub(super) fn name(&self) -> &HandlerName {
        &self.name
    }

    pub(super) fn routing(&self) -> Arc<Routing> {
        self.routing.clone()
    }

    /// Outlives a restart of the shards: what it counted stays.
    pub(super) fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    pub(super) fn handler(&self) -> Handler {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the change needs another reading of the log or another record: what marks there are, which messages are
    /// the handler's, whether states are loaded.
    pub(super) fn needs_restart(&self, new: &Handler) -> bool {
        let old = self.handler();
        old.subscribe != new.subscribe
            || old.policy.dedup != new.policy.dedup
            || old.invoke.uses_state() != new.invoke.uses_state()
    }

    /// Another version from the next run of each shard on.
    pub(super) fn change(&self, new: Handler) {
        let mut handler = self.handler.lock().unwrap_or_else(PoisonError::into_inner);
        if handler.policy == new.policy && Arc::ptr_eq(&handler.invoke, &new.invoke) {
            return;
        }
        self.gate.configure(&new.policy);
        let mut changed = version(&new);
        if handler.policy.concurrency == new.policy.concurrency {
            // Runs under way hold their permits, so the limit holds across the change.
            changed.permits = self.version.borrow().permits.clone();
        }
        self.version.send_replace(Arc::new(changed));
        *handler = new;
    }

    /// Whether all that was delivered to the shard is settled and durable.
    pub(super) fn is_idle(&self, shard: &ShardId) -> bool {
        self.idle.get(usize::from(shard.index)).is_some_and(|idle| idle.load(Ordering::Acquire))
    }

    /// Notes that everything up to here was settled, if so; the greatest offset of which that is known.
    pub(super) fn settled(&self, shard: &ShardId, passed: Option<Offset>) -> Option<Offset> {
        let settled = self.settled.get(usize::from(shard.index))?;
        let passed = passed.map_or(0, |passed| passed.0);
        let known = settled.fetch_max(passed, Ordering::AcqRel).max(passed);
        (known > 0).then_some(Offset(known))
    }

    pub(super) fn overview(&self) -> Overview {
        let version = self.version.borrow();
        Overview {
            name: self.name.clone(),
            digest: version.invoke.digest(),
            breaker: self.gate.breaker(),
            running: usize::try_from(self.metrics.running.get()).unwrap_or(0),
            concurrency: version.policy.concurrency,
        }
    }

    /// Takes nothing new, lets runs finish, commits and leaves.
    pub(super) async fn stop(mut self, reader: &Reader) {
        self.stop.cancel();
        let ended = async { while self.shards.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, ended).await.is_err() {
            tracing::warn!(handler = %self.name, "stopped runs that did not end within {DRAIN_MAX:?}");
            self.shards.shutdown().await;
            let shards = self.handler().shards;
            (0..shards).for_each(|index| reader.leave(&ShardId { handler: self.name.clone(), index }));
        }
    }
}

fn version(handler: &Handler) -> Version {
    Version {
        policy: Arc::new(handler.policy.clone()),
        invoke: handler.invoke.clone(),
        permits: Arc::new(Semaphore::new(handler.policy.concurrency)),
    }
}
