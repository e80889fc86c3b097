//! Reads a whole log through its contract. Memory holds the record of one shard and a few hundred messages at a time.

use super::{About, BYTES_MAX, End, MESSAGES_MAX, Module, Piece, ShardPart};
use crate::contract::{Batch, Log, ReadRequest};
use crate::error::LogError;
use crate::inspect::{StateKey, StateQuery};
use bytes::Bytes;
use sluicebox_core::commit::{Claim, DeadFilter, DeadOrder, DeadQuery, Delayed, KeyWrites, Pin, Record, Term};
use sluicebox_core::control::Command;
use sluicebox_core::effects::StateWrite;
use sluicebox_core::handler::{Digest, HandlerName, ShardId};
use sluicebox_core::message::{Message, Offset};
use sluicebox_core::routing::{Routing, reserved};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Of a shard, in one piece.
const HEADS_MAX: usize = 500;
const MARKS_MAX: usize = 16 * 1024;
/// Keys whose sizes are looked up at once.
const KEYS_MAX: usize = 256;
const LETTERS_MAX: usize = 256;
/// Numbers of letters are smaller.
const NAMED_MAX: u64 = 1 << 62;

/// Why a log is not exported whole.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("a host worked on the log meanwhile: stop it and export again")]
    InUse,
    #[error("failed to write what was read")]
    Write(#[source] io::Error),
}

/// Where the pieces go.
pub type Put<'p> = dyn FnMut(Piece) -> io::Result<()> + Send + 'p;

/// Hands out every piece but the last, which it returns without counts. `from`: messages before this offset are left out
/// unless a shard still needs them. `version_of` has modules that operators pinned and the log does not have.
///
/// Claims every shard, so whoever works on one is fenced: no host should. One that did meanwhile makes it an error, at the end
/// at the latest: what was handed out is of no use then.
pub async fn export(
    log: &dyn Log,
    from: Offset,
    version_of: &(dyn Fn(&HandlerName, Digest) -> Option<Bytes> + Sync),
    put: &mut Put<'_>,
) -> Result<End, ExportError> {
    let mut export = Export { log, put, end: End::default(), claimed: BTreeMap::new() };
    let routings = log.routings().await?;
    let mut shards: Vec<ShardId> = log.status().await?.into_iter().map(|status| status.shard).collect();
    shards.sort();
    let (needed, pins) = export.look(&shards, &routings.routings).await?;
    // Whoever could have appended under a claim is fenced by now.
    export.end.end = log.end().await?;
    let (after, gone) = export.left_out(from, needed).await?;
    export.put(Piece::About(About { kind: log.guarantees().kind.to_owned(), after, gone }))?;
    let mut handlers: BTreeSet<HandlerName> = shards.iter().map(|shard| shard.handler.clone()).collect();
    handlers.extend(routings.routings.iter().map(|routing| routing.handler.clone()));
    let version = routings.version;
    export.put(Piece::Routings(routings))?;
    export.modules(&pins, version_of).await?;
    for shard in shards {
        export.shard(shard).await?;
    }
    for handler in handlers {
        export.state(handler).await?;
    }
    export.letters().await?;
    export.messages(after).await?;
    export.unmoved(version).await?;
    Ok(export.end)
}

struct Export<'e, 'p> {
    log: &'e dyn Log,
    put: &'e mut Put<'p>,
    end: End,
    /// Under which term each shard was claimed last, and how many commits it had.
    claimed: BTreeMap<ShardId, (Term, u64)>,
}

/// Modules that operators pinned.
type Pins = BTreeMap<HandlerName, BTreeSet<Digest>>;

impl Export<'_, '_> {
    fn put(&mut self, piece: Piece) -> Result<(), ExportError> {
        (self.put)(piece).map_err(ExportError::Write)
    }

    /// Claims every shard: the first offset that one of them needs, and what is pinned.
    async fn look(&mut self, shards: &[ShardId], routings: &[Routing]) -> Result<(Offset, Pins), ExportError> {
        let (mut needed, mut pins) = (Offset::END, Pins::new());
        for shard in shards {
            let Claim { term, record, .. } = self.log.claim(shard.clone(), Offset::START).await?;
            self.claimed.insert(shard.clone(), (term, record.commit_number));
            // It reads no messages, so it needs none.
            if shard.handler == HandlerName::intake() {
                continue;
            }
            let Record { read, open, controlled, control, .. } = record;
            let oldest = open.iter().map(|head| head.offset);
            let next = Offset(read.min(controlled).0.saturating_add(1));
            needed = oldest.chain([needed, next]).min().unwrap_or(needed);
            pins.entry(shard.handler.clone()).or_default().extend(control.pin.map(|Pin { digest, .. }| digest));
            for job in &control.jobs {
                self.name_letters(&job.filter);
            }
        }
        for routing in routings {
            let claimed = shards.iter().filter(|shard| shard.handler == routing.handler).count();
            if claimed < usize::from(routing.shards) {
                needed = needed.min(Offset(routing.start().0.saturating_add(1)));
            }
        }
        Ok((needed, pins))
    }

    /// After which offset the messages begin, and how many come before it.
    async fn left_out(&mut self, from: Offset, needed: Offset) -> Result<(Offset, u64), ExportError> {
        let mut gone = self.log.gone_after(Offset::START).await?;
        let wanted = Offset(from.min(needed).0.saturating_sub(1));
        let first =
            read(self.log, self.end.end, Offset::START, 1).await?.messages.first().map(|message| message.offset);
        let Some(first) = first else { return Ok((self.end.end, gone)) };
        let mut after = Offset(first.0 - 1);
        while after < wanted {
            let batch = read(self.log, self.end.end, after, MESSAGES_MAX).await?;
            let left_out = batch.messages.iter().filter(|message| message.offset <= wanted);
            gone += left_out.count() as u64;
            if batch.upto <= after {
                break;
            }
            after = batch.upto;
        }
        Ok((wanted.max(Offset(first.0 - 1)).min(self.end.end), gone))
    }

    async fn modules(
        &mut self,
        pins: &Pins,
        version_of: &(dyn Fn(&HandlerName, Digest) -> Option<Bytes> + Sync),
    ) -> Result<(), ExportError> {
        let stored = self.log.modules().await?;
        for (handler, pinned) in pins {
            let has = |digest| stored.get(handler).is_some_and(|stored| stored.iter().any(|has| has.digest == digest));
            for digest in pinned.iter().filter(|digest| !has(**digest)) {
                let Some(bytes) = version_of(handler, *digest).filter(|bytes| Digest::of(bytes) == *digest) else {
                    tracing::warn!(%handler, %digest, "the pinned module is neither in the log nor on the disk of this host");
                    continue;
                };
                self.put(Piece::Module(Module { handler: handler.clone(), time: self.end.time, bytes }))?;
            }
        }
        for (handler, modules) in stored {
            for module in modules {
                // One that is damaged ends the export: it says what mends it.
                let Some(bytes) = self.log.module(handler.clone(), module.digest).await? else { continue };
                self.put(Piece::Module(Module { handler: handler.clone(), time: module.time, bytes }))?;
            }
        }
        Ok(())
    }

    async fn shard(&mut self, shard: ShardId) -> Result<(), ExportError> {
        let Claim { term, record, .. } = self.log.claim(shard.clone(), Offset::START).await?;
        let before = self.claimed.insert(shard.clone(), (term, record.commit_number));
        if before.is_none_or(|(_, commit_number)| commit_number != record.commit_number) {
            return Err(ExportError::InUse);
        }
        let Record { open, marks, delayed, .. } = &record;
        let part = |lists: Record| {
            let Record { commit_number, read, controlled, .. } = record;
            let record = Record { commit_number, read, controlled, control: record.control.clone(), ..lists };
            Piece::Shard(ShardPart { shard: shard.clone(), term, record })
        };
        self.put(part(Record::default()))?;
        for heads in open.chunks(HEADS_MAX) {
            self.put(part(Record { open: heads.to_vec(), ..Record::default() }))?;
        }
        for marks in marks.chunks(MARKS_MAX) {
            self.put(part(Record { marks: marks.to_vec(), ..Record::default() }))?;
        }
        let mut rest = delayed.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(within(rest, |Delayed { message, .. }| message.bytes()));
            self.put(part(Record { delayed: now.to_vec(), ..Record::default() }))?;
            rest = later;
        }
        Ok(())
    }

    async fn state(&mut self, handler: HandlerName) -> Result<(), ExportError> {
        // State is the handler's and the key's, whatever shard asks.
        let any = ShardId { handler: handler.clone(), index: 0 };
        let mut after = None;
        loop {
            let (handler_, prefix) = (handler.clone(), String::new());
            let query = StateQuery { handler: handler_, prefix, after: after.clone(), keys_max: KEYS_MAX };
            let page = self.log.state_keys(query).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let mut rest = page.as_slice();
            while !rest.is_empty() {
                let bytes = |key: &StateKey| usize::try_from(key.bytes).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at(within(rest, bytes));
                rest = later;
                let keys: Vec<_> = now.iter().map(|key| key.key.clone()).collect();
                let loaded = self.log.load(any.clone(), keys.clone()).await?;
                let keys = keys.into_iter().zip(loaded).map(|(key, entries)| {
                    let write = |(entry, value): (&Arc<str>, &Bytes)| StateWrite {
                        entry: entry.clone(),
                        value: Some(value.clone()),
                    };
                    KeyWrites { key, writes: entries.iter().map(write).collect() }
                });
                let keys = keys.filter(|key| !key.writes.is_empty()).collect();
                self.put(Piece::State { handler: handler.clone(), keys })?;
            }
        }
    }

    async fn letters(&mut self) -> Result<(), ExportError> {
        let mut above = 0;
        loop {
            let order = DeadOrder::Oldest { above };
            let (filter, letters_max, bytes_max) = (DeadFilter::default(), LETTERS_MAX, BYTES_MAX);
            let page = self.log.dead(DeadQuery { filter, order, letters_max, bytes_max }).await?;
            let Some(last) = page.last() else { return Ok(()) };
            above = last.number;
            self.end.letters_upto = self.end.letters_upto.max(above);
            let times = page.iter().map(|dead| dead.letter.time);
            self.end.time = times.fold(self.end.time, Ord::max);
            self.put(Piece::Letters(page))?;
        }
    }

    async fn messages(&mut self, mut after: Offset) -> Result<(), ExportError> {
        while after < self.end.end {
            let batch = read(self.log, self.end.end, after, MESSAGES_MAX).await?;
            for message in &batch.messages {
                self.end.time = self.end.time.max(message.time);
                self.look_at_command(message);
            }
            if !batch.messages.is_empty() {
                self.put(Piece::Messages(batch.messages))?;
            }
            after = batch.upto.max(after);
        }
        Ok(())
    }

    /// An error if anybody claimed, committed, appended or changed subscriptions since this began to read.
    async fn unmoved(&mut self, version: u64) -> Result<(), ExportError> {
        let end = self.log.end().await?;
        let routings = self.log.routings().await?;
        let status = self.log.status().await?;
        let found = status.into_iter().map(|status| (status.shard, (status.term, status.commit_number)));
        let is_same =
            end == self.end.end && routings.version == version && found.collect::<BTreeMap<_, _>>() == self.claimed;
        is_same.then_some(()).ok_or(ExportError::InUse)
    }

    fn look_at_command(&mut self, message: &Message) {
        if !message.topic.as_str().starts_with(reserved::CONTROL_TOKEN) {
            return;
        }
        if let Ok(Command::RetryDead { filter, .. } | Command::DropDead { filter }) = Command::read(message) {
            self.name_letters(&filter);
        }
    }

    /// No letter that comes later may be one of these. What no letter will ever be numbered would leave no numbers to the new log.
    fn name_letters(&mut self, filter: &DeadFilter) {
        let named = filter.numbers.iter().copied().chain(filter.upto).filter(|number| *number <= NAMED_MAX);
        self.end.letters_upto = named.fold(self.end.letters_upto, Ord::max);
    }
}

async fn read(log: &dyn Log, upto: Offset, after: Offset, messages_max: usize) -> Result<Batch, LogError> {
    let (patterns, bytes_max) = (vec![], BYTES_MAX);
    log.read(ReadRequest { after, upto, patterns, messages_max, bytes_max }).await
}

/// How many of them are within the bytes of a piece; at least one.
fn within<T>(items: &[T], bytes: impl Fn(&T) -> usize) -> usize {
    let mut sum = 0usize;
    let fits = items.iter().take_while(|item| {
        sum = sum.saturating_add(bytes(item));
        sum <= BYTES_MAX
    });
    fits.count().max(1)
}
