//! One running handler: its shards, its gate, and the version in force.

use super::{Handler, Overview, Owned, Works};
use crate::actor::{self, InForce, Version};
use crate::gate::Gate;
use crate::handler::{HandlerName, ShardId};
use crate::message::Offset;
use crate::reader::Reader;
use crate::routing::Routing;
use crate::shard::Remembered;
use crate::telemetry::HandlerMetrics;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Runs that have not ended by then are stopped: they begin again after the change, and nothing of them was done.
const DRAIN_MAX: Duration = Duration::from_secs(10);

pub(super) struct Running {
    handler: Mutex<Handler>,
    name: HandlerName,
    routing: Arc<InForce>,
    /// They never change.
    shard_count: u16,
    version: watch::Sender<Arc<Version>>,
    gate: Arc<Gate>,
    remembered: Remembered,
    /// By shard: see [`actor::Parts::idle`].
    idle: Vec<Arc<AtomicBool>>,
    /// By shard: the greatest offset up to which everything was seen to be settled.
    settled: Vec<AtomicU64>,
    metrics: Arc<HandlerMetrics>,
    /// By index, those that run here.
    shards: Mutex<BTreeMap<u16, Task>>,
}

/// A shard at work.
struct Task {
    stop: CancellationToken,
    ended: AbortOnDropHandle<()>,
}

/// Shards that are to end.
pub(super) struct Stopping {
    handler: HandlerName,
    shards: BTreeMap<u16, Task>,
}

impl Running {
    pub(super) fn start(
        works: &Works,
        handler: Handler,
        (version, routing): (u64, Arc<Routing>),
        gate: Arc<Gate>,
        owned: &Owned,
    ) -> Self {
        let name = handler.name.clone();
        let shard_count = routing.shards;
        let routing = InForce::new(works.log.clone(), works.reader.clone(), version, routing);
        let idle: Vec<Arc<AtomicBool>> = (0..shard_count).map(|_| Arc::default()).collect();
        let running = Self {
            settled: idle.iter().map(|_| AtomicU64::new(0)).collect(),
            version: watch::Sender::new(Arc::new(version_of(&handler))),
            metrics: works.metrics.handler(&name),
            handler: Mutex::new(handler),
            name,
            routing,
            shard_count,
            gate,
            remembered: Remembered::default(),
            idle,
            shards: Mutex::default(),
        };
        // Nothing runs yet, so nothing is lost.
        let _ = running.own(works, owned);
        running
    }

    /// Starts the shards that are owned and do not run; those that run and are not owned are told to end.
    #[must_use = "they end in their own time, which has a bound"]
    pub(super) fn own(&self, works: &Works, owned: &Owned) -> Stopping {
        if *owned != Owned::All {
            self.routing.share();
        }
        let owned = owned.of(&self.name, self.shard_count);
        let mut shards = self.shards();
        let lost: BTreeMap<u16, Task> = shards.extract_if(.., |index, _| !owned.contains(index)).collect();
        for index in owned {
            shards.entry(index).or_insert_with(|| self.begin(works, index));
        }
        drop(shards);
        Stopping::new(self.name.clone(), lost)
    }

    fn begin(&self, works: &Works, index: u16) -> Task {
        let stop = CancellationToken::new();
        let parts = actor::Parts {
            id: ShardId { handler: self.name.clone(), index },
            routing: self.routing.clone(),
            log: works.log.clone(),
            reader: works.reader.clone(),
            committer: works.committer.clone(),
            version: self.version.subscribe(),
            gate: self.gate.clone(),
            remembered: self.remembered.clone(),
            idle: self.idle[usize::from(index)].clone(),
            holding: works.holding.clone(),
            commands: works.follower.commands(&self.name),
            pins: works.follower.pins().clone(),
            metrics: self.metrics.clone(),
            commit_metrics: works.metrics.commits(),
            stop: stop.clone(),
        };
        let held = parts.holding.hold(&parts.id);
        let beside = works.natives.beside(&parts.id, works, stop.clone());
        let work = async move {
            tokio::join!(actor::run(parts, held), beside);
        };
        Task { stop, ended: AbortOnDropHandle::new(tokio::spawn(work)) }
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<u16, Task>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> &HandlerName {
        &self.name
    }

    pub(super) fn routing(&self) -> Arc<Routing> {
        self.routing.routing()
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
        let mut changed = version_of(&new);
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
            last_failure: self.metrics.last_failure(),
            running: usize::try_from(self.metrics.running.get()).unwrap_or(0),
            concurrency: version.policy.concurrency,
        }
    }

    /// Takes nothing new, lets runs finish, commits and leaves.
    pub(super) async fn stop(self, reader: &Reader) {
        self.routing.close();
        let shards = std::mem::take(&mut *self.shards());
        Stopping::new(self.name.clone(), shards).stop(reader).await;
    }
}

impl Stopping {
    fn new(handler: HandlerName, shards: BTreeMap<u16, Task>) -> Self {
        shards.values().for_each(|task| task.stop.cancel());
        Self { handler, shards }
    }

    /// Lets runs finish, commits and leaves.
    pub(super) async fn stop(mut self, reader: &Reader) {
        let tasks = self.shards.values_mut().map(|task| &mut task.ended);
        if tokio::time::timeout(DRAIN_MAX, join_all(tasks)).await.is_ok() {
            return;
        }
        tracing::warn!(handler = %self.handler, "stopped runs that did not end within {DRAIN_MAX:?}");
        for (index, mut task) in self.shards {
            // One that ended meanwhile said so above, and cannot be asked again.
            if !task.ended.is_finished() {
                task.ended.abort();
                // Gone before anyone claims the shard again.
                let _ = (&mut task.ended).await;
            }
            reader.leave(&ShardId { handler: self.handler.clone(), index });
        }
    }
}

fn version_of(handler: &Handler) -> Version {
    Version {
        policy: Arc::new(handler.policy.clone()),
        invoke: handler.invoke.clone(),
        permits: Arc::new(Semaphore::new(handler.policy.concurrency)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::reader::Options;

    #[tokio::test(start_paused = true)]
    async fn shards_that_end_in_time_are_left_alone_when_others_of_their_handler_do_not() {
        let reader = Reader::start(Arc::new(MemoryLog::new()), Options::default()).await.unwrap();
        let task = |task: tokio::task::JoinHandle<()>| Task {
            stop: CancellationToken::new(),
            ended: AbortOnDropHandle::new(task),
        };
        let (left, is_gone) = tokio::sync::oneshot::channel::<()>();
        let endless = tokio::spawn(async move {
            let _left = left;
            std::future::pending().await
        });
        let shards = BTreeMap::from([(0, task(tokio::spawn(async {}))), (1, task(endless))]);
        Stopping::new(HandlerName::parse("order").unwrap(), shards).stop(&reader).await;
        assert!(is_gone.await.is_err(), "nothing of it is left");
    }
}
