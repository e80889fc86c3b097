//! Drives one shard against the real log, reader, committer and sandbox.
//!
//! One task per shard; it ends when `stop` is cancelled: then it takes nothing new, lets runs finish, commits and
//! leaves. Any doubt about the record (a commit fenced, refused, or of unknown fate) ends the shard's memory: it claims
//! again and goes on from what the record says.

use crate::clock;
use crate::commit::{CommitError, DeadQuery, NumberedDeadLetter, ShardCommit};
use crate::committer::Committer;
use crate::control::{Applied, Command, JOBS_MAX};
use crate::effects::{Effects, Entries};
use crate::follow::{Commands, LastPin, Pins};
use crate::gate::{Gate, Pass, Shut};
use crate::handler::{Digest, Policy, ShardId};
use crate::invoke::{Failure, Invoke};
use crate::log::{Batch, Log, LogError, ReadRequest};
use crate::message::{Key, Offset};
use crate::pipeline::breaker::Sample;
use crate::reader::{Delivery, Inbox, Reader};
use crate::routing::{Routed, Router, Routing, reserved};
use crate::shard::{Bounds, Caution, Needs, Report, Run, Scan, Setup, Shard};
use crate::telemetry::{CommitMetrics, HandlerMetrics, Tally, events};
use crate::topic::Pattern;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Runs, and time, before other tasks get a turn.
const TURN_RUNS: usize = 64;
const TURN_TIME: Duration = Duration::from_micros(500);
/// One read of a scan.
const SCAN_MESSAGES_MAX: usize = 1024;
const SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Commands read at a time.
const COMMANDS_MAX: usize = 64;
/// Waits between tries to claim or to read.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a shard works with; shared by the shards of a handler but for `id`.
#[derive(Clone)]
pub struct Parts {
    pub id: ShardId,
    pub routing: Arc<Routing>,
    pub log: Arc<dyn Log>,
    pub reader: Reader,
    pub committer: Committer,
    /// Changes while the shard runs, at a message boundary.
    pub version: watch::Receiver<Arc<Version>>,
    pub gate: Arc<Gate>,
    /// Whether everything that was delivered to it is settled and durable.
    pub idle: Arc<AtomicBool>,
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

/// Runs the shard until `stop`, whatever happens: a bug that makes it panic must not leave its messages lying.
pub async fn run(parts: Parts) {
    let mut pause = Pause::default();
    while AssertUnwindSafe(drive(parts.clone())).catch_unwind().await.is_err() {
        tracing::error!(shard = %parts.id, "the shard panicked (a bug: please report it), claiming it again");
        pause.wait(&parts.stop).await;
    }
}

async fn drive(parts: Parts) {
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
        let version = parts.version.borrow().clone();
        let setup = Setup {
            id: parts.id.clone(),
            routing: parts.routing.clone(),
            policy: version.policy.clone(),
            uses_state: version.invoke.uses_state(),
            digest: version.invoke.digest(),
            bounds: Bounds::default(),
        };
        let shard = Shard::new(setup, claim, std::mem::take(&mut caution));
        if shard.control().tripped {
            parts.gate.trip();
        }
        // On another host it may have heard of a command that was before this host's tail.
        let last = LastPin { offset: Offset(shard.control().pin_command), pin: shard.control().pin };
        if last.offset > Offset::START {
            parts.pins.note(&parts.id.handler, last);
        }
        let mut actor = Actor::new(&parts, shard, inbox, version);
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

/// A run that did not complete at once has a task of its own: a guest that computes for long must not hold the shard,
/// and two of them may use two cores.
type Pending = BoxFuture<'static, Finished>;

struct Finished {
    lane: usize,
    result: Result<Effects, Failure>,
    took: Duration,
    /// Of the version that ran.
    digest: Option<Digest>,
    pass: Pass,
    // Held until the run ends.
    _permit: OwnedSemaphorePermit,
}

/// An answer to a need.
enum Answer {
    Loaded(Vec<Key>, Result<Vec<Entries>, LogError>),
    Fetched(Vec<Offset>, Result<Vec<(Offset, Option<Routed>)>, LogError>),
    Scanned(Scan, Result<(Vec<Routed>, Offset), LogError>),
    Dead(DeadQuery, Result<Vec<NumberedDeadLetter>, LogError>),
    /// Messages of the control topic, and how far they reach.
    Commands(Result<Batch, LogError>),
}

struct Actor<'p> {
    parts: &'p Parts,
    shard: Shard,
    inbox: Inbox,
    version: Arc<Version>,
    versions: watch::Receiver<Arc<Version>>,
    gate_changes: watch::Receiver<()>,
    commands: Commands,
    /// A read of commands is under way.
    reads_commands: bool,
    /// Whether what operators said before the claim is in force: nothing runs before.
    heard: bool,
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

/// A run under way, as metrics show it, however it ends.
struct Running(Arc<HandlerMetrics>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.dec();
    }
}

/// What this shard adds to the gauges that all shards of the handler share.
struct Gauges {
    metrics: Arc<HandlerMetrics>,
    /// Open heads, marks, delayed and queued messages as shown.
    shown: [i64; 4],
}

impl Gauges {
    fn show(&mut self, now: [usize; 4]) {
        let HandlerMetrics { open_heads, marks, delayed, queued, .. } = &*self.metrics;
        for ((gauge, shown), now) in [open_heads, marks, delayed, queued].into_iter().zip(&mut self.shown).zip(now) {
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            if now != *shown {
                gauge.add(now - *shown);
                *shown = now;
            }
        }
    }
}

impl Drop for Gauges {
    fn drop(&mut self) {
        self.show([0; 4]);
    }
}

/// Why a turn of work ended.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// Nothing to start until something arrives.
    Idle,
    /// Its share of the time is used up.
    Spent,
    /// All permits of the handler are taken.
    NoPermit,
    /// The handler's gate is shut, until a time or a change.
    Shut(Shut),
}

impl<'p> Actor<'p> {
    fn new(parts: &'p Parts, shard: Shard, inbox: Inbox, version: Arc<Version>) -> Self {
        Self {
            parts,
            shard,
            inbox,
            version,
            versions: parts.version.clone(),
            gate_changes: parts.gate.changes(),
            commands: parts.commands.clone(),
            reads_commands: false,
            heard: false,
            queue: VecDeque::new(),
            queue_upto: None,
            runs: FuturesUnordered::new(),
            spare: None,
            reads: FuturesUnordered::new(),
            commit: None,
            commit_began: clock::instant(),
            tally: Tally::new(parts.metrics.clone()),
            gauges: Gauges { metrics: parts.metrics.clone(), shown: [0; 4] },
            progressed: false,
            inbox_ended: false,
        }
    }

    /// Works until `stop` (`Ok`) or until the record has to be read again.
    async fn work(&mut self) -> Result<(), CommitError> {
        loop {
            let stopping = self.parts.stop.is_cancelled();
            self.take_version();
            self.hear_commands();
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
        if !self.heard {
            return Turn::Idle;
        }
        self.gate_changes.mark_unchanged();
        if let Some(shut) = self.parts.gate.shut(clock::instant()) {
            // What is due goes on being due, and nothing is taken up.
            self.shard.wake(clock::steady());
            return Turn::Shut(shut);
        }
        let begun = clock::instant();
        for _ in 0..TURN_RUNS {
            let now = clock::steady();
            self.shard.wake(now);
            let held = match permit.take() {
                Some(permit) => permit,
                None => match self.version.permits.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => return Turn::NoPermit,
                },
            };
            let Some(run) = self.next_run(now) else { return Turn::Idle };
            let started = clock::instant();
            let pass = match self.parts.gate.pass(started) {
                Ok(pass) => pass,
                Err(shut) => {
                    self.shard.withdraw(run.lane);
                    return Turn::Shut(shut);
                }
            };
            let mut call = self.version.invoke.call(run.call);
            let digest = self.version.invoke.digest();
            // Most guests never wait: polled here they cost no task.
            let polled = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
            match polled {
                Poll::Ready(result) => {
                    self.finish(run.lane, result, started.elapsed(), digest, pass);
                    if begun.elapsed() > TURN_TIME {
                        return Turn::Spent;
                    }
                    permit = Some(held);
                }
                Poll::Pending => {
                    self.parts.metrics.running.inc();
                    let running = Running(self.parts.metrics.clone());
                    let task = AbortOnDropHandle::new(tokio::spawn(call));
                    let (lane, _permit) = (run.lane, held);
                    self.runs.push(Box::pin(async move {
                        let result = task.await.unwrap_or_else(|panic| {
                            Err(Failure::Host { reason: format!("the run ended badly: {panic}") })
                        });
                        drop(running);
                        Finished { lane, result, took: started.elapsed(), digest, pass, _permit }
                    }));
                    // A guest that computes used up its first tick here.
                    if begun.elapsed() > TURN_TIME {
                        return Turn::Spent;
                    }
                }
            }
        }
        Turn::Spent
    }

    /// The next run, taking up one message after the other until there is one.
    fn next_run(&mut self, now: clock::Timestamp) -> Option<Run> {
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

    fn finish(
        &mut self,
        lane: usize,
        result: Result<Effects, Failure>,
        took: Duration,
        digest: Option<Digest>,
        pass: Pass,
    ) {
        pass.report(Sample::of(&result));
        match &result {
            Ok(_) => self.parts.metrics.call_ok(took),
            Err(failure) => self.parts.metrics.call_failed(failure.kind(), took),
        }
        let random = if result.is_err() { rand::random::<f64>() } else { 0.0 };
        self.shard.finish(lane, result, digest, random, clock::steady());
    }

    fn finished(&mut self, finished: Finished) {
        let Finished { lane, result, took, digest, pass, _permit } = finished;
        self.finish(lane, result, took, digest, pass);
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

    /// Reads what operators asked for, if there is news.
    fn hear_commands(&mut self) {
        let (newest, known) = self.commands.newest();
        // With that many orders about dead letters under way the next one waits, and what was said after it.
        let full = self.shard.control().jobs.len() >= JOBS_MAX;
        self.heard |= newest <= self.shard.controlled() || full;
        if newest > self.shard.controlled() && !self.reads_commands && !full {
            self.reads_commands = true;
            self.reads.push(self.read_commands(known.max(newest), Duration::ZERO));
        }
    }

    fn take_commands(&mut self, batch: Batch) {
        self.reads_commands = false;
        let Parts { gate, metrics, id, pins, .. } = self.parts;
        for message in &batch.messages {
            let command = Command::read(message);
            let order = matches!(command, Ok(Command::RetryDead { .. } | Command::DropDead { .. }));
            if order && self.shard.control().jobs.len() >= JOBS_MAX {
                return;
            }
            let applied = match command.clone() {
                Ok(command) => self.shard.command(message.offset, command),
                Err(reason) => Applied::Refused(reason),
            };
            match (&applied, command) {
                (Applied::Done, Ok(Command::Trip)) => gate.trip(),
                (Applied::Done, Ok(Command::Reset)) => gate.reset(),
                (Applied::Done, Ok(command)) => {
                    if let Some(last) = LastPin::of(message.offset, &command) {
                        pins.note(&id.handler, last);
                    }
                }
                _ => {}
            }
            let refused = match &applied {
                Applied::Done => None,
                Applied::Refused(reason) => Some(reason.as_str()),
            };
            events::command(metrics, id, message.offset, refused);
        }
        self.shard.commands_reached(batch.upto);
    }

    fn send_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let (newest, known) = self.commands.newest();
        if newest <= self.shard.controlled() {
            self.shard.commands_reached(known);
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
        self.parts.gate.dead_changed(report.dead.len() as u64, report.dead_removed);
        if let Some(oldest) = report.oldest {
            metrics.settled_after(clock::now().since(oldest));
        }
        if report.marks_evicted > 0 {
            events::marks_evicted(metrics, report.marks_evicted);
        }
        self.parts.commit_metrics.observe(self.commit_began.elapsed(), report.settled.len());
        let shard = &self.shard;
        self.gauges.show([shard.open_len(), shard.marks_len(), shard.delayed_len(), self.queue.len()]);
    }

    /// What completed meanwhile, without waiting.
    fn take_what_is_there(&mut self) -> Result<(), CommitError> {
        if let Some(result) = self.commit.as_mut().and_then(|commit| commit.now_or_never()) {
            self.committed(result)?;
        }
        while let Some(Some(finished)) = self.runs.next().now_or_never() {
            self.finished(finished);
        }
        while let Some(Some(answer)) = self.reads.next().now_or_never() {
            self.answer(answer)?;
        }
        Ok(())
    }

    async fn wait(&mut self, turn: Turn, stopping: bool) -> Result<(), CommitError> {
        let in_hand = !self.queue.is_empty() || !self.shard.is_idle() || self.shard.open_len() > 0;
        self.parts.idle.store(!in_hand, Ordering::Release);
        let waited = self.wait_for_anything(turn, stopping).await;
        self.parts.idle.store(false, Ordering::Release);
        waited?;
        self.take_what_is_there()
    }

    async fn wait_for_anything(&mut self, turn: Turn, stopping: bool) -> Result<(), CommitError> {
        let wants = !stopping && turn == Turn::Idle && self.queue.is_empty() && self.shard.wants_messages();
        // Also without a permit: delayed messages need none. What is due is taken out at the top of the next turn.
        let due = self.shard.next_due().filter(|_| !stopping && turn != Turn::Spent);
        let sleep = due.map(|due| due.since(clock::steady()));
        let sleep = match turn {
            Turn::Shut(Shut::Until(until)) => {
                let until = until.saturating_duration_since(clock::instant());
                Some(sleep.map_or(until, |sleep| sleep.min(until)))
            }
            _ => sleep,
        };
        tokio::select! {
            biased;
            // Safe to cancel: the future stays where it is and is polled again.
            result = async { self.commit.as_mut().expect("checked by the guard").await }, if self.commit.is_some() => {
                self.committed(result)?;
            }
            // Safe to cancel: `next` takes a run out only when it is done.
            Some(finished) = self.runs.next(), if !self.runs.is_empty() => {
                self.finished(finished);
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
            permit = self.version.permits.clone().acquire_owned(), if turn == Turn::NoPermit => self.spare = permit.ok(),
            // Safe to cancel: the due time is asked again.
            () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
            // Safe to cancel, all three: what changed stays changed until it is looked at.
            _ = self.versions.changed(), if !stopping => self.versions.mark_changed(),
            () = self.commands.changed(), if !stopping => {}
            Ok(()) = self.gate_changes.changed(), if !stopping && matches!(turn, Turn::Shut(_)) => {}
            // Safe to cancel: a token stays cancelled.
            () = self.parts.stop.cancelled(), if !stopping => {}
        }
        Ok(())
    }

    fn read_needs(&mut self) {
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
            Answer::Dead(_, Ok(letters)) => {
                self.shard.dead_found(letters);
                return Ok(());
            }
            Answer::Commands(Ok(batch)) => {
                self.take_commands(batch);
                return Ok(());
            }
            Answer::Loaded(_, Err(LogError::Fenced { shard })) => return Err(CommitError::Fenced { shard }),
            Answer::Loaded(keys, Err(error)) => (error, self.load(keys, PAUSE_MAX)),
            Answer::Fetched(offsets, Err(error)) => (error, self.fetch(offsets, PAUSE_MAX)),
            Answer::Scanned(scan, Err(error)) => (error, self.scan(scan, PAUSE_MAX)),
            Answer::Dead(query, Err(error)) => (error, self.dead(query, PAUSE_MAX)),
            Answer::Commands(Err(error)) => {
                let (newest, known) = self.commands.newest();
                (error, self.read_commands(newest.max(known), PAUSE_MAX))
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

    fn dead(&self, query: DeadQuery, pause: Duration) -> BoxFuture<'static, Answer> {
        let log = self.parts.log.clone();
        async move {
            rest(pause).await;
            let letters = log.dead(query.clone()).await;
            Answer::Dead(query, letters)
        }
        .boxed()
    }

    fn read_commands(&self, upto: Offset, pause: Duration) -> BoxFuture<'static, Answer> {
        let (log, after) = (self.parts.log.clone(), self.shard.controlled());
        let pattern = Pattern::from(&reserved::control_topic(&self.parts.id.handler));
        async move {
            rest(pause).await;
            let (messages_max, bytes_max) = (COMMANDS_MAX, SCAN_BYTES_MAX);
            let request = ReadRequest { after, upto, patterns: vec![pattern], messages_max, bytes_max };
            Answer::Commands(log.read(request).await)
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
