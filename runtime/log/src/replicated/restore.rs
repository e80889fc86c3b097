//! Restores a log on an engine, entry by entry: an entry that begins it, the pieces, and one that puts them in force. Hosts
//! refuse a log of which the last one is missing. Whoever begins another import takes the place of the one before, whose
//! entries do not count from then on.

use super::appends::AROUND_BYTES;
use super::engine::{Engine, Subject};
use super::entry::{Entry, Import};
use super::replica::Outcome;
use super::state::BEHIND_BYTES_MAX;
use super::{Replicated, modules, snapshot, state};
use crate::error::LogError;
use crate::frame::{Writer, write_letter};
use crate::members::Members;
use crate::portable::{About, End, Piece, Restore, out_of_order};
use futures_util::future::BoxFuture;
use sluicebox_core::commit::NumberedDeadLetter;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::{Message, Offset};
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) struct ReplicatedRestore<E> {
    log: Replicated<E>,
    /// Its name; `None`: nothing came yet.
    import: Option<u64>,
    /// The last message that came.
    last: Offset,
}

impl<E: Engine> ReplicatedRestore<E> {
    pub(super) async fn begin(log: Replicated<E>) -> Result<Self, LogError> {
        let is_under_way = log.shared.replica().imported.is_under_way();
        if !is_under_way && !modules::all(&log.shared).await?.is_empty() {
            return Err(not_empty());
        }
        Ok(Self { log, import: None, last: Offset::START })
    }

    async fn write(&mut self, piece: Piece) -> Result<(), LogError> {
        match (piece, self.import) {
            (Piece::About(about), None) => self.start(about).await,
            (Piece::About(_) | Piece::End(_), _) | (_, None) => {
                Err(out_of_order("what is known of the log comes first, once"))
            }
            (Piece::Module(module), Some(_)) => modules::restore(&self.log.shared, module).await,
            (Piece::Letters(letters), Some(import)) => self.letters(import, letters).await,
            (Piece::Messages(messages), Some(import)) => self.messages(import, messages).await,
            (piece @ Piece::State { .. }, Some(import)) => {
                self.entry(import, piece).await?;
                let in_memory = self.log.shared.replica().written.bytes();
                if in_memory > self.log.shared.bounds.flush_bytes.saturating_add(BEHIND_BYTES_MAX) {
                    let _one = self.log.shared.housekeeping.lock().await;
                    state::flush(&self.log.shared).await?;
                }
                Ok(())
            }
            (piece, Some(import)) => self.entry(import, piece).await,
        }
    }

    async fn start(&mut self, about: About) -> Result<(), LogError> {
        let shared = &self.log.shared;
        let place = shared.engine.values_end().await?;
        let left: BTreeSet<HandlerName> = shared.replica().shards.keys().map(|shard| shard.handler.clone()).collect();
        self.last = about.after;
        let begun = shared.write(Subject::Control, Entry::Import(Import::Begin(about)), None).await?;
        let Outcome::Began(import) = begun else { return Err(not_empty()) };
        // What one that was interrupted left is out of sight from here on.
        for (handler, number) in shared.engine.letters().await? {
            shared.engine.drop_letter(&handler, number).await?;
        }
        for (handler, digest, _) in shared.engine.modules().await? {
            shared.engine.drop_module(&handler, digest).await?;
        }
        for handler in left {
            shared.engine.purge_values(&handler, place, import).await?;
        }
        self.import = Some(import);
        Ok(())
    }

    /// Their content goes where that of letters is whose entries went.
    async fn letters(&self, import: u64, letters: Vec<NumberedDeadLetter>) -> Result<(), LogError> {
        for NumberedDeadLetter { number, letter } in &letters {
            let mut writer = Writer::default();
            write_letter(&mut writer, letter);
            self.log.shared.engine.put_letter(&letter.shard.handler, *number, writer.finish()).await?;
        }
        self.entry(import, Piece::Letters(letters)).await
    }

    /// As large entries as the engine takes whole: readers look at one at a time.
    async fn messages(&mut self, import: u64, messages: Vec<Arc<Message>>) -> Result<(), LogError> {
        let bytes_max = self.log.shared.engine.payload_bytes_max();
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let (mut together, mut bytes) = (vec![], 0);
            while let Some(next) = messages.next_if(|next| {
                bytes += bytes_in_entry(next);
                together.is_empty() || bytes <= bytes_max
            }) {
                if next.offset <= self.last {
                    return Err(out_of_order("messages come in the order of their offsets"));
                }
                self.last = next.offset;
                together.push(next);
            }
            self.entry(import, Piece::Messages(together)).await?;
        }
        Ok(())
    }

    async fn entry(&self, import: u64, piece: Piece) -> Result<(), LogError> {
        self.written(Subject::Messages, Import::Piece { import, piece: Box::new(piece) }).await
    }

    async fn written(&self, subject: Subject<'_>, import: Import) -> Result<(), LogError> {
        match self.log.shared.write(subject, Entry::Import(import), None).await?.done() {
            Err(LogError::Conflict) => Err(LogError::Refused {
                reason: "another import into the log was begun meanwhile, and takes the place of this one".into(),
            }),
            done => done,
        }
    }

    async fn complete(self, end: End) -> Result<(), LogError> {
        let import = self.import.ok_or_else(|| out_of_order("the end is all there is"))?;
        let shared = &self.log.shared;
        {
            // So that the hosts that start have little to do.
            let _one = shared.housekeeping.lock().await;
            state::flush(shared).await?;
        }
        let upto = end.end.0.max(end.letters_upto);
        // DURABLE: all of it, with this entry.
        self.written(Subject::Control, Import::Done { import, end: end.end, upto }).await?;
        let _one = shared.housekeeping.lock().await;
        if let Err(error) = snapshot::take(shared).await {
            tracing::warn!(%error, "no snapshot was taken of what was brought along: the first host that starts reads all of it");
        }
        Ok(())
    }
}

impl<E: Engine> Restore for ReplicatedRestore<E> {
    fn members(&self) -> Option<&Members> {
        Some(&self.log.members)
    }

    fn take(&mut self, piece: Piece) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.write(piece))
    }

    fn finish(self: Box<Self>, end: End) -> BoxFuture<'static, Result<(), LogError>> {
        Box::pin(self.complete(end))
    }
}

fn bytes_in_entry(message: &Message) -> usize {
    let Message { topic, key, id, headers, .. } = message;
    let texts =
        topic.as_str().len() + key.as_ref().map_or(0, |key| key.as_str().len()) + id.as_ref().map_or(0, |id| id.len());
    AROUND_BYTES + texts + headers.iter().count() * 6 + message.bytes()
}

fn not_empty() -> LogError {
    LogError::Refused {
        reason: "the log is not empty: import into another namespace, or delete what the server has of this one".into(),
    }
}
