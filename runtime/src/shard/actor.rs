//! Drives one shard against the real log, reader, committer and sandbox.
//!
//! One task per shard; it ends when `stop` is cancelled: then it takes nothing new, lets runs finish, commits and
//! leaves. Any doubt about the record (a commit fenced, refused, or of unknown fate) ends the shard's memory: it claims
//! again and goes on from what the record says.

use super::{Bounds, Caution, Needs, Report, Scan, Setup, Shard};
use crate::clock;
use crate::commit::{CommitError, ShardCommit};
use crate::committer::Committer;
use crate::effects::{Effects, Entries};
use crate::handler::{Policy, ShardId};
use crate::invoke::{BoxFuture, Failure, Invoke};
use crate::log::{Log, LogError, ReadRequest};
use crate::message::{Key, Offset};
use crate::reader::{Delivery, Inbox, Reader};
use crate::routing::{Routed, Routing};
use crate::telemetry::{CommitMetrics, HandlerMetrics, Tally, events};
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Runs, and time, before other tasks get a turn.
const TURN_RUNS: usize = 64;
const TURN_TIME: Duration = Duration::from_micros(500);
/// One read of a scan.
const SCAN_MESSAGES_MAX: usize = 1024;
const SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Waits between tries to claim or to read.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a shard works with; shared by the shards of a handler but for `id`.
#[derive(Clone)]
pub struct Parts {
    pub id: ShardId,
    pub routing: Arc<Routing>,
    pub policy: Arc<Policy>,
    pub log: Arc<dyn Log>,
    pub reader: Reader,
    pub committer: Committer,
    pub invoke: Arc<dyn Invoke>,
    /// One permit per run, shared by the handler's shards.
    pub permits: Arc<Semaphore>,
    pub metrics: Arc<HandlerMetrics>,
    pub commit_metrics: CommitMetrics,
    pub stop: CancellationToken,
}

/// Runs the shard until `stop`.
pub async fn run(parts: Parts) {
    let mut caution = Caution::default();
    let mut pause = Pause::default();
    while !parts.stop.is_cancelled() {
        let claim = match parts.log.claim(parts.id.clone(), parts.routing.start()).await {
            Ok(claim) => claim,
            Err(error) => {
                tracing::warn!(shard = %parts.id, %error, "failed to claim the shard, trying again");
                pause.wait(&parts.stop).await;
                continue;
            }
        };
        let inbox = parts.reader.join(&parts.id, claim.record.read);
        let setup = Setup {
            id: parts.id.clone(),
            routing: parts.routing.clone(),
            policy: parts.policy.clone(),
            uses_state: parts.invoke.uses_state(),
            bounds: Bounds::default(),
        };
        let shard = Shard::new(setup, claim, std::mem::take(&mut caution));
        let mut actor = Actor::new(&parts, shard, inbox);
        match actor.work().await {
            Ok(()) => break,
            Err(error) => {
                caution = match &error {
                    CommitError::Refused { reason, .. } => actor.shard.caution_after_refusal(reason),
                    _ => actor.shard.caution().clone(),
                };
                tracing::warn!(shard = %parts.id, %error, "claiming the shard again");
                if actor.progressed {
                    pause = Pause::default();
                }
            }
        }
        drop(actor);
        pause.wait(&parts.stop).await;
    }
    parts.reader.leave(&parts.id);
}

/// Growing, jittered waits between failures.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Pause {
    async fn wait(&mut self, stop: &CancellationToken) {
        let wait = self.0.mul_f64(rand::random::<f64>());
        self.0 = (self.0 * 2).min(PAUSE_MAX);
        // Safe to cancel: a sleep holds nothing.
        let _ = tokio::time::timeout(wait, stop.cancelled()).await;
    }
}

/// Waits before another try. The first try does not even ask the timer: its shortest sleep is a millisecond.
async fn rest(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// A run that did not complete at once.
type Pending = BoxFuture<'static, Finished>;

struct Finished {
    lane: usize,
    result: Result<Effects, Failure>,
    took: Duration,
    // Held until the run ends.
    _permit: OwnedSemaphorePermit,
}

/// An answer to a need.
enum Answer {
    Loaded(Vec<Key>, Result<Vec<Entries>, LogError>),
    Fetched(Vec<Offset>, Result<Vec<(Offset, Option<Routed>)>, LogError>),
    Scanned(Scan, Result<(Vec<Routed>, Offset), LogError>),
}

struct Actor<'p> {
    parts: &'p Parts,
    shard: Shard,
    inbox: Inbox,
    /// Delivered and not yet taken up.
    queue: VecDeque<Routed>,
    queue_upto: Option<Offset>,
    runs: FuturesUnordered<Pending>,
    /// A permit that was waited for, to be used by the next run.
    spare: Option<OwnedSemaphorePermit>,
    reads: FuturesUnordered<BoxFuture<'static, Answer>>,
    commit: Option<BoxFuture<'static, Result<(), CommitError>>>,
    commit_began: Instant,
    tally: Tally,
    gauges: Gauges,
    /// Whether a commit succeeded since the claim.
    progressed: bool,
    inbox_ended: bool,
}

/// What this shard adds to the gauges that all shards of the handler share.
struct Gauges {
    metrics: Arc<HandlerMetrics>,
    open: i64,
    marks: i64,
}

impl Gauges {
    fn show(&mut self, open: usize, marks: usize) {
        let (open, marks) = (i64::try_from(open).unwrap_or(i64::MAX), i64::try_from(marks).unwrap_or(i64::MAX));
        self.metrics.open_heads.add(open - self.open);
        self.metrics.marks.add(marks - self.marks);
        (self.open, self.marks) = (open, marks);
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.show(0, 0);
    }
}

/// Why a turn of work ended.
#[derive(PartialEq)]
enum Turn {
    /// Nothing to start until something arrives.
    Idle,
    /// Its share of the time is used up.
    Spent,
    /// All permits of the handler are taken.
    NoPermit,
}

impl<'p> Actor<'p> {
    fn new(parts: &'p Parts, shard: Shard, inbox: Inbox) -> Self {
        Self {
            parts,
            shard,
            inbox,
            queue: VecDeque::new(),
            queue_upto: None,
            runs: FuturesUnordered::new(),
            spare: None,
            reads: FuturesUnordered::new(),
            commit: None,
            commit_began: clock::instant(),
            tally: Tally::new(parts.metrics.clone()),
            gauges: Gauges { metrics: parts.metrics.clone(), open: 0, marks: 0 },
            progressed: false,
            inbox_ended: false,
        }
    }

    /// Works until `stop` (`Ok`) or until the record has to be read again.
    async fn work(&mut self) -> Result<(), CommitError> {
        loop {
            let stopping = self.parts.stop.is_cancelled();
            // Room first: with the last commit answered, what is staged goes out before the next runs.
            self.send_commit();
            let turn = if stopping { Turn::Idle } else { self.start_runs().await };
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

    /// Takes messages up and starts runs, until nothing can be started or the turn is over.
    async fn start_runs(&mut self) -> Turn {
        let mut permit = self.spare.take();
        let begun = clock::instant();
        for _ in 0..TURN_RUNS {
            let now = clock::now();
            self.shard.wake(now);
            let held = match permit.take() {
                Some(permit) => permit,
                None => match self.parts.permits.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => return Turn::NoPermit,
                },
            };
            let Some(run) = self.next_run(now) else { return Turn::Idle };
            let started = clock::instant();
            let mut call = self.parts.invoke.call(run.call);
            // Most guests never wait: polled here they cost no task.
            let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
            match polled {
                Poll::Ready(result) => {
                    self.finish(run.lane, result, started.elapsed());
                    if begun.elapsed() > TURN_TIME {
                        return Turn::Spent;
                    }
                    permit = Some(held);
                }
                Poll::Pending => self.runs.push(
                    call.map(move |result| Finished { lane: run.lane, result, took: started.elapsed(), _permit: held })
                        .boxed(),
                ),
            }
        }
        Turn::Spent
    }

    /// The next run, taking up one message after the other until there is one.
    fn next_run(&mut self, now: clock::Timestamp) -> Option<super::Run> {
        loop {
            if let Some(run) = self.shard.next_run(now) {
                return Some(run);
            }
            if !self.shard.wants_messages() {
                return None;
            }
            match self.queue.pop_front() {
                Some(routed) => self.shard.offer(routed),
                None => {
                    if let Some(upto) = self.queue_upto.take() {
                        self.shard.reached(upto, false);
                    }
                    let delivery = self.inbox.try_next()?;
                    self.take(delivery);
                }
            }
        }
    }

    fn take(&mut self, delivery: Delivery) {
        // An empty delivery says only how far the log is: worth writing down.
        if delivery.messages.is_empty() && self.queue.is_empty() {
            self.shard.reached(delivery.upto, true);
        }
        self.queue.extend(delivery.messages);
        self.queue_upto = Some(delivery.upto);
    }

    fn finish(&mut self, lane: usize, result: Result<Effects, Failure>, took: Duration) {
        match &result {
            Ok(_) => self.parts.metrics.call_ok(took),
            Err(failure) => self.parts.metrics.call_failed(failure.kind(), took),
        }
        let random = if result.is_err() { rand::random::<f64>() } else { 0.0 };
        self.shard.finish(lane, result, self.parts.invoke.digest(), random, clock::now());
    }

    fn send_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let Some(commit) = self.shard.stage() else { return };
        self.commit_began = clock::instant();
        self.commit = Some(self.write(commit));
    }

    fn write(&self, commit: ShardCommit) -> BoxFuture<'static, Result<(), CommitError>> {
        let committer = self.parts.committer.clone();
        async move { committer.commit(commit).await }.boxed()
    }

    fn committed(&mut self, result: Result<(), CommitError>) -> Result<(), CommitError> {
        self.commit = None;
        events::commit_answered(&self.parts.commit_metrics, &result);
        result?;
        self.progressed = true;
        let report = self.shard.committed();
        self.count(report);
        Ok(())
    }

    /// Counts what a commit did, now that it is durable: an aborted run counts nothing.
    fn count(&mut self, report: Report) {
        let metrics = &self.parts.metrics;
        report.settled.iter().for_each(|(topic, settled)| self.tally.message(topic, *settled));
        report.counts.iter().for_each(|(name, by)| self.tally.guest(name, *by));
        self.tally.count();
        report.dead.iter().for_each(|letter| events::dead_letter(metrics, letter));
        if let Some(oldest) = report.oldest {
            metrics.settled_after(clock::now().since(oldest));
        }
        if report.marks_evicted > 0 {
            events::marks_evicted(metrics, report.marks_evicted);
        }
        self.parts.commit_metrics.observe(self.commit_began.elapsed(), report.settled.len());
        self.gauges.show(self.shard.open_len(), self.shard.marks_len());
    }

    /// What completed meanwhile, without waiting.
    fn take_what_is_there(&mut self) -> Result<(), CommitError> {
        if let Some(result) = self.commit.as_mut().and_then(|commit| commit.now_or_never()) {
            self.committed(result)?;
        }
        while let Some(Some(finished)) = self.runs.next().now_or_never() {
            self.finish(finished.lane, finished.result, finished.took);
        }
        while let Some(Some(answer)) = self.reads.next().now_or_never() {
            self.answer(answer)?;
        }
        Ok(())
    }

    async fn wait(&mut self, turn: Turn, stopping: bool) -> Result<(), CommitError> {
        let wants = !stopping && turn == Turn::Idle && self.queue.is_empty() && self.shard.wants_messages();
        let due = self.shard.next_due().filter(|_| !stopping && turn == Turn::Idle);
        let sleep = due.map(|due| due.since(clock::now()));
        tokio::select! {
            biased;
            // Safe to cancel: the future stays where it is and is polled again.
            result = async { self.commit.as_mut().expect("checked by the guard").await }, if self.commit.is_some() => {
                self.committed(result)?;
            }
            // Safe to cancel: `next` takes a run out only when it is done.
            Some(finished) = self.runs.next(), if !self.runs.is_empty() => {
                self.finish(finished.lane, finished.result, finished.took);
            }
            // Safe to cancel, likewise.
            Some(answer) = self.reads.next(), if !self.reads.is_empty() => self.answer(answer)?,
            // Safe to cancel: the inbox promises it.
            delivery = self.inbox.next(), if wants && !self.inbox_ended => match delivery {
                Some(delivery) => self.take(delivery),
                None => self.inbox_ended = true,
            },
            // Safe to cancel: a permit that was not taken goes to the next in the queue. It is kept for the next run: given
            // back it would go to the next shard that waits, and on and on, and none of them would run.
            permit = self.parts.permits.clone().acquire_owned(), if turn == Turn::NoPermit => self.spare = permit.ok(),
            // Safe to cancel: the due time is asked again.
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            // Safe to cancel: a token stays cancelled.
            () = self.parts.stop.cancelled(), if !stopping => {}
        }
        self.take_what_is_there()
    }

    fn read_needs(&mut self) {
        let Needs { load, fetch, scan } = self.shard.take_needs();
        if !load.is_empty() {
            self.reads.push(self.load(load, Duration::ZERO));
        }
        if !fetch.is_empty() {
            self.reads.push(self.fetch(fetch, Duration::ZERO));
        }
        if let Some(scan) = scan {
            self.reads.push(self.scan(scan, Duration::ZERO));
        }
    }

    fn answer(&mut self, answer: Answer) -> Result<(), CommitError> {
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
            Answer::Loaded(_, Err(LogError::Fenced { shard })) => return Err(CommitError::Fenced { shard }),
            Answer::Loaded(keys, Err(error)) => (error, self.load(keys, PAUSE_MAX)),
            Answer::Fetched(offsets, Err(error)) => (error, self.fetch(offsets, PAUSE_MAX)),
            Answer::Scanned(scan, Err(error)) => (error, self.scan(scan, PAUSE_MAX)),
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
        let (log, routing) = (self.parts.log.clone(), self.parts.routing.clone());
        async move {
            rest(pause).await;
            let messages = log.fetch(offsets.clone()).await.map(|messages| {
                let routed = messages.into_iter().map(|message| message.map(|message| routing.route(&message)));
                offsets.iter().copied().zip(routed).collect()
            });
            Answer::Fetched(offsets, messages)
        }
        .boxed()
    }

    fn scan(&self, scan: Scan, pause: Duration) -> BoxFuture<'static, Answer> {
        let Parts { log, routing, id, .. } = self.parts.clone();
        async move {
            rest(pause).await;
            let request = ReadRequest {
                after: scan.after,
                upto: scan.upto,
                patterns: routing.patterns_after(scan.after),
                messages_max: SCAN_MESSAGES_MAX,
                bytes_max: SCAN_BYTES_MAX,
            };
            let batch = log.read(request).await.map(|batch| {
                let own = batch.messages.iter().filter(|message| routing.subscribes(message));
                let routed = own.map(|message| routing.route(message));
                (routed.filter(|routed| routed.shard(routing.shards) == id.index).collect(), batch.upto)
            });
            Answer::Scanned(scan, batch)
        }
        .boxed()
    }
}
