//! A model of a server that several hosts share, with what such servers do wrong: answers are late, overtake each other or are
//! lost, what was sent arrives after its sender gave it up, a connection ends or goes silent, a server that has yet to catch up
//! answers with what was, and what is asked for is not to be had now.
//!
//! It keeps what an engine must keep: one order of entries, the fence, and nothing that was acknowledged is lost.

use super::pass;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sluicebox::clock::{self, Timestamp};
use sluicebox::handler::{Digest, HandlerName};
use sluicebox::log::replicated::engine::{
    Engine, Following, Holds, Page, PublishError, Room, Stored, Subject, Value, ValueSize,
};
use sluicebox::log::{Guarantees, LogError, Members, StateQuery};
use sluicebox::message::Key;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Most entries of an answer.
const TOGETHER_MAX: usize = 64;
/// So late may be what was sent, in ms: it is there before a handler is forgotten after it, since what is let go by then is
/// nothing that the next handler of the name has to read.
pub const LATE_MS: u64 = 2000;
/// Small, so that larger commits are in parts.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// An entry of a key's state.
type Name = (HandlerName, Key, Arc<str>);
/// The values it had, each with its place.
type Writes = Vec<(u64, Value)>;

/// What the server has.
#[derive(Default)]
struct Kept {
    /// By sequence.
    entries: BTreeMap<u64, Stored>,
    last: u64,
    /// The last entry on each subject.
    subjects: HashMap<String, u64>,
    /// Of the values of an entry the last one is right.
    values: BTreeMap<Name, Writes>,
    values_end: u64,
    letters: HashMap<(HandlerName, u64), Bytes>,
    snapshot: Option<(u64, Bytes)>,
    modules: HashMap<(HandlerName, Digest), (Bytes, Bytes)>,
    listeners: Vec<Members>,
    /// How often what goes wrong went wrong.
    counted: Counted,
}

/// How often the server did what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub stale: u64,
    pub answers_lost: u64,
    pub late: u64,
    pub followed_anew: u64,
    pub silent: u64,
    pub behind: u64,
    pub snapshots_read: u64,
    pub purged: u64,
}

impl std::ops::AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        let Self { stale, answers_lost, late, followed_anew, silent, behind, snapshots_read, purged } = other;
        self.stale += stale;
        self.answers_lost += answers_lost;
        self.late += late;
        self.followed_anew += followed_anew;
        self.silent += silent;
        self.behind += behind;
        self.snapshots_read += snapshots_read;
        self.purged += purged;
    }
}

/// One server.
pub struct Server {
    kept: Mutex<Kept>,
    random: Mutex<StdRng>,
    faulty: AtomicBool,
    last: watch::Sender<u64>,
}

impl Server {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            faulty: AtomicBool::new(true),
            last: watch::Sender::new(0),
        })
    }

    /// It still takes its time, and does nothing wrong any more.
    pub fn mend(&self) {
        self.faulty.store(false, Ordering::Relaxed);
    }

    pub fn counted(&self) -> Counted {
        self.kept().counted
    }

    /// The sequence of the last entry.
    pub fn last(&self) -> u64 {
        self.kept().last
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    fn write(&self, subject: &str, holds: Holds, payload: Bytes, expected: Option<u64>) -> Result<u64, PublishError> {
        let mut kept = self.kept();
        let last_there = kept.subjects.get(subject).copied().unwrap_or(0);
        if expected.is_some_and(|expected| expected != last_there) {
            kept.counted.stale += 1;
            return Err(PublishError::Stale);
        }
        kept.last += 1;
        let sequence = kept.last;
        kept.subjects.insert(subject.to_owned(), sequence);
        kept.entries.insert(sequence, Stored { sequence, holds, time: clock::steady(), payload });
        drop(kept);
        self.last.send_replace(sequence);
        Ok(sequence)
    }
}

/// What a host has of the server.
#[derive(Clone)]
pub struct Connection {
    server: Arc<Server>,
    /// Whether anything goes wrong on it, or takes any time.
    perfect: bool,
    /// Up to where whoever follows has applied entries.
    pub applied: Arc<watch::Sender<u64>>,
}

impl Connection {
    pub fn new(server: &Arc<Server>) -> Self {
        Self { server: server.clone(), perfect: false, applied: Arc::new(watch::Sender::new(0)) }
    }

    /// One on which nothing goes wrong, for whoever only looks.
    pub fn perfect(server: &Arc<Server>) -> Self {
        Self { perfect: true, ..Self::new(server) }
    }

    fn chance(&self, percent: f64) -> bool {
        let is_faulty = !self.perfect && self.server.faulty.load(Ordering::Relaxed);
        is_faulty && self.server.random.lock().unwrap().random_bool(percent / 100.0)
    }

    fn below(&self, end: u64) -> u64 {
        self.server.random.lock().unwrap().random_range(0..end)
    }

    async fn takes_time(&self) {
        if self.perfect {
            return;
        }
        let millis = match self.below(100) {
            0..40 => 0,
            40..97 => self.below(10),
            _ => self.below(500),
        };
        match millis {
            0 => tokio::task::yield_now().await,
            millis => pass(Duration::from_millis(millis)).await,
        }
    }

    /// What only looks, or may be done again.
    async fn ask<T>(&self, ask: impl FnOnce(&mut Kept) -> T) -> Result<T, LogError> {
        self.takes_time().await;
        if self.chance(2.0) {
            return Err(unavailable());
        }
        let answer = ask(&mut self.server.kept());
        self.takes_time().await;
        if self.chance(1.0) {
            return Err(LogError::Unknown { reason: "the connection was lost".into() });
        }
        Ok(answer)
    }
}

fn unavailable() -> LogError {
    LogError::Unavailable { reason: "it does not answer".into() }
}

fn subject_text(subject: Subject<'_>) -> String {
    match subject {
        Subject::Messages => "messages".into(),
        Subject::Control => "control".into(),
        Subject::Part => "part".into(),
        Subject::Journal(shard) => shard.to_string(),
    }
}

fn entries(kept: &Kept, from: u64, upto: u64) -> Vec<Stored> {
    kept.entries.range(from..=upto).take(TOGETHER_MAX).map(|(_, entry)| entry.clone()).collect()
}

impl Engine for Connection {
    type Following = Follow;
    /// Longer than anything that was sent may take.
    const UNKNOWN: Duration = Duration::from_secs(5);

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            kind: "model",
            survives_process_death: true,
            survives_power_loss: false,
            times_never_fall: true,
            several_hosts: true,
            lag_is_exact: false,
            measures_bytes: false,
            summary: "a model of a server".into(),
        }
    }

    fn reachable(&self) -> Result<(), LogError> {
        if self.chance(1.0) { Err(unavailable()) } else { Ok(()) }
    }

    fn payload_bytes_max(&self) -> usize {
        PAYLOAD_BYTES_MAX
    }

    async fn publish(&self, subject: Subject<'_>, payload: Bytes, expected: Option<u64>) -> Result<u64, PublishError> {
        let (this, text) = (self.clone(), subject_text(subject));
        let holds = if subject == Subject::Part { Holds::Part } else { Holds::Entry };
        // What was sent arrives, also when whoever waits for the answer is gone.
        let sent = tokio::spawn(async move {
            this.takes_time().await;
            if this.chance(2.0) {
                return Err(PublishError::Unavailable("it does not answer".into()));
            }
            if this.chance(1.0) {
                return Err(PublishError::Unknown("the connection was lost".into()));
            }
            if this.chance(2.0) {
                // Sent, and on its way for longer than its sender waits for the answer.
                let late = this.clone();
                this.server.kept().counted.late += 1;
                tokio::spawn(async move {
                    pass(Duration::from_millis(late.below(LATE_MS))).await;
                    let _ = late.server.write(&text, holds, payload, expected);
                });
                return Err(PublishError::Unknown("the connection was lost".into()));
            }
            let written = this.server.write(&text, holds, payload, expected);
            this.takes_time().await;
            if this.chance(2.0) {
                this.server.kept().counted.answers_lost += 1;
                return Err(PublishError::Unknown("the connection was lost".into()));
            }
            written
        });
        sent.await.unwrap_or_else(|error| Err(PublishError::Unknown(error.to_string())))
    }

    async fn follow(&self, from: u64) -> Result<Follow, LogError> {
        self.takes_time().await;
        if self.chance(5.0) {
            return Err(unavailable());
        }
        self.server.kept().counted.followed_anew += 1;
        Ok(Follow { connection: self.clone(), last: self.server.last.subscribe(), next: from, is_silent: false })
    }

    async fn read(&self, from: u64, last: u64) -> Result<Page, LogError> {
        self.ask(|kept| {
            let entries = entries(kept, from, last);
            let next = match entries.last() {
                Some(end) if entries.len() == TOGETHER_MAX => end.sequence + 1,
                _ => last + 1,
            };
            Page { entries, next }
        })
        .await
    }

    async fn get(&self, sequence: u64) -> Result<Option<Stored>, LogError> {
        self.ask(|kept| kept.entries.get(&sequence).cloned()).await
    }

    async fn first_since(&self, time: Timestamp) -> Result<Option<u64>, LogError> {
        self.ask(|kept| kept.entries.values().find(|entry| entry.time >= time).map(|entry| entry.sequence)).await
    }

    async fn ends(&self) -> Result<(u64, u64), LogError> {
        let behind = if self.chance(5.0) { self.below(5) } else { 0 };
        self.ask(|kept| {
            let first = kept.entries.keys().next().copied().unwrap_or(kept.last + 1);
            kept.counted.behind += u64::from(behind > 0);
            (first, kept.last.saturating_sub(behind).max(first.saturating_sub(1)))
        })
        .await
    }

    async fn time(&self) -> Result<Timestamp, LogError> {
        self.ask(|_| clock::steady()).await
    }

    async fn room(&self) -> Result<Option<Room>, LogError> {
        self.ask(|_| None).await
    }

    async fn purge_before(&self, sequence: u64) -> Result<(), LogError> {
        self.ask(|kept| {
            let left = kept.entries.split_off(&sequence);
            kept.counted.purged += kept.entries.len() as u64;
            kept.entries = left;
        })
        .await
    }

    async fn values(&self, handler: &HandlerName, keys: &[Key], place: u64) -> Result<Vec<Value>, LogError> {
        // Any server that has what was there at `place` may answer.
        let from = self.chance(30.0);
        let random = self.below(u64::MAX);
        self.ask(|kept| {
            let end = kept.values_end;
            let seen = if from && end > place { place + random % (end - place + 1) } else { end };
            let is_asked = |(of, key, _): &&Name| of == handler && keys.contains(key);
            let asked = kept.values.iter().filter(|(name, _)| is_asked(name));
            asked
                .filter_map(|(_, writes)| writes.iter().rev().find(|(at, _)| *at <= seen))
                .map(|(_, value)| value.clone())
                .collect()
        })
        .await
    }

    async fn write_values(&self, values: &[(HandlerName, Value)], _in_hand_since: Duration) -> Result<u64, LogError> {
        for (handler, value) in values {
            // One after the other: whoever fails in between wrote a part.
            self.ask(|kept| {
                let name = (handler.clone(), value.key.clone(), value.entry.clone());
                let newest = kept.values.get(&name).and_then(|writes| writes.last());
                if newest.is_none_or(|(_, there)| there.version < value.version) {
                    kept.values_end += 1;
                    let at = kept.values_end;
                    kept.values.entry(name).or_default().push((at, value.clone()));
                }
            })
            .await?;
        }
        Ok(self.server.kept().values_end)
    }

    async fn values_written(&self, _version: u64) -> Result<(), LogError> {
        self.ask(|_| ()).await
    }

    async fn value_sizes(
        &self,
        query: &StateQuery,
        _keys_max: usize,
        take: &mut (dyn FnMut(ValueSize) + Send),
    ) -> Result<(), LogError> {
        let sizes = self.ask(|kept| {
            let of_handler = kept.values.iter().filter(|((of, ..), _)| *of == query.handler);
            let size = |((_, key, entry), writes): (&Name, &Writes)| {
                let (_, Value { version, value, .. }) = writes.last()?;
                let bytes = value.as_ref().map(|value| value.len() as u64);
                Some(ValueSize { version: *version, key: key.clone(), entry: entry.clone(), bytes })
            };
            of_handler.filter_map(size).collect::<Vec<_>>()
        });
        sizes.await?.into_iter().for_each(take);
        Ok(())
    }

    async fn values_end(&self) -> Result<u64, LogError> {
        self.ask(|kept| kept.values_end).await
    }

    async fn purge_values(&self, handler: &HandlerName, place: u64, version: u64) -> Result<(), LogError> {
        self.ask(|kept| {
            let goes = |of: &HandlerName, writes: &[(u64, Value)]| {
                let is_older = |(at, value): &(u64, Value)| *at <= place && value.version < version;
                of == handler && writes.last().is_some_and(is_older)
            };
            kept.values.retain(|(of, ..), writes| !goes(of, writes));
        })
        .await
    }

    async fn put_letter(&self, handler: &HandlerName, number: u64, letter: Bytes) -> Result<(), LogError> {
        self.ask(|kept| {
            kept.letters.entry((handler.clone(), number)).or_insert(letter);
        })
        .await
    }

    async fn letter(&self, handler: &HandlerName, number: u64) -> Result<Option<Bytes>, LogError> {
        self.ask(|kept| kept.letters.get(&(handler.clone(), number)).cloned()).await
    }

    async fn letters(&self) -> Result<HashSet<(HandlerName, u64)>, LogError> {
        self.ask(|kept| kept.letters.keys().cloned().collect()).await
    }

    async fn drop_letter(&self, handler: &HandlerName, number: u64) -> Result<(), LogError> {
        self.ask(|kept| kept.letters.remove(&(handler.clone(), number))).await.map(drop)
    }

    async fn put_snapshot(&self, sequence: u64, snapshot: Bytes) -> Result<u64, LogError> {
        self.ask(|kept| {
            let newest = kept.snapshot.as_ref().map_or(0, |(sequence, _)| *sequence);
            if newest < sequence {
                kept.snapshot = Some((sequence, snapshot));
            }
            newest.max(sequence)
        })
        .await
    }

    async fn newest_snapshot(&self) -> Result<Option<Bytes>, LogError> {
        self.ask(|kept| {
            let snapshot = kept.snapshot.as_ref().map(|(_, snapshot)| snapshot.clone());
            kept.counted.snapshots_read += u64::from(snapshot.is_some());
            snapshot
        })
        .await
    }

    async fn put_module(
        &self,
        handler: &HandlerName,
        digest: Digest,
        said: Bytes,
        module: Bytes,
    ) -> Result<(), LogError> {
        self.ask(|kept| kept.modules.insert((handler.clone(), digest), (said, module))).await.map(drop)
    }

    async fn module(&self, handler: &HandlerName, digest: Digest) -> Result<Option<Bytes>, LogError> {
        self.ask(|kept| kept.modules.get(&(handler.clone(), digest)).map(|(_, module)| module.clone())).await
    }

    async fn modules(&self) -> Result<Vec<(HandlerName, Digest, Bytes)>, LogError> {
        let of = |((handler, digest), (said, _)): (&(HandlerName, Digest), &(Bytes, Bytes))| {
            (handler.clone(), *digest, said.clone())
        };
        self.ask(|kept| kept.modules.iter().map(of).collect()).await
    }

    async fn drop_module(&self, handler: &HandlerName, digest: Digest) -> Result<(), LogError> {
        self.ask(|kept| kept.modules.remove(&(handler.clone(), digest))).await.map(drop)
    }

    async fn beat(&self, beat: Bytes) -> Result<(), LogError> {
        let listeners = self.server.kept().listeners.clone();
        for members in listeners {
            let _ = members.hear_encoded(beat.clone());
        }
        Ok(())
    }

    async fn listen(&self, members: Members) -> Result<BoxFuture<'static, ()>, LogError> {
        self.ask(|kept| kept.listeners.push(members)).await?;
        Ok(Box::pin(std::future::pending()))
    }
}

pub struct Follow {
    connection: Connection,
    last: watch::Receiver<u64>,
    next: u64,
    /// The connection is gone and nobody says so.
    is_silent: bool,
}

impl Following for Follow {
    async fn next(&mut self) -> Result<Option<Vec<Stored>>, LogError> {
        let connection = self.connection.clone();
        // Whoever asks for the next has applied those before.
        connection.applied.send_replace(self.next - 1);
        if !self.is_silent && connection.chance(0.5) {
            self.is_silent = true;
            connection.server.kept().counted.silent += 1;
        }
        if self.is_silent {
            return std::future::pending().await;
        }
        let next = self.next;
        if self.last.wait_for(|last| *last >= next).await.is_err() {
            return Ok(None);
        }
        connection.takes_time().await;
        if connection.chance(1.0) {
            return Ok(None);
        }
        if connection.chance(1.0) {
            return Err(unavailable());
        }
        let mut found = entries(&connection.server.kept(), self.next, u64::MAX);
        if connection.chance(30.0) {
            found.truncate(1);
        }
        match found.last() {
            Some(last) => self.next = last.sequence + 1,
            // They are gone already: a host that was away for too long.
            None => self.next = connection.server.last() + 1,
        }
        if found.is_empty() { Ok(None) } else { Ok(Some(found)) }
    }
}
