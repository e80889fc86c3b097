//! A log in memory that counts its reads, and that can be told to refuse them, to lose batches of its tail and to end it.

use crate::clock::Timestamp;
use crate::commit::{Claim, CommitError, Committed, DeadCount, DeadFilter, DeadQuery, NumberedDeadLetter, ShardCommit};
use crate::effects::Entries;
use crate::handler::{Digest, HandlerName, ShardId};
use crate::log::memory::MemoryLog;
use crate::log::{Batch, Guarantees, Lagged, Log, LogError, ReadRequest, Routings, ShardStatus, Tail, Trim, Trimmed};
use crate::log::{
    DelayedFacts, DelayedQuery, HeadQuery, Heartbeat, Members, Modules, OpenHead, Rerouting, StateKey, StateQuery,
};
use crate::message::{Key, Message, NewMessage, Offset};
use crate::routing::Routing;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Default)]
pub(super) struct WatchedLog {
    inner: MemoryLog,
    reads: AtomicUsize,
    reads_to_refuse: AtomicUsize,
    batches_to_lose: Arc<AtomicUsize>,
    tail_ends: Arc<AtomicBool>,
    /// Loses batches and refuses reads, each one time in so many.
    chaos: Option<(Arc<Mutex<StdRng>>, u32)>,
}

impl WatchedLog {
    pub(super) fn with_chaos(seed: u64, one_in: u32) -> Self {
        Self { chaos: Some((Arc::new(Mutex::new(StdRng::seed_from_u64(seed))), one_in)), ..Self::default() }
    }

    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    pub(super) fn refuse_reads(&self, count: usize) {
        self.reads_to_refuse.store(count, Ordering::Relaxed);
    }

    /// The tail loses the next `count` batches and says so.
    pub(super) fn lose_batches(&self, count: usize) {
        self.batches_to_lose.store(count, Ordering::Relaxed);
    }

    /// The tail ends with the next batch.
    pub(super) fn end_tail(&self) {
        self.tail_ends.store(true, Ordering::Relaxed);
    }

    pub(super) async fn all(&self) -> Vec<Arc<Message>> {
        let (after, upto, patterns) = (Offset::START, Offset::END, vec![]);
        let request = ReadRequest { after, upto, patterns, messages_max: usize::MAX, bytes_max: usize::MAX };
        self.inner.read(request).await.unwrap().messages
    }
}

fn strikes(chaos: &Option<(Arc<Mutex<StdRng>>, u32)>) -> bool {
    chaos.as_ref().is_some_and(|(rng, one_in)| rng.lock().unwrap().random_ratio(1, *one_in))
}

fn count_down(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}

impl Log for WatchedLog {
    fn put_module(
        &self,
        handler: HandlerName,
        module: Bytes,
        needed: Vec<Digest>,
    ) -> BoxFuture<'_, Result<Digest, LogError>> {
        self.inner.put_module(handler, module, needed)
    }

    fn module(&self, handler: HandlerName, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        self.inner.module(handler, digest)
    }

    fn modules(&self) -> BoxFuture<'_, Result<Modules, LogError>> {
        self.inner.modules()
    }

    fn beat(&self, beat: Heartbeat) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.beat(beat)
    }

    fn members(&self) -> &Members {
        self.inner.members()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<Batch, LogError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if count_down(&self.reads_to_refuse) || strikes(&self.chaos) {
            return Box::pin(async { Err(LogError::Unavailable { reason: "told to refuse".into() }) });
        }
        Box::pin(async {
            // As from a real log: others go on between the question and the answer.
            tokio::task::yield_now().await;
            let batch = self.inner.read(request).await;
            tokio::task::yield_now().await;
            batch
        })
    }

    fn tail(&self) -> BoxFuture<'_, Result<Box<dyn Tail>, LogError>> {
        Box::pin(async {
            let inner = self.inner.tail().await?;
            let (to_lose, chaos) = (self.batches_to_lose.clone(), self.chaos.clone());
            let ends = self.tail_ends.clone();
            Ok(Box::new(LossyTail { inner, to_lose, ends, chaos }) as Box<dyn Tail>)
        })
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn append(&self, messages: Vec<NewMessage>) -> BoxFuture<'_, Result<Vec<Offset>, LogError>> {
        self.inner.append(messages)
    }

    fn fetch(&self, offsets: Vec<Offset>) -> BoxFuture<'_, Result<Vec<Option<Arc<Message>>>, LogError>> {
        self.inner.fetch(offsets)
    }

    fn end(&self) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.inner.end()
    }

    fn offset_before(&self, time: Timestamp) -> BoxFuture<'_, Result<Offset, LogError>> {
        self.inner.offset_before(time)
    }

    fn gone_after(&self, offset: Offset) -> BoxFuture<'_, Result<u64, LogError>> {
        self.inner.gone_after(offset)
    }

    fn dead_count(&self, filter: DeadFilter) -> BoxFuture<'_, Result<DeadCount, LogError>> {
        self.inner.dead_count(filter)
    }

    fn trim(&self, trim: Trim) -> BoxFuture<'_, Result<Trimmed, LogError>> {
        self.inner.trim(trim)
    }

    fn reroute(&self, rerouting: Rerouting) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.reroute(rerouting)
    }

    fn forget(&self, handler: HandlerName) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.forget(handler)
    }

    fn claim(&self, shard: ShardId, start: Offset) -> BoxFuture<'_, Result<Claim, LogError>> {
        self.inner.claim(shard, start)
    }

    fn load(&self, shard: ShardId, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Entries>, LogError>> {
        self.inner.load(shard, keys)
    }

    fn commit(&self, commit: ShardCommit) -> BoxFuture<'_, Result<Committed, CommitError>> {
        self.inner.commit(commit)
    }

    fn routings(&self) -> BoxFuture<'_, Result<Routings, LogError>> {
        self.inner.routings()
    }

    fn put_routings(&self, version: u64, routings: Vec<Routing>) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.put_routings(version, routings)
    }

    fn dead(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<NumberedDeadLetter>, LogError>> {
        self.inner.dead(query)
    }

    fn heads(&self, query: HeadQuery) -> BoxFuture<'_, Result<Vec<OpenHead>, LogError>> {
        self.inner.heads(query)
    }

    fn delayed(&self, query: DelayedQuery) -> BoxFuture<'_, Result<Vec<DelayedFacts>, LogError>> {
        self.inner.delayed(query)
    }

    fn state_keys(&self, query: StateQuery) -> BoxFuture<'_, Result<Vec<StateKey>, LogError>> {
        self.inner.state_keys(query)
    }

    fn status(&self) -> BoxFuture<'_, Result<Vec<ShardStatus>, LogError>> {
        self.inner.status()
    }
}

struct LossyTail {
    inner: Box<dyn Tail>,
    to_lose: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    chaos: Option<(Arc<Mutex<StdRng>>, u32)>,
}

impl Tail for LossyTail {
    fn start(&self) -> Offset {
        self.inner.start()
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Arc<Batch>, Lagged>>> {
        Box::pin(async {
            let next = self.inner.next().await.filter(|_| !self.ends.load(Ordering::Relaxed))?;
            let lost = next.is_ok() && (count_down(&self.to_lose) || strikes(&self.chaos));
            Some(if lost { Err(Lagged) } else { next })
        })
    }
}
