//! What tests of the faces put into a log in memory, and a host that only looks as if it ran.

use crate::clock::Timestamp;
use crate::commit::{Control, DeadFilter, DeadLetter, DeadQuery, Deaths, ShardCommit};
use crate::delays::{Delaying, Delays, NoDelay};
use crate::handler::{Digest, HandlerName, ShardId};
use crate::http::running::{BreakerView, ForgetError, Running, RunningHandler, TryError, VersionView};
use crate::log::Log;
use crate::log::memory::MemoryLog;
use crate::message::Offset;
use crate::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use crate::shard::Amount;
use crate::topic::Pattern;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// A host that runs these handlers and is where it is told to be.
#[derive(Default)]
pub(crate) struct Double {
    pub(crate) handlers: Vec<RunningHandler>,
    pub(crate) passed: Option<(ShardId, Offset)>,
    pub(crate) delays: Delays,
}

impl Running for Double {
    fn passed(&self, shard: &ShardId) -> Option<Offset> {
        self.passed.as_ref().filter(|(at, _)| at == shard).map(|(_, offset)| *offset)
    }

    fn handlers(&self) -> Vec<RunningHandler> {
        self.handlers.clone()
    }

    fn delay(&self, more: Amount) -> BoxFuture<'_, Result<Delaying, NoDelay>> {
        self.delays.begin(Offset::START);
        Box::pin(std::future::ready(self.delays.reserve(more, Amount::default())))
    }

    /// Whatever begins with `bad` cannot run.
    fn try_module(&self, handler: HandlerName, module: Bytes) -> BoxFuture<'_, Result<(), TryError>> {
        let refused = || TryError::Refused { handler, reason: "it is bad".into() };
        Box::pin(std::future::ready(if module.starts_with(b"bad") { Err(refused()) } else { Ok(()) }))
    }

    fn forget(&self, log: Arc<dyn Log>, handler: HandlerName) -> BoxFuture<'_, Result<(), ForgetError>> {
        Box::pin(async move { Ok(log.forget(handler).await?) })
    }
}

/// A handler that runs the last of these versions, which is the one in the file.
pub(crate) fn runs(handler: &str, versions: &[&str]) -> RunningHandler {
    let digests = versions.iter().map(|version| Digest::of(version.as_bytes()));
    let seen = |(at, digest)| VersionView { digest, first_seen: Timestamp(at as u64 * 1000), deployed: false };
    let versions: Vec<VersionView> = digests.enumerate().map(seen).collect();
    let digest = versions.last().map(|version| version.digest);
    RunningHandler {
        name: name(handler),
        digest,
        deployed: false,
        file_digest: digest,
        versions,
        breaker: BreakerView::Closed,
        last_failure: None,
        show_state: crate::config::ShowState::Values,
        running: 0,
        concurrency: 64,
        problem: None,
    }
}

pub(crate) fn name(text: &str) -> HandlerName {
    HandlerName::parse(text).unwrap()
}

/// Makes a handler known to the log, which subscribes to `events.*`, with every shard claimed.
pub(crate) async fn route(log: &MemoryLog, handler: &str, key: KeyFrom, shards: u16) {
    let spans = vec![Span { after: Offset::START, subscribe: vec![Pattern::parse("events.*").unwrap()] }];
    let mut routings = log.routings().await.unwrap();
    let (recorded, identity) = (Offset::START, Since::default());
    let handler_routing =
        Routing { handler: name(handler), key, id: IdFrom::Message, shards, recorded, identity, spans };
    routings.routings.push(handler_routing);
    log.put_routings(routings.version, routings.routings).await.unwrap();
    for index in 0..shards {
        log.claim(ShardId { handler: name(handler), index }, Offset::START).await.unwrap();
    }
}

/// Gives the messages at these offsets up, each as `change` says; their numbers.
pub(crate) async fn bury(
    log: &MemoryLog,
    handler: &str,
    index: u16,
    offsets: &[u64],
    change: impl Fn(usize, &mut DeadLetter),
) -> Vec<u64> {
    let shard = ShardId { handler: name(handler), index };
    let messages = log.fetch(offsets.iter().copied().map(Offset).collect()).await.unwrap();
    let letters = messages.into_iter().enumerate().map(|(at, message)| {
        let message = message.unwrap();
        let (kind, error) = ("reject".into(), "no such user".into());
        let (shard, key, digest, time) = (shard.clone(), None, None, Timestamp(0));
        let deaths = Deaths::first(message.offset, time);
        let mut letter =
            DeadLetter { shard, message, key, attempts: 1, kind, error, digest, time, identity: None, deaths };
        change(at, &mut letter);
        letter
    });
    let letters: Vec<_> = letters.collect();
    let read = Offset(offsets.iter().copied().max().unwrap_or(0));
    commit(log, &shard, |commit| (commit.dead, commit.read) = (letters, read)).await;
    let filter = DeadFilter { handler: Some(shard.handler), shard: Some(index), ..DeadFilter::default() };
    let mut newest = log.dead(DeadQuery::newest(filter, offsets.len())).await.unwrap();
    newest.reverse();
    newest.iter().map(|letter| letter.number).collect()
}

/// What operators asked of a shard, as if it had applied it.
pub(crate) async fn control(log: &MemoryLog, handler: &str, index: u16, control: Control) {
    let shard = ShardId { handler: name(handler), index };
    commit(log, &shard, |commit| commit.control = Some(control)).await;
}

pub(crate) async fn commit(log: &MemoryLog, shard: &ShardId, change: impl FnOnce(&mut ShardCommit)) {
    let claim = log.claim(shard.clone(), Offset::START).await.unwrap();
    let mut commit = ShardCommit {
        shard: shard.clone(),
        term: claim.term,
        number: claim.record.commit_number + 1,
        read: claim.record.read,
        open_put: vec![],
        open_drop: vec![],
        marks: vec![],
        marks_since: Timestamp(0),
        marks_max: 10,
        state: vec![],
        outputs: vec![],
        delayed_put: vec![],
        delayed_drop: vec![],
        dead: vec![],
        dead_window: Duration::from_secs(60),
        dead_max: u64::MAX,
        dead_drop: vec![],
        controlled: claim.record.controlled,
        control: None,
    };
    change(&mut commit);
    commit.read = commit.read.max(claim.record.read);
    log.commit(commit).await.unwrap();
}
