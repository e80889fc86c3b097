//! Reads from the log: what the shard needs, what operators said. A read that fails is tried again.

use super::{Actor, Parts};
use crate::commit::{CommitError, DeadQuery, NumberedDeadLetter};
use crate::effects::Entries;
use crate::log::{Batch, LogError, ReadRequest};
use crate::message::{Key, Offset};
use crate::routing::{Routed, Router, reserved};
use crate::shard::{Needs, Scan};
use crate::topic::Pattern;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// One read of a scan.
const SCAN_MESSAGES_MAX: usize = 1024;
/// Commands read at a time, and bytes of them.
const COMMANDS_MAX: usize = 64;
const COMMANDS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Wait before a read is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// An answer to a need.
pub(super) enum Answer {
    Loaded(Vec<Key>, Result<Vec<Entries>, LogError>),
    Fetched(Vec<Offset>, Result<Vec<(Offset, Option<Routed>)>, LogError>),
    Scanned(Scan, Result<(Vec<Routed>, Offset), LogError>),
    Dead(DeadQuery, Result<Vec<NumberedDeadLetter>, LogError>),
    /// Messages of the control topic, and how far they reach.
    Commands(Result<Batch, LogError>),
}

impl Actor<'_> {
    pub(super) fn read_needs(&mut self) {
        let Needs { load, fetch, scan, dead } = self.shard.take_needs();
        if !load.is_empty() {
            self.reads.push(self.load(load, Duration::ZERO));
        }
        if !fetch.is_empty() {
            self.reads.push(self.fetch(fetch, Duration::ZERO));
        }
        if let Some(scan) = scan {
            self.reads.push(self.scan(scan, Duration::ZERO));
        }
        if let Some(query) = dead {
            self.reads.push(self.dead(query, Duration::ZERO));
        }
    }

    pub(super) fn answer(&mut self, answer: Answer) -> Result<(), CommitError> {
        let failed = match answer {
            Answer::Loaded(keys, Ok(states)) => {
                self.shard.loaded(keys.into_iter().zip(states).collect());
                return Ok(());
            }
            Answer::Fetched(_, Ok(messages)) => {
                self.shard.fetched(messages);
                return Ok(());
            }
            Answer::Scanned(scan, Ok((messages, upto))) => {
                self.shard.scanned(scan, messages, upto);
                return Ok(());
            }
            Answer::Dead(_, Ok(letters)) => {
                self.shard.dead_found(letters);
                return Ok(());
            }
            Answer::Commands(Ok(batch)) => {
                self.take_commands(batch);
                return Ok(());
            }
            Answer::Loaded(_, Err(LogError::Fenced { shard })) => return Err(CommitError::Fenced { shard }),
            Answer::Loaded(keys, Err(error)) => (error, self.load(keys, PAUSE)),
            Answer::Fetched(offsets, Err(error)) => (error, self.fetch(offsets, PAUSE)),
            Answer::Scanned(scan, Err(error)) => (error, self.scan(scan, PAUSE)),
            Answer::Dead(query, Err(error)) => (error, self.dead(query, PAUSE)),
            Answer::Commands(Err(error)) => {
                let (newest, known) = self.commands.newest();
                (error, self.read_commands(newest.max(known), PAUSE))
            }
        };
        let (error, again) = failed;
        tracing::warn!(shard = %self.parts.id, %error, "failed to read from the log, trying again");
        self.reads.push(again);
        Ok(())
    }

    fn load(&self, keys: Vec<Key>, pause: Duration) -> BoxFuture<'static, Answer> {
        let (log, shard) = (self.parts.log.clone(), self.parts.id.clone());
        async move {
            rest(pause).await;
            let states = log.load(shard, keys.clone()).await;
            Answer::Loaded(keys, states)
        }
        .boxed()
    }

    fn fetch(&self, offsets: Vec<Offset>, pause: Duration) -> BoxFuture<'static, Answer> {
        let (log, routing) = (self.parts.log.clone(), self.routing.clone());
        async move {
            rest(pause).await;
            let messages = log.fetch(offsets.clone()).await.map(|messages| {
                let router = Router::new([&*routing]);
                let routed = messages.into_iter().map(|message| message.map(|message| router.message(&message).to(0)));
                offsets.iter().copied().zip(routed).collect()
            });
            Answer::Fetched(offsets, messages)
        }
        .boxed()
    }

    fn dead(&self, query: DeadQuery, pause: Duration) -> BoxFuture<'static, Answer> {
        let log = self.parts.log.clone();
        async move {
            rest(pause).await;
            let letters = log.dead(query.clone()).await;
            Answer::Dead(query, letters)
        }
        .boxed()
    }

    pub(super) fn read_commands(&self, upto: Offset, pause: Duration) -> BoxFuture<'static, Answer> {
        let (log, after) = (self.parts.log.clone(), self.shard.controlled());
        let pattern = Pattern::from(&reserved::control_topic(&self.parts.id.handler));
        async move {
            rest(pause).await;
            let (messages_max, bytes_max) = (COMMANDS_MAX, COMMANDS_BYTES_MAX);
            let request = ReadRequest { after, upto, patterns: vec![pattern], messages_max, bytes_max };
            Answer::Commands(log.read(request).await)
        }
        .boxed()
    }

    fn scan(&self, scan: Scan, pause: Duration) -> BoxFuture<'static, Answer> {
        let Parts { log, id, .. } = self.parts.clone();
        let routing = self.routing.clone();
        async move {
            rest(pause).await;
            let request = ReadRequest {
                after: scan.after,
                upto: scan.upto,
                patterns: routing.patterns_after(scan.after),
                messages_max: SCAN_MESSAGES_MAX,
                bytes_max: scan.bytes_max,
            };
            let batch = log.read(request).await.map(|batch| {
                let router = Router::new([&*routing]);
                let own = batch.messages.iter().filter(|message| routing.subscribes(message));
                let routed = own.map(|message| router.message(message).to(0));
                (routed.filter(|routed| routed.shard(routing.shards) == id.index).collect(), batch.upto)
            });
            Answer::Scanned(scan, batch)
        }
        .boxed()
    }
}

/// Waits before another try. The first try does not even ask the timer: its shortest sleep is a millisecond.
async fn rest(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}
