//! Puts the parts together: log, reader, committer and the shards of every handler; changes them while they run, and
//! takes them apart again.
//!
//! A host works on the shards that it owns, of every handler all unless it is told otherwise, and the set may change while
//! it runs. What concerns a handler as a whole it takes from the log, so it knows as much without a shard of it.

mod native;
mod owned;
mod recording;
mod running;

pub use self::native::Natives;
pub use self::owned::Owned;

use crate::actor::Holding;
use crate::commit::{DeadFilter, Pin};
use crate::committer::Committer;
use crate::config::Start;
use crate::delays::{Delaying, NoDelay};
use crate::follow::{Follower, LastPin};
use crate::gate::{BreakerState, Gate};
use crate::handler::{Digest, HandlerName, Policy, ShardId};
use crate::invoke::Invoke;
use crate::log::{DeadUsage, Log, LogError, Usage};
use crate::message::Offset;
use crate::reader::{self, Reader};
use crate::routing::reconcile::Fixed;
use crate::routing::{IdFrom, KeyFrom, Routing};
use crate::shard::Amount;
use crate::telemetry::{FailedRun, Metrics, events};
use crate::topic::Pattern;
use crate::vital::Vital;
use running::{Running, Stopping};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Looks whether a host that has just started knows how much is delayed: a few seconds.
const COUNT_TRIES: usize = 200;
/// Between two of them.
const COUNT_PAUSE: Duration = Duration::from_millis(20);

/// A handler ready to run.
#[derive(Clone)]
pub struct Handler {
    pub name: HandlerName,
    pub subscribe: Vec<Pattern>,
    pub key: KeyFrom,
    pub id: IdFrom,
    pub shards: u16,
    pub start: Start,
    pub policy: Policy,
    pub invoke: Arc<dyn Invoke>,
}

/// Why the host does not start, or does not change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Routing(Vec<Fixed>),
}

/// A running handler, for people.
#[derive(Clone, Debug)]
pub struct Overview {
    pub name: HandlerName,
    /// Of the module in force.
    pub digest: Option<Digest>,
    pub breaker: BreakerState,
    /// Since the host started.
    pub last_failure: Option<FailedRun>,
    pub running: usize,
    pub concurrency: usize,
}

/// The running shards of one host.
pub struct Host {
    works: Works,
    /// The shards that are its own. Locked while something changes: one change at a time.
    changing: Mutex<Owned>,
    running: RwLock<BTreeMap<HandlerName, Running>>,
    /// Handlers that do not run here, since the log routes them otherwise than the settings say.
    unlike: std::sync::Mutex<Vec<Fixed>>,
    vital: Vital,
}

/// Shards that are leaving.
#[must_use = "they end in their own time, which has a bound"]
pub struct Releasing {
    lost: Vec<Stopping>,
    reader: Reader,
}

impl Releasing {
    /// Returns when they have left, and are free to be claimed by another host.
    pub async fn released(self) {
        let Self { lost, reader } = self;
        futures_util::future::join_all(lost.into_iter().map(|lost| lost.stop(&reader))).await;
    }
}

/// What the shards of all handlers share.
struct Works {
    log: Arc<dyn Log>,
    reader: Reader,
    committer: Committer,
    follower: Follower,
    holding: Holding,
    metrics: Arc<Metrics>,
    natives: Natives,
    /// Handlers whose shards run or are about to, for `retain`.
    holders: watch::Sender<Vec<HandlerName>>,
}

impl Host {
    /// Records the routings, claims every shard and starts working.
    pub async fn start(
        log: Arc<dyn Log>,
        handlers: Vec<Handler>,
        metrics: Arc<Metrics>,
        options: reader::Options,
    ) -> Result<Self, StartError> {
        Self::start_as_owner(log, handlers, metrics, options, Owned::All).await
    }

    /// Records the routings, claims the shards that are its own and starts working.
    pub async fn start_as_owner(
        log: Arc<dyn Log>,
        handlers: Vec<Handler>,
        metrics: Arc<Metrics>,
        options: reader::Options,
        owned: Owned,
    ) -> Result<Self, StartError> {
        Self::start_with(log, handlers, metrics, options, owned, Natives::default()).await
    }

    /// As [`Host::start_as_owner`], with handlers of its own.
    pub async fn start_with(
        log: Arc<dyn Log>,
        handlers: Vec<Handler>,
        metrics: Arc<Metrics>,
        options: reader::Options,
        owned: Owned,
        natives: Natives,
    ) -> Result<Self, StartError> {
        let waiting = options.waiting.clone();
        metrics.count_waiting(move || waiting.used_bytes());
        let follower = Follower::start(&log).await?;
        let reader = Reader::start(log.clone(), options).await?;
        let committer = Committer::new(log.clone());
        if owned != Owned::All {
            natives.delays.share();
        }
        if log.routings().await?.routings.iter().any(|routing| routing.handler.is_delay()) {
            natives.delays.begin(log.end().await?);
        }
        let (holding, holders) = (Holding::default(), watch::Sender::default());
        let works = Works { log, reader, committer, follower, holding, metrics, natives, holders };
        let (changing, running, vital) = (Mutex::new(owned), RwLock::default(), Vital::default());
        let unlike = std::sync::Mutex::default();
        let host = Self { works, changing, running, unlike, vital };
        host.apply(handlers).await?;
        Ok(host)
    }

    /// Brings what runs in line with `handlers`: new ones start, missing ones finish their runs and leave, changed ones
    /// change at a message boundary: runs under way end on the old version, the next ones take the new one, and with
    /// another module waiting heads are due. Another `invoke` is another module, the same one none.
    ///
    /// All or nothing: after an error everything runs as before, unless the log does not say whether it took the change
    /// (then [`Host::failed`] tells).
    pub async fn apply(&self, handlers: Vec<Handler>) -> Result<(), StartError> {
        let owned = self.changing.lock().await;
        self.bring(&owned, handlers).await
    }

    /// Handlers that do not run on this host, though other hosts run them: the log routes them otherwise than the settings say.
    pub fn unlike_log(&self) -> Vec<Fixed> {
        self.unlike.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Room for messages that are to appear later, and from the first one on the host's own handler for them: a host
    /// whose publishers delay nothing has none.
    pub async fn delay(self: &Arc<Self>, more: Amount) -> Result<Delaying, NoDelay> {
        let shard = ShardId { handler: HandlerName::delay(), index: 0 };
        // Also while another one begins it.
        let runs = self.read().contains_key(&shard.handler);
        if !runs {
            let host = self.clone();
            // A task of its own: a client that hangs up does not cut a change of the host off in the middle.
            let begun = tokio::spawn(async move { host.begin_delays().await }).await;
            begun.unwrap_or_else(|panic| Err(NoDelay::NotNow { reason: panic.to_string() }))?;
        }
        if self.works.natives.delays.is_shared() {
            let recorded = self.works.natives.delays.recorded(&*self.works.log).await;
            let held = recorded.map_err(|error| NoDelay::NotNow { reason: error.to_string() })?;
            return self.works.natives.delays.reserve(more, held);
        }
        for _ in 0..COUNT_TRIES {
            let Some(from) = self.works.natives.delays.uncounted() else { break };
            match self.are_tried(&shard, from) {
                true => self.works.natives.delays.counted(),
                false => tokio::time::sleep(COUNT_PAUSE).await,
            }
        }
        let held = self.read().get(&shard.handler).map(|running| running.gate().delayed().total());
        let held =
            held.ok_or_else(|| NoDelay::NotNow { reason: "the host is starting or stopping: try again".into() })?;
        self.works.natives.delays.reserve(more, held)
    }

    /// Whether the host's own handler has tried all that there is up to here: what is not held back by then had no room, and
    /// is counted as well.
    fn are_tried(&self, shard: &ShardId, upto: Offset) -> bool {
        let Some(delayed) = self.read().get(&shard.handler).map(|running| running.gate().delayed()) else {
            return false;
        };
        // Asked before and after: what it took in between is not tried.
        let is_there =
            || delayed.are_all_tried() && self.works.reader.passed(shard).is_some_and(|passed| passed >= upto);
        is_there() && delayed.are_all_tried()
    }

    /// Another host began to run the host's own handler, so this one may have to take it over.
    pub async fn follow_delays(&self) -> Result<(), NoDelay> {
        self.begin_delays().await
    }

    async fn begin_delays(&self) -> Result<(), NoDelay> {
        let owned = self.changing.lock().await;
        if self.read().contains_key(&HandlerName::delay()) || self.works.natives.delays.is_stopped() {
            return Ok(());
        }
        // Its routing is recorded before anything is appended for it, so that all of that is its own.
        let is_first = self.works.natives.delays.begin(Offset::START);
        let handlers = self.read().values().map(Running::handler).collect();
        let begun = self.bring_all(&owned, handlers).await;
        if begun.is_err() && is_first {
            self.works.natives.delays.undo_begin();
        }
        begun.map_err(|error| NoDelay::NotNow { reason: error.to_string() })
    }

    /// As [`Host::bring_all`]; where other hosts work on the log, a handler that these run otherwise is left to them. One that
    /// runs here goes on as it was, as after any change that is refused.
    async fn bring(&self, owned: &Owned, mut handlers: Vec<Handler>) -> Result<(), StartError> {
        let mut unlike: Vec<Fixed> = vec![];
        let brought = loop {
            match self.bring_all(owned, handlers.clone()).await {
                Err(StartError::Routing(fixed)) if *owned != Owned::All && !self.runs_any(&fixed) => {
                    handlers.retain(|handler| !fixed.iter().any(|fixed| fixed.handler == handler.name));
                    fixed.iter().for_each(|fixed| tracing::error!("{fixed}; this host leaves it to others"));
                    unlike.extend(fixed);
                }
                brought => break brought,
            }
        };
        if brought.is_ok() {
            *self.unlike.lock().unwrap_or_else(PoisonError::into_inner) = unlike;
        }
        brought
    }

    fn runs_any(&self, fixed: &[Fixed]) -> bool {
        let running = self.read();
        fixed.is_empty() || fixed.iter().any(|fixed| running.contains_key(&fixed.handler))
    }

    async fn bring_all(&self, owned: &Owned, mut handlers: Vec<Handler>) -> Result<(), StartError> {
        self.works.natives.join(&mut handlers);
        let missed = self.missed(&handlers).await?;
        // Refused before anything stops, and from here on only the recording can fail.
        self.check_routings(&handlers).await?;
        let mut gates = self.gates(&handlers).await?;
        // Asked for before the records are read: what operators say from here on is heard.
        handlers.iter().for_each(|handler| drop(self.works.follower.commands(&handler.name)));
        let recorded =
            LastPin::recorded(&*self.works.log, |name| handlers.iter().any(|handler| handler.name == *name)).await?;
        let stopping = self.take_out(|running| {
            let new = handlers.iter().find(|handler| handler.name == *running.name());
            new.is_none_or(|new| running.needs_restart(new))
        });
        // As of no version: whatever is read later is newer.
        let before: Vec<(Handler, (u64, Arc<Routing>))> =
            stopping.iter().map(|running| (running.handler(), (0, running.routing()))).collect();
        gates.extend(stopping.iter().map(|running| (running.name().clone(), running.gate())));
        // Nothing that is about to start may lose what it needs.
        let named = handlers.iter().map(|handler| &handler.name).chain(before.iter().map(|(handler, _)| &handler.name));
        self.works.holders.send_replace(named.cloned().collect());
        futures_util::future::join_all(stopping.into_iter().map(|running| running.stop(&self.works.reader))).await;
        if !before.is_empty() {
            self.count_dead(&gates).await;
        }
        // Only now is it certain how far the shards came: messages up to the log's end are those of the old routing.
        let (starting, result) = match self.record_routings(&handlers, owned).await {
            Ok((version, routings)) => {
                let leaves = |name: &HandlerName| !handlers.iter().any(|handler| handler.name == *name);
                before.iter().map(|(handler, _)| &handler.name).filter(|name| leaves(name)).for_each(|name| {
                    self.works.reader.unroute(name);
                    self.works.follower.forget(name);
                });
                let routed = |handler: Handler| {
                    let routing = routings.get(&handler.name)?.clone();
                    Some((handler, (version, routing)))
                };
                (handlers.into_iter().filter_map(routed).collect(), Ok(()))
            }
            Err(error @ StartError::Log(LogError::Unknown { .. })) => {
                self.vital.tell(format!("it cannot be found out which messages are whose: {error}"));
                (vec![], Err(error))
            }
            Err(error) => (before, Err(error)),
        };
        for (handler, routing) in starting {
            if let Some(running) = self.read().get(&handler.name) {
                running.change(handler);
                continue;
            }
            let Some(gate) = gates.remove(&handler.name) else { continue };
            gate.configure(&handler.policy);
            if let Some(missed) = missed.get(&handler.name) {
                events::missed(&self.works.metrics.handler(&handler.name), *missed);
            }
            // Known before its first shard is claimed, so that nobody takes the file's version for the one to run.
            if let Some(last) = recorded.get(&handler.name) {
                self.works.follower.pins().note(&handler.name, *last);
            }
            let running = Running::start(&self.works, handler, routing, gate, owned);
            self.write().insert(running.name().clone(), running);
        }
        let running = self.read().keys().cloned().collect();
        self.works.holders.send_replace(running);
        result
    }

    /// Tells handlers that stopped what the log says of their letters: a gate that is made when they come back knows only of
    /// those that are left.
    async fn count_dead(&self, gates: &HashMap<HandlerName, Arc<Gate>>) {
        match self.works.log.usage().await {
            Ok(usage) => {
                for (name, gate) in gates {
                    gate.dead_counted(usage.dead.get(name).copied(), usage.dead_bytes_max);
                }
            }
            Err(error) => tracing::warn!(%error, "dead letters that went for their bytes last are not counted"),
        }
    }

    /// Brings the shards in line with `owned`, while the others go on: one that is new is claimed and works, one that is
    /// missing finishes its runs, commits and leaves. When it returns, all that was lost is free to be claimed by another
    /// host.
    pub async fn own(&self, owned: Owned) {
        self.begin_to_own(owned).await.released().await;
    }

    /// As [`Host::own`], and returns as soon as shards that are new were begun: those that were lost go on leaving, and must
    /// not be owned again before they have left.
    pub async fn begin_to_own(&self, owned: Owned) -> Releasing {
        let mut current = self.changing.lock().await;
        *current = owned;
        let lost = self.read().values().map(|running| running.own(&self.works, &current)).collect();
        Releasing { lost, reader: self.works.reader.clone() }
    }

    /// The shards that it holds now.
    pub fn holding(&self) -> &Holding {
        &self.works.holding
    }

    /// The handlers that run, with their number of shards.
    pub fn runs(&self) -> Vec<(HandlerName, u16)> {
        self.read().iter().map(|(name, running)| (name.clone(), running.routing().shards)).collect()
    }

    /// Messages that went while a handler was away, by the handlers that come back.
    async fn missed(&self, handlers: &[Handler]) -> Result<HashMap<HandlerName, u64>, StartError> {
        let mut read: HashMap<HandlerName, Offset> = HashMap::new();
        for status in self.works.log.status().await? {
            let name = &status.shard.handler;
            let comes_back = handlers.iter().any(|handler| handler.name == *name) && !self.read().contains_key(name);
            // One that begins with whatever there is has missed nothing.
            if comes_back && status.read > Offset::START {
                read.entry(name.clone()).and_modify(|read| *read = status.read.min(*read)).or_insert(status.read);
            }
        }
        let mut missed = HashMap::new();
        for (name, read) in read {
            let gone = self.works.log.gone_after(read).await?;
            if gone > 0 {
                missed.insert(name, gone);
            }
        }
        Ok(missed)
    }

    /// Gates for the handlers that do not run yet.
    async fn gates(&self, handlers: &[Handler]) -> Result<HashMap<HandlerName, Arc<Gate>>, StartError> {
        let mut gates = HashMap::new();
        let log_usage = self.works.log.usage().await?;
        let dead_bytes_max = log_usage.dead_bytes_max;
        for handler in handlers {
            if self.read().contains_key(&handler.name) {
                continue;
            }
            let filter = DeadFilter { handler: Some(handler.name.clone()), ..DeadFilter::default() };
            let dead = self.works.log.dead_count(filter).await?;
            let metrics = self.works.metrics.handler(&handler.name);
            let gate = Gate::new(&handler.policy, dead.letters, metrics);
            // What went before this gate was made is not among the letters counted here.
            let dropped_for_bytes = log_usage.dead.get(&handler.name).map_or(0, |usage| usage.dropped_for_bytes);
            let usage = DeadUsage { letters: dead.letters, bytes: dead.bytes, dropped_for_bytes };
            gate.dead_begins(usage, dead_bytes_max);
            gates.insert(handler.name.clone(), Arc::new(gate));
        }
        Ok(gates)
    }

    /// Ends when messages or commands are not delivered any more, with the reason: a task panicked, or the log left it
    /// alone.
    pub async fn failed(&self) -> String {
        tokio::select! {
            // Safe to cancel, all three: they only watch.
            reason = self.vital.failed() => reason,
            reason = self.works.reader.failed() => reason,
            reason = self.works.follower.failed() => reason,
        }
    }

    /// Rollbacks that operators asked for, by handler: as the log recorded them when the handler started, and as its shards
    /// applied them since.
    pub fn pins(&self) -> watch::Receiver<BTreeMap<HandlerName, Pin>> {
        self.works.follower.pins().subscribe()
    }

    /// Rollbacks as the log recorded them, also of handlers that do not run; `about`: those that are asked about.
    pub async fn recorded_pins(
        &self,
        about: impl Fn(&HandlerName) -> bool,
    ) -> Result<BTreeMap<HandlerName, Pin>, LogError> {
        recorded_pins(&*self.works.log, about).await
    }

    /// The handlers that hold `retain` back.
    pub fn holders(&self) -> watch::Receiver<Vec<HandlerName>> {
        self.works.holders.subscribe()
    }

    /// What the log says of dead letters, to the handlers that have them.
    pub fn dead_counted(&self, usage: &Usage) {
        for (name, running) in self.read().iter() {
            running.gate().dead_counted(usage.dead.get(name).copied(), usage.dead_bytes_max);
        }
    }

    /// Makes the shards of a handler write down how far they are: `retain` goes by what is durable, and a shard that
    /// hears nothing writes seldom.
    pub fn write_positions(&self, handler: &HandlerName) {
        let shards = self.read().get(handler).map_or(0, |running| running.routing().shards);
        for index in 0..shards {
            self.works.reader.tell(&ShardId { handler: handler.clone(), index });
        }
    }

    /// Does something to a handler that does not run, and that is not started before it is done. `None`: it runs, and
    /// nothing was done.
    pub async fn while_it_does_not_run<T>(&self, name: &HandlerName, work: impl Future<Output = T>) -> Option<T> {
        let _one = self.changing.lock().await;
        if self.read().contains_key(name) {
            return None;
        }
        Some(work.await)
    }

    /// The handlers that run now.
    pub fn overview(&self) -> Vec<Overview> {
        self.read().values().map(Running::overview).collect()
    }

    /// How far a shard is known to be, which what its record says may not show: it had nothing to write.
    pub fn passed(&self, shard: &ShardId) -> Option<Offset> {
        let is_idle = || self.read().get(&shard.handler).is_some_and(|running| running.is_idle(shard));
        // Asked before and after: what it took in between is not settled.
        let passed = is_idle().then(|| self.works.reader.passed(shard)).flatten().filter(|_| is_idle());
        // While it has something in hand it is still as far as it was.
        self.read().get(&shard.handler)?.settled(shard, passed)
    }

    /// Takes nothing new, lets runs finish, commits and leaves.
    pub async fn stop(&self) {
        // Whoever begins something begins it before, or not at all.
        let _one = self.changing.lock().await;
        self.works.natives.delays.stop();
        let running = self.take_out(|_| true);
        futures_util::future::join_all(running.into_iter().map(|running| running.stop(&self.works.reader))).await;
        self.works.reader.clone().stop().await;
    }

    fn take_out(&self, takes: impl Fn(&Running) -> bool) -> Vec<Running> {
        self.write().extract_if(.., |_, running| takes(running)).map(|(_, running)| running).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<HandlerName, Running>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<HandlerName, Running>> {
        self.running.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What operators went back to, as the log recorded it.
pub async fn recorded_pins(
    log: &dyn Log,
    about: impl Fn(&HandlerName) -> bool,
) -> Result<BTreeMap<HandlerName, Pin>, LogError> {
    let recorded = LastPin::recorded(log, about).await?;
    Ok(recorded.into_iter().filter_map(|(handler, last)| Some((handler, last.pin?))).collect())
}
