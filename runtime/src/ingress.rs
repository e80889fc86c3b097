//! Takes up what plain clients of the log's engine sent: each message is in the log exactly once.
//!
//! One task of one host reads the [`Source`] in its order and commits messages and the new position together, under a shard
//! of its own, `_intake/0`. Whoever claims that shard goes on from the position in its state, and fences whoever had it:
//! what is delivered twice, or to two hosts, is committed once. Where a placement decides who that is, whoever is fenced leaves
//! it to the placement, as a shard does.
//!
//! What no message of the log can be does not stop the others and is not lost: a word of it is committed in its place, on a
//! topic of the host's own, and the host's own handler [`Refusing`] gives that up, so it is a dead letter of `_ingress`.

use crate::actor::{Holding, Loss};
use crate::chance;
use crate::commit::{CommitError, Record, ShardCommit, Term};
use crate::committer::Committer;
use crate::effects::{Effects, StateWrite};
use crate::handler::{DeadBox, Digest, HandlerName, OnFailure, Policy, ShardId};
use crate::invoke::{Call, Failure, Invoke};
use crate::log::edges::{Arrived, Position, Source, Unfit};
use crate::log::{Log, LogError};
use crate::message::{Key, NewMessage, Offset};
use crate::routing::reserved;
use crate::telemetry::IngressMetrics;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bounds of the jittered waits after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often the source is told what it may let go of.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// The key and the entry of the state that the position is.
const KEY: &str = "source";
const ENTRY: &str = "position";

/// Takes a source up.
pub struct Intake {
    source: Arc<dyn Source>,
    metrics: IngressMetrics,
    /// Why it does not go on now.
    trouble: watch::Sender<Option<String>>,
}

/// Why it begins again, or leaves.
#[derive(Debug, thiserror::Error)]
enum Again {
    #[error("{0}")]
    Claim(LogError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("{0}")]
    Source(LogError),
    #[error("the state of the position cannot be read")]
    Unreadable,
}

impl Again {
    /// What it says about whose the shard is.
    fn loss(&self) -> Option<Loss> {
        match self {
            Self::Commit(CommitError::Fenced { .. }) => Some(Loss::Fenced),
            Self::Claim(_) | Self::Commit(CommitError::Unknown { .. } | CommitError::Unavailable { .. }) => {
                Some(Loss::Doubt)
            }
            Self::Commit(CommitError::Refused { .. }) | Self::Source(_) | Self::Unreadable => None,
        }
    }
}

impl Intake {
    pub fn new(source: Arc<dyn Source>, metrics: IngressMetrics) -> Self {
        Self { source, metrics, trouble: watch::Sender::new(None) }
    }

    /// Why it does not go on now, if so.
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Works until `stop`, whatever happens; what it has taken up by then is committed. Where a placement decides who works, it
    /// ends when another host may have the shard, and says why.
    pub async fn run(
        self: Arc<Self>,
        log: Arc<dyn Log>,
        committer: Committer,
        holding: Holding,
        stop: CancellationToken,
    ) -> Option<Loss> {
        let loss = self.take_up_until(&*log, &committer, &holding, &stop).await;
        // It is another host's business now, if it is anybody's.
        self.trouble.send_replace(None);
        loss
    }

    async fn take_up_until(
        &self,
        log: &dyn Log,
        committer: &Committer,
        holding: &Holding,
        stop: &CancellationToken,
    ) -> Option<Loss> {
        let mut pause = PAUSE_MIN;
        // What the source does says nothing about whose the shard is: it is not claimed again for that.
        let mut writer = None;
        while !stop.is_cancelled() {
            let mut progressed = false;
            let work = self.work(log, committer, &mut writer, stop, &mut progressed);
            let done = AssertUnwindSafe(work).catch_unwind().await;
            if !matches!(done, Ok(Err(Again::Source(_)))) {
                writer = None;
            }
            let (reason, loss) = match done {
                Ok(Ok(())) => return None,
                Ok(Err(error)) => (error.to_string(), error.loss().filter(|_| holding.is_placed())),
                Err(_) => ("it panicked (a bug: please report it)".to_owned(), None),
            };
            let name = self.source.name();
            if loss == Some(Loss::Fenced) {
                tracing::warn!("leaving what plain clients sent to {name} to whoever takes it up now: {reason}");
                return loss;
            }
            self.tell(Some(format!("what plain clients sent to {name} is not taken up now: {reason}")));
            self.metrics.lost(self.source.lost());
            if progressed {
                pause = PAUSE_MIN;
            }
            // Safe to cancel: a sleep holds nothing.
            let _ = tokio::time::timeout(pause.mul_f64(0.5 + chance::fraction() / 2.0), stop.cancelled()).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if loss.is_some() {
                return loss;
            }
        }
        None
    }

    fn tell(&self, trouble: Option<String>) {
        let changed = self.trouble.send_if_modified(|told| {
            let changed = *told != trouble;
            told.clone_from(&trouble);
            changed
        });
        match trouble {
            Some(trouble) if changed => tracing::warn!("{trouble}: trying again"),
            None if changed => tracing::info!("what plain clients sent to {} is taken up again", self.source.name()),
            _ => {}
        }
    }

    async fn work(
        &self,
        log: &dyn Log,
        committer: &Committer,
        writer: &mut Option<Writer>,
        stop: &CancellationToken,
        progressed: &mut bool,
    ) -> Result<(), Again> {
        let writer = match writer {
            Some(writer) => writer,
            None => writer.insert(Writer::claim(log).await?),
        };
        let mut arrivals = self.source.read_after(writer.taken.clone()).await.map_err(Again::Source)?;
        self.tell(None);
        let mut tell = tokio::time::interval(TELL_EVERY);
        tell.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let arrived = tokio::select! {
                biased;
                // Safe to cancel, all: what was not taken up stays in the source.
                () = stop.cancelled() => return Ok(()),
                arrived = arrivals.next() => arrived.map_err(Again::Source)?,
                _ = tell.tick() => {
                    self.tell_taken(writer.taken.as_ref()).await;
                    self.metrics.lost(self.source.lost());
                    continue;
                }
            };
            let waiting = arrived.waiting;
            let (fit, unfit) = self.take(committer, writer, arrived).await?;
            *progressed = true;
            self.metrics.took(fit, unfit, waiting);
            self.metrics.lost(self.source.lost());
        }
    }

    /// Commits what arrived; how much of it became messages, and how much did not.
    async fn take(
        &self,
        committer: &Committer,
        writer: &mut Writer,
        arrived: Arrived,
    ) -> Result<(u64, u64), CommitError> {
        let Arrived { messages, upto, .. } = arrived;
        let (mut fit, mut unfit) = (0, 0);
        let outputs = messages.into_iter().map(|message| match message {
            Ok(message) => {
                fit += 1;
                message
            }
            Err(what) => {
                unfit += 1;
                word_of(&what, &self.source.name())
            }
        });
        let outputs = outputs.collect();
        committer.commit(writer.commit(outputs, &upto)).await?;
        writer.record.commit_number += 1;
        writer.taken = Some(upto);
        Ok((fit, unfit))
    }

    async fn tell_taken(&self, taken: Option<&Position>) {
        let Some(taken) = taken else { return };
        if let Err(error) = self.source.taken(taken.clone()).await {
            tracing::warn!(%error, "{} does not let go of what was taken up: trying again", self.source.name());
        }
    }
}

/// Writes the commits of the claimed shard.
struct Writer {
    shard: ShardId,
    key: Key,
    term: Term,
    record: Record,
    /// Up to here everything is committed.
    taken: Option<Position>,
}

impl Writer {
    async fn claim(log: &dyn Log) -> Result<Self, Again> {
        let shard = ShardId { handler: HandlerName::intake(), index: 0 };
        let key = Key::parse(KEY).ok().flatten().ok_or(Again::Unreadable)?;
        let claim = log.claim(shard.clone(), Offset::START).await.map_err(Again::Claim)?;
        let state = log.load(shard.clone(), vec![key.clone()]).await.map_err(Again::Claim)?;
        let taken = match state.first().and_then(|entries| entries.get(ENTRY)) {
            None => None,
            Some(bytes) => Some(Position(String::from_utf8(bytes.to_vec()).map_err(|_| Again::Unreadable)?)),
        };
        Ok(Self { shard, key, term: claim.term, record: claim.record, taken })
    }

    /// Messages and the position after them: all of it, or nothing.
    fn commit(&self, outputs: Vec<NewMessage>, upto: &Position) -> ShardCommit {
        let position = StateWrite { entry: ENTRY.into(), value: Some(upto.0.clone().into()) };
        ShardCommit {
            shard: self.shard.clone(),
            term: self.term,
            number: self.record.commit_number + 1,
            read: self.record.read,
            open_put: vec![],
            open_drop: vec![],
            marks: vec![],
            marks_since: crate::clock::Timestamp(0),
            marks_max: 0,
            state: vec![crate::commit::KeyWrites { key: self.key.clone(), writes: vec![position] }],
            outputs,
            delayed_put: vec![],
            delayed_drop: vec![],
            dead: vec![],
            dead_window: Duration::ZERO,
            dead_max: 0,
            dead_drop: vec![],
            controlled: self.record.controlled,
            control: None,
        }
    }
}

/// What a dead letter of `_ingress` says: the message itself stays in the source for a while.
#[derive(Serialize, Deserialize)]
struct Word {
    source: String,
    subject: String,
    /// Shows it, if anything does.
    see: String,
    bytes: usize,
    reason: String,
}

fn word_of(unfit: &Unfit, source: &str) -> NewMessage {
    let Unfit { place, subject, bytes, reason } = unfit.clone();
    let word = Word { source: source.to_owned(), subject, see: place, bytes, reason };
    NewMessage::new(reserved::unfit_topic(), serde_json::to_vec(&word).unwrap_or_default())
}

/// The host's own handler that gives up what no message can be.
pub struct Refusing;

impl Refusing {
    /// How its messages are treated.
    pub fn policy() -> Policy {
        Policy {
            dedup: None,
            breaker: None,
            on_failure: OnFailure::Skip,
            dead: DeadBox::default(),
            ..Policy::default()
        }
    }
}

impl Invoke for Refusing {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let reason = match serde_json::from_slice::<Word>(&call.message.body) {
            Ok(Word { subject, see, reason, .. }) => {
                let shown = match see.as_str() {
                    "" => "it is kept nowhere".to_owned(),
                    see => format!("{see} shows it for a while"),
                };
                format!("a plain client sent to `{subject}` what no message can be: {reason}; {shown}")
            }
            Err(_) => "this says nothing about a plain client".to_owned(),
        };
        Box::pin(std::future::ready(Err(Failure::Reject { reason })))
    }

    fn uses_state(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

#[cfg(test)]
mod tests;
