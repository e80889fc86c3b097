//! A log that answers late and in any order, fails, forgets whether it wrote, and loses its tails: one in memory with such
//! faults before it, or one that several hosts share, each with a handle of its own, on a server with faults of its own.

use super::pass;
use super::server::{Connection, Counted, Server};
use super::world::World;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::clock::{self, Timestamp};
use sluicebox::commit::{
    Claim, CommitError, Committed, DeadCount, DeadFilter, DeadQuery, NumberedDeadLetter, ShardCommit,
};
use sluicebox::effects::Entries;
use sluicebox::handler::{Digest, HandlerName, ShardId};
use sluicebox::log::memory::{MemoryCore, MemoryLog};
use sluicebox::log::replicated::{Bounds, Replicated};
use sluicebox::log::{
    Batch, DelayedFacts, DelayedQuery, Guarantees, HeadQuery, Heartbeat, Lagged, Log, LogError, Members, Modules,
    OpenHead, ReadRequest, Rerouting, Routings, ShardStatus, StateKey, StateQuery, Tail, Trim, Trimmed,
};
use sluicebox::message::{Key, Message, NewMessage, Offset};
use sluicebox::routing::Routing;
use sluicebox::routing::reserved::OFFSET_HEADER;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Over a log that keeps every promise.
#[derive(Clone)]
pub struct FaultyLog {
    inner: Arc<Inner>,
    /// What this handle is one of.
    log: Arc<dyn Log>,
}

/// A server that hosts share, and who looks at it past all faults.
struct Shared {
    server: Arc<Server>,
    onlooker: Connection,
    /// Where the world is that hears of every message.
    heard: watch::Receiver<Offset>,
    bounds: Bounds,
}

struct Inner {
    /// What is in it past all faults.
    kept: Arc<dyn Log>,
    shared: Option<Shared>,
    random: Mutex<StdRng>,
    faulty: AtomicBool,
    tails_end: AtomicBool,
    /// After the routings whose answer is lost so many questions what is recorded are not answered.
    routing_answer_lost: Mutex<Option<usize>>,
    routings_unanswered: AtomicUsize,
    /// Whether what operators said is not told to who asks.
    commands_held: watch::Sender<bool>,
    /// But to a host that starts.
    start_hears: AtomicBool,
    world: Arc<World>,
}

impl FaultyLog {
    pub fn new(seed: u64, world: Arc<World>) -> Self {
        // Dated by the host's time, as every kind of log that is kept.
        let log: Arc<dyn Log> = Arc::new(MemoryLog::with(MemoryCore::default(), clock::steady));
        Self { inner: Arc::new(Inner::new(seed, world, log.clone(), None)), log }
    }

    /// On a server that hosts share.
    pub async fn shared(seed: u64, world: Arc<World>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let server = Server::new(random.random());
        // So small that both are often due, or never.
        let bounds = Bounds {
            flush_bytes: [1, 500, usize::MAX][random.random_range(0..3)],
            snapshot_bytes: [2_000, 50_000, u64::MAX][random.random_range(0..3)],
            purge_entries: [1, 20][random.random_range(0..2)],
        };
        let onlooker = Connection::perfect(&server);
        let kept = Replicated::open_on(onlooker.clone(), bounds).await.unwrap();
        let kept: Arc<dyn Log> = Arc::new(kept);
        let mut tail = kept.tail().await.unwrap();
        let (hears, heard) = watch::channel(Offset::START);
        let told = world.clone();
        // It hears everything before anybody can let it go.
        tokio::spawn(async move {
            while let Some(batch) = tail.next().await {
                let batch = batch.expect("an onlooker misses nothing");
                told.archive(&batch.messages);
                hears.send_replace(batch.upto);
            }
        });
        let shared = Shared { server, onlooker, heard, bounds };
        let inner = Arc::new(Inner::new(random.random(), world, kept.clone(), Some(shared)));
        let log = Self { inner, log: kept };
        log.handle().await
    }

    /// As another host has it.
    pub async fn handle(&self) -> Self {
        let Some(Shared { server, bounds, .. }) = &self.inner.shared else { return self.clone() };
        loop {
            match Replicated::open_on(Connection::new(server), *bounds).await {
                Ok(log) => return Self { inner: self.inner.clone(), log: Arc::new(log) },
                Err(LogError::Refused { reason }) => panic!("{reason}"),
                Err(_) => {}
            }
        }
    }

    /// What went wrong on the server, if it is one.
    pub fn counted(&self) -> Counted {
        self.inner.shared.as_ref().map(|shared| shared.server.counted()).unwrap_or_default()
    }

    /// Shows the world what is in the log now.
    pub async fn keep(&self) {
        self.inner.keep().await;
    }

    /// The log below, past all faults.
    pub fn kept(&self) -> &dyn Log {
        &*self.inner.kept
    }

    /// Every tail ends, as when the log is closed.
    pub fn end_tails(&self) {
        self.inner.tails_end.store(true, Ordering::Relaxed);
    }

    /// The next routings are written, and the answer is lost; then the log does not say so many times what is recorded.
    pub fn lose_next_routing_answer(&self, then_unanswered: usize) {
        *self.inner.routing_answer_lost.lock().unwrap() = Some(then_unanswered);
    }

    /// Who asks what operators said gets no answer but the host that starts now, until [`FaultyLog::release_commands`].
    pub fn hold_commands(&self) {
        self.inner.start_hears.store(true, Ordering::Relaxed);
        self.inner.commands_held.send_replace(true);
    }

    pub fn release_commands(&self) {
        self.inner.commands_held.send_replace(false);
    }

    /// It fails no more and loses nothing more, but still takes its time.
    pub fn mend(&self) {
        self.inner.faulty.store(false, Ordering::Relaxed);
        if let Some(shared) = &self.inner.shared {
            shared.server.mend();
        }
    }
}

impl Inner {
    fn new(seed: u64, world: Arc<World>, kept: Arc<dyn Log>, shared: Option<Shared>) -> Self {
        Self {
            kept,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            // A server has faults of its own.
            faulty: AtomicBool::new(shared.is_none()),
            tails_end: AtomicBool::new(false),
            routing_answer_lost: Mutex::default(),
            routings_unanswered: AtomicUsize::new(0),
            commands_held: watch::Sender::new(false),
            start_hears: AtomicBool::new(false),
            world,
            shared,
        }
    }

    /// Shows the world what is in the log now.
    async fn keep(&self) {
        let Some(Shared { server, onlooker, heard, .. }) = &self.shared else {
            return self.world.keep(&*self.kept).await;
        };
        let last = server.last();
        onlooker.applied.subscribe().wait_for(|applied| *applied >= last).await.unwrap();
        let end = self.kept.end().await.unwrap();
        heard.clone().wait_for(|heard| *heard >= end).await.unwrap();
        self.world.routed(&self.kept.routings().await.unwrap().routings);
    }

    fn chance(&self, percent: f64) -> bool {
        self.faulty.load(Ordering::Relaxed) && self.random.lock().unwrap().random_bool(percent / 100.0)
    }

    /// The time of an answer: mostly short, sometimes very long, so that later ones overtake it.
    async fn takes_time(&self) {
        if self.shared.is_some() {
            return;
        }
        let millis = {
            let mut random = self.random.lock().unwrap();
            match random.random_range(0..100) {
                0..40 => 0,
                40..95 => random.random_range(0..10),
                _ => random.random_range(0..500),
            }
        };
        match millis {
            0 => tokio::task::yield_now().await,
            millis => pass(Duration::from_millis(millis)).await,
        }
    }

    /// What only looks.
    async fn look<T>(&self, look: impl AsyncFnOnce() -> Result<T, LogError>) -> Result<T, LogError> {
        self.takes_time().await;
        if self.chance(3.0) {
            return Err(unavailable());
        }
        let looked = look().await;
        self.takes_time().await;
        looked
    }

    async fn commit(&self, log: &dyn Log, commit: ShardCommit) -> Result<Committed, CommitError> {
        let shard = commit.shard.clone();
        self.takes_time().await;
        if commit.outputs.iter().any(|output| output.topic.as_str() == "boom") {
            return Err(CommitError::Refused { shard, reason: "it cannot be written".into() });
        }
        if self.chance(2.0) {
            return Err(CommitError::Unavailable { shard, reason: "it does not answer".into() });
        }
        let unknown = CommitError::Unknown { shard, reason: "the connection was lost".into() };
        if self.chance(1.0) {
            return Err(unknown);
        }
        if self.chance(2.0) {
            // It arrives when its shard has perhaps claimed again.
            self.takes_time().await;
        }
        let mut dropped = self.letters(&commit).await;
        // One whose place another took while it was about to return is no letter any more, and returns.
        let returned = commit.outputs.iter().filter_map(|output| output.headers.get(OFFSET_HEADER)?.parse().ok());
        dropped.extend(returned.map(Offset));
        self.keep().await;
        let (handler, committed) = (commit.shard.handler.clone(), log.commit(commit).await);
        match committed {
            Ok(_) => self.world.removed(&handler, dropped),
            // It is found out by looking.
            Err(CommitError::Unknown { .. }) => self.world.perhaps_removed(&handler, dropped),
            Err(_) => {}
        }
        self.takes_time().await;
        if self.chance(1.0) { Err(unknown) } else { committed }
    }

    /// The offsets of the dead letters that a commit removes.
    async fn letters(&self, commit: &ShardCommit) -> Vec<Offset> {
        if commit.dead_drop.is_empty() {
            return vec![];
        }
        let all = self.kept.dead(DeadQuery::newest(DeadFilter::default(), usize::MAX)).await.unwrap();
        let is_dropped = |letter: &&NumberedDeadLetter| {
            letter.letter.shard == commit.shard && commit.dead_drop.contains(&letter.number)
        };
        all.iter().filter(is_dropped).map(|letter| letter.letter.message.offset).collect()
    }
}

fn unavailable() -> LogError {
    LogError::Unavailable { reason: "it does not answer".into() }
}

impl Log for FaultyLog {
    fn guarantees(&self) -> Guarantees {
        self.log.guarantees()
    }

    fn append(&self, messages: Vec<NewMessage>) -> BoxFuture<'_, Result<Vec<Offset>, LogError>> {
        Box::pin(async move {
            self.inner.takes_time().await;
            if self.inner.chance(2.0) {
                return Err(unavailable());
            }
            let appended = self.log.append(messages).await;
            self.inner.takes_time().await;
            match self.inner.chance(2.0) {
                true => Err(LogError::Unknown { reason: "the connection was lost".into() }),
                false => appended,
            }
        })
    }

    fn put_module(
        &self,
        handler: HandlerName,
        module: Bytes,
        needed: Vec<Digest>,
    ) -> BoxFuture<'_, Result<Digest, LogError>> {
        Box::pin(self.inner.look(async || self.log.put_module(handler, module, needed).await))
    }

    fn module(&self, handler: HandlerName, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(self.inner.look(async move || self.log.module(handler, digest).await))
    }

    fn modules(&self) -> BoxFuture<'_, Result<Modules, LogError>> {
        Box::pin(self.inner.look(async || self.log.modules().await))
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<Batch, LogError>> {
        Box::pin(self.inner.look(async || {
            let is_of_commands = request.patterns.iter().any(|pattern| pattern.as_str().starts_with("_control."));
            // The host that starts asks first, and once.
            if is_of_commands && !self.inner.start_hears.swap(false, Ordering::Relaxed) {
                let _ = self.inner.commands_held.subscribe().wait_for(|held| !held).await;
            }
            self.log.read(request).await
        }))
    }

    fn fetch(&self, offsets: Vec<Offset>) -> BoxFuture<'_, Result<Vec<Option<Arc<Message>>>, LogError>> {
        Box::pin(self.inner.look(async || self.log.fetch(offsets).await))
    }

    fn end(&self) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(self.inner.look(async || self.log.end().await))
    }

    fn offset_before(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, LogError>> {
        Box::pin(self.inner.look(async move || self.log.offset_before(time).await))
    }

    fn tail(&self) -> BoxFuture<'_, Result<Box<dyn Tail>, LogError>> {
        Box::pin(async {
            let tail = self.log.tail().await?;
            Ok(Box::new(FaultyTail { tail, log: self.inner.clone(), late: true }) as Box<dyn Tail>)
        })
    }

    fn claim(&self, shard: ShardId, start: Offset) -> BoxFuture<'_, Result<Claim, LogError>> {
        Box::pin(async move {
            self.inner.takes_time().await;
            if self.inner.chance(3.0) {
                return Err(unavailable());
            }
            let claim = self.log.claim(shard, start).await;
            self.inner.takes_time().await;
            if self.inner.chance(2.0) { Err(unavailable()) } else { claim }
        })
    }

    fn load(&self, shard: ShardId, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Entries>, LogError>> {
        Box::pin(self.inner.look(async || self.log.load(shard, keys).await))
    }

    fn commit(&self, commit: ShardCommit) -> BoxFuture<'_, Result<Committed, CommitError>> {
        Box::pin(async move {
            let (inner, log, shard) = (self.inner.clone(), self.log.clone(), commit.shard.clone());
            // What was sent arrives, also when the host that waits for the answer is gone.
            let written = tokio::spawn(async move { inner.commit(&*log, commit).await }).await;
            written.unwrap_or_else(|error| Err(CommitError::Unknown { shard, reason: error.to_string() }))
        })
    }

    fn routings(&self) -> BoxFuture<'_, Result<Routings, LogError>> {
        Box::pin(self.inner.look(async || {
            let left = self.inner.routings_unanswered.load(Ordering::Relaxed);
            self.inner.routings_unanswered.store(left.saturating_sub(1), Ordering::Relaxed);
            if left > 0 { Err(unavailable()) } else { self.log.routings().await }
        }))
    }

    fn catch_up(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.catch_up()
    }

    fn put_routings(&self, version: u64, routings: Vec<Routing>) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.inner.look(async move || {
            self.inner.keep().await;
            self.log.put_routings(version, routings.clone()).await?;
            self.inner.world.routed(&routings);
            let is_lost = self.inner.routing_answer_lost.lock().unwrap().take();
            self.inner.routings_unanswered.fetch_add(is_lost.unwrap_or(0), Ordering::Relaxed);
            match is_lost.is_some() || self.inner.chance(10.0) {
                true => Err(LogError::Unknown { reason: "the connection was lost".into() }),
                false => Ok(()),
            }
        }))
    }

    fn dead(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<NumberedDeadLetter>, LogError>> {
        Box::pin(self.inner.look(async || self.log.dead(query).await))
    }

    fn dead_count(&self, filter: DeadFilter) -> BoxFuture<'_, Result<DeadCount, LogError>> {
        Box::pin(self.inner.look(async || self.log.dead_count(filter).await))
    }

    fn trim(&self, trim: Trim) -> BoxFuture<'_, Result<Trimmed, LogError>> {
        Box::pin(self.inner.look(async || {
            self.inner.keep().await;
            self.log.trim(trim).await
        }))
    }

    fn gone_after(&self, offset: Offset) -> BoxFuture<'_, Result<u64, LogError>> {
        Box::pin(self.inner.look(async move || self.log.gone_after(offset).await))
    }

    fn heads(&self, query: HeadQuery) -> BoxFuture<'_, Result<Vec<OpenHead>, LogError>> {
        Box::pin(self.inner.look(async || self.log.heads(query).await))
    }

    fn delayed(&self, query: DelayedQuery) -> BoxFuture<'_, Result<Vec<DelayedFacts>, LogError>> {
        Box::pin(self.inner.look(async || self.log.delayed(query).await))
    }

    fn state_keys(&self, query: StateQuery) -> BoxFuture<'_, Result<Vec<StateKey>, LogError>> {
        Box::pin(self.inner.look(async || self.log.state_keys(query).await))
    }

    fn reroute(&self, rerouting: Rerouting) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.inner.look(async || self.log.reroute(rerouting).await).await })
    }

    fn forget(&self, handler: HandlerName) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.inner.look(async || self.log.forget(handler).await))
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<ShardStatus>, LogError>> {
        Box::pin(self.inner.look(async || self.log.status().await))
    }

    fn beat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.beat(beat)
    }

    fn members(&self) -> &Members {
        self.log.members()
    }
}

struct FaultyTail {
    tail: Box<dyn Tail>,
    log: Arc<Inner>,
    /// Whether its next answer takes its time.
    late: bool,
}

impl Tail for FaultyTail {
    fn start(&self) -> Offset {
        self.tail.start()
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Arc<Batch>, Lagged>>> {
        Box::pin(async {
            if std::mem::take(&mut self.late) {
                // Nothing is taken yet, so nothing is lost when this is dropped.
                self.log.takes_time().await;
            }
            if self.log.chance(2.0) {
                let mut lost = 0;
                while let Some(Some(_)) = self.tail.next().now_or_never() {
                    lost += 1;
                }
                if lost > 0 {
                    return Some(Err(Lagged));
                }
            }
            if self.log.tails_end.load(Ordering::Relaxed) || self.log.chance(0.2) {
                return None;
            }
            let next = self.tail.next().await;
            self.late = true;
            next
        })
    }
}
