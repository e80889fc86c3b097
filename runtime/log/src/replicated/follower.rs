//! The one task that reads the log's entries in order: it applies every entry, announces the messages to the tails, and tells
//! whoever waits for an entry what came of it.

use super::engine::{Engine, Following as _, Holds, Stored};
use super::entry::{self, Entry};
use super::replica::Outcome;
use super::shared::{Awaited, Shared, unreadable};
use super::{snapshot, state};
use crate::contract::Batch;
use crate::error::LogError;
use crate::frame::FrameError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// Between two tries to read on.
const AGAIN: Duration = Duration::from_millis(500);

/// Follows until the log is dropped or cannot go on.
pub(super) async fn follow<E: Engine>(shared: Arc<Shared<E>>) {
    loop {
        match read_on(&shared).await {
            Ok(()) => continue,
            Err(error @ LogError::Refused { .. }) => return shared.fail(error.to_string()),
            Err(error) => tracing::warn!(%error, "the log is read on in a moment"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read_on<E: Engine>(shared: &Arc<Shared<E>>) -> Result<(), LogError> {
    let next = shared.replica().applied + 1;
    let mut following = shared.engine.follow(next).await?;
    loop {
        let entries = tokio::select! {
            entries = following.next() => entries?,
            // Safe to cancel: it is followed anew.
            () = shared.stalled.notified() => return Ok(()),
        };
        let Some(entries) = entries else { return Ok(()) };
        let mut batch = Batch::default();
        let mut answers = vec![];
        let mut failed = None;
        for entry in entries {
            match apply(shared, entry, &mut batch).await {
                Ok(answer) => answers.extend(answer),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        match batch.messages.last().map(|last| last.offset) {
            Some(upto) => shared.live.announce(Batch { upto, ..batch }),
            // What was brought along from another log is there at once.
            None => shared.live.reached(shared.replica().end),
        }
        for (waiting, outcome) in answers {
            // Whoever asked may be gone.
            let _ = waiting.send(outcome);
        }
        // After the answers: who sees that all was applied and has none knows that its entry is not among them.
        shared.applied.send_replace(shared.replica().applied);
        failed.map_or(Ok(()), Err)?;
        // One at a time, and the snapshot first: where many keys are written again and again, state is always due.
        snapshot::take_when_due(shared);
        state::flush_when_due(shared);
    }
}

type Answer = (oneshot::Sender<Outcome>, Outcome);

async fn apply<E: Engine>(shared: &Shared<E>, entry: Stored, batch: &mut Batch) -> Result<Option<Answer>, LogError> {
    let Stored { sequence, holds, time, payload } = entry;
    let next = shared.replica().applied + 1;
    if sequence < next {
        return Ok(None);
    }
    if sequence > next {
        // Entries only ever go from the front, and only those that a snapshot holds.
        return Err(LogError::Refused {
            reason: format!(
                "entries {next} to {} are gone: this host was away for too long, start it again",
                sequence - 1
            ),
        });
    }
    shared.room.came(sequence, payload.len());
    if holds == Holds::Part {
        let mut replica = shared.replica();
        replica.applied = sequence;
        replica.parts.came(sequence, time);
        return Ok(None);
    }
    let bytes = payload.len() as u64;
    let pass_over = |error: FrameError| {
        // Whoever may publish there could end all hosts for ever otherwise. What a host wrote and this one cannot read is never
        // acknowledged, since its writer passes over it too.
        if !error.is_foreign() {
            return Err(unreadable(error));
        }
        tracing::error!(sequence, %error, "passed over an entry that no host wrote: see who else may write to the log");
        shared.replica().applied = sequence;
        Ok(None)
    };
    let (nonce, content) = match entry::open(&payload) {
        Ok(opened) => opened,
        Err(error) => return pass_over(error),
    };
    let (answer, own) = match shared.take_waiting(nonce) {
        Some(Awaited { answer, written }) => (Some(answer), written.and_then(|own| own.came_back_as(&payload))),
        None => (None, None),
    };
    let entry = match own.map_or_else(|| entry::decode(content), Ok) {
        Ok(Entry::Parts(sequences)) => {
            let whole = shared.assemble(&sequences).await?;
            shared.replica().parts.joined(sequence, &sequences);
            entry::decode(whole).map_err(unreadable)?
        }
        Ok(entry) => entry,
        Err(error) => return pass_over(error),
    };
    shared.since_snapshot.fetch_add(bytes, Ordering::Relaxed);
    let (messages, outcome) = shared.replica().apply(sequence, time, entry, answer.is_some());
    shared.check_import()?;
    batch.messages.extend(messages);
    Ok(answer.map(|answer| (answer, outcome)))
}
