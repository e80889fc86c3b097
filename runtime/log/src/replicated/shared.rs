//! What the parts of the log on one host share: the engine, what all entries add up to, and who waits for which entry.

use super::Bounds;
use super::engine::{Engine, PublishError, Subject};
use super::entry::{self, Entry, Nonce};
use super::replica::{Outcome, Replica};
use super::room::{Room, Writes};
use crate::error::LogError;
use crate::live::Live;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// How long an entry that was written may take to come back.
const BACK: Duration = Duration::from_secs(30);
/// Between two tries to ask an engine that does not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// Most bytes of an entry in parts: what a commit holds is bounded below this.
const ENTRY_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(super) struct Shared<E> {
    pub(super) engine: E,
    pub(super) bounds: Bounds,
    pub(super) live: Live,
    pub(super) room: Room,
    replica: Mutex<Replica>,
    waiting: Waiting,
    /// The sequence up to which entries are applied.
    pub(super) applied: watch::Sender<u64>,
    /// Entries are there that do not come.
    pub(super) stalled: Notify,
    /// Why it does not go on.
    failed: Mutex<Option<String>>,
    /// One at a time: what is written down, snapshots, what goes.
    pub(super) housekeeping: Arc<tokio::sync::Mutex<()>>,
    /// Bytes of entries since the last snapshot.
    pub(super) since_snapshot: AtomicU64,
    /// The sequence of the newest snapshot.
    pub(super) snapshot_at: AtomicU64,
    /// How many entries a read took that had as much as it wanted.
    pub(super) page_entries: AtomicU64,
    /// Entries before this one are gone.
    pub(super) purged: AtomicU64,
    /// What this host has it open for; while it opens it, an import that is under way may yet turn out to be done.
    pub(super) purpose: Mutex<Purpose>,
}

/// What a log is open for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Opening,
    Work,
    Import,
}

/// Why an entry was not written, or may not be.
#[derive(Debug)]
pub(super) enum WriteError {
    Published(PublishError),
    /// It can never be written.
    TooLarge(usize),
}

impl From<WriteError> for LogError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Published(error) => error.into(),
            WriteError::TooLarge(bytes) => LogError::Refused {
                reason: format!("an entry of {bytes} bytes is too large, at most {ENTRY_BYTES_MAX} are allowed"),
            },
        }
    }
}

impl<E: Engine> Shared<E> {
    pub(super) fn new(engine: E, bounds: Bounds, replica: Replica) -> Arc<Self> {
        let applied = watch::Sender::new(replica.applied);
        let snapshot_at = replica.applied;
        Arc::new(Self {
            engine,
            bounds,
            live: Live::new(replica.end),
            room: Room::default(),
            replica: Mutex::new(replica),
            waiting: Mutex::default(),
            applied,
            stalled: Notify::new(),
            failed: Mutex::default(),
            housekeeping: Arc::default(),
            since_snapshot: AtomicU64::new(0),
            snapshot_at: AtomicU64::new(snapshot_at),
            page_entries: AtomicU64::new(0),
            purged: AtomicU64::new(0),
            purpose: Mutex::new(Purpose::Opening),
        })
    }

    pub(super) fn replica(&self) -> MutexGuard<'_, Replica> {
        locked(&self.replica)
    }

    /// Now it is for this.
    pub(super) fn opened(&self, purpose: Purpose) -> Result<(), LogError> {
        *locked(&self.purpose) = purpose;
        self.check_import()
    }

    /// Nobody works on a log that is not whole.
    pub(super) fn check_import(&self) -> Result<(), LogError> {
        if *locked(&self.purpose) != Purpose::Work || !self.replica().imported.is_under_way() {
            return Ok(());
        }
        Err(LogError::Refused {
            reason: "an import into the log is under way, or was interrupted: wait until it ends, or begin it again with the whole \
                     file (`sluicebox import`), which clears away what it left"
                .into(),
        })
    }

    /// It does not go on: every tail ends, and nobody waits any longer.
    pub(super) fn fail(&self, reason: String) {
        tracing::error!(reason, "the log ended");
        *locked(&self.failed) = Some(reason);
        locked(&self.waiting).clear();
        // Whoever waits for entries looks again.
        self.applied.send_modify(|_| ());
        self.live.close();
    }

    /// Returns once it does not go on.
    pub(super) async fn failed(&self) {
        let mut applied = self.applied.subscribe();
        while self.check().is_ok() {
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// An error once it does not go on.
    pub(super) fn check(&self) -> Result<(), LogError> {
        match &*locked(&self.failed) {
            Some(reason) => Err(LogError::Unavailable { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Who waits for the entry with this nonce.
    pub(super) fn take_waiting(&self, nonce: Nonce) -> Option<Awaited> {
        locked(&self.waiting).remove(&nonce)
    }

    /// Writes an entry and waits until it came back in its place among all others, so that what came of it is known, and
    /// whoever reads on this host sees it.
    pub(super) async fn write(
        &self,
        subject: Subject<'_>,
        entry: Entry,
        expected: Option<u64>,
    ) -> Result<Outcome, WriteError> {
        let published = WriteError::Published;
        self.check().map_err(|error| published(PublishError::Unavailable(error.to_string())))?;
        let nonce = rand::random();
        let payload = entry::encode(nonce, &entry);
        // Until it came back: from then on it is counted as what is there.
        let room = self.room.take(&self.engine, Writes::of(&entry), payload.len()).await;
        let _room = room.map_err(|reason| published(PublishError::Full(reason)))?;
        let (answer, mut receiver) = oneshot::channel();
        let written =
            (payload.len() <= self.engine.payload_bytes_max()).then(|| Written { payload: payload.clone(), entry });
        locked(&self.waiting).insert(nonce, Awaited { answer, written });
        // Also when whoever asked goes away.
        let _leave = Leave { waiting: &self.waiting, nonce };
        let payload = match payload.len() {
            bytes if bytes <= self.engine.payload_bytes_max() => payload,
            bytes if bytes > ENTRY_BYTES_MAX => return Err(WriteError::TooLarge(bytes)),
            _ => self.write_parts(nonce, payload).await.map_err(published)?,
        };
        // DURABLE: when the engine answers, or when the entry comes back.
        let back = tokio::select! {
            answer = self.engine.publish(subject, payload, expected) => match answer {
                Ok(_) => tokio::time::timeout(BACK, &mut receiver).await.ok(),
                // Without an answer it may come back all the same.
                Err(PublishError::Unknown(_)) => tokio::select! {
                    back = &mut receiver => Some(back),
                    _ = tokio::time::timeout(E::UNKNOWN, self.caught_up()) => receiver.try_recv().ok().map(Ok),
                },
                Err(error) => return Err(published(error)),
            },
            back = &mut receiver => Some(back),
        };
        match back {
            Some(Ok(outcome)) => Ok(outcome),
            _ => Err(published(PublishError::Unknown("the entry did not come back".into()))),
        }
    }

    /// Returns when every entry was applied that is there now.
    async fn caught_up(&self) {
        let last = loop {
            match self.engine.ends().await {
                Ok((_, last)) => break last,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let mut applied = self.applied.subscribe();
        while *applied.borrow_and_update() < last {
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// The entry that stands for one that is too large. What it holds is seen by nobody before that one is there.
    async fn write_parts(&self, nonce: Nonce, payload: Bytes) -> Result<Bytes, PublishError> {
        let mut sequences = vec![];
        let mut rest = payload;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(self.engine.payload_bytes_max()));
            let sequence = self.engine.publish(Subject::Part, part, None).await;
            sequences.push(sequence.map_err(|error| match error {
                // Whatever became of the part, the entry was not written.
                PublishError::Unknown(reason) => PublishError::Unavailable(reason),
                other => other,
            })?);
        }
        Ok(entry::encode(nonce, &Entry::Parts(sequences)))
    }

    /// What the parts of an entry hold together, without its nonce.
    pub(super) async fn assemble(&self, sequences: &[u64]) -> Result<Bytes, LogError> {
        let mut whole = Vec::new();
        for sequence in sequences {
            let part = self.engine.get(*sequence).await?;
            let missing = || LogError::Unavailable { reason: format!("the part {sequence} of an entry is missing") };
            whole.extend_from_slice(&part.ok_or_else(missing)?.payload);
        }
        let (_, content) = entry::open(&whole.into()).map_err(unreadable)?;
        Ok(content)
    }
}

/// Bytes in the log that are not what they should be.
pub(crate) fn unreadable(error: crate::frame::FrameError) -> LogError {
    LogError::Refused { reason: format!("an entry of the log cannot be read: {error}") }
}

/// An entry that this host wrote and that did not come back yet.
pub(super) struct Awaited {
    pub(super) answer: oneshot::Sender<Outcome>,
    /// `None`: it is in parts.
    pub(super) written: Option<Written>,
}

/// What was written, and its bytes.
pub(super) struct Written {
    payload: Bytes,
    entry: Entry,
}

impl Written {
    /// The entry, if it is what came back: then nobody has to decode it. The nonce alone would be believed of anybody who
    /// repeats it.
    pub(super) fn came_back_as(self, payload: &Bytes) -> Option<Entry> {
        (self.payload == *payload).then_some(self.entry)
    }
}

/// By nonce.
type Waiting = Mutex<HashMap<Nonce, Awaited>>;

struct Leave<'a> {
    waiting: &'a Waiting,
    nonce: Nonce,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        locked(self.waiting).remove(&self.nonce);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_the_own_only_if_it_came_back_as_it_was_written() {
        let entry = |messages| Entry::Trim { from: Default::default(), upto: Default::default(), messages };
        let written = |messages| Written { payload: entry::encode(7, &entry(messages)), entry: entry(messages) };
        assert_eq!(written(1).came_back_as(&entry::encode(7, &entry(1))), Some(entry(1)));
        // Somebody else's, with a nonce of this host.
        assert_eq!(written(1).came_back_as(&entry::encode(7, &entry(2))), None);
    }
}
