//! Letting old messages go: first out of everyone's sight, by an entry that says up to where, then out of the engine.

use super::engine::{Engine, PublishError, Subject};
use super::entry::Entry;
use super::reads;
use super::replica::Outcome;
use super::shared::{Shared, WriteError};
use super::{look, snapshot};
use crate::contract::{ReadRequest, Trim, Trimmed};
use crate::error::LogError;
use crate::frame::{Place, Writer, write_letter};
use crate::records;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Offset;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// Most bytes looked at by one step.
const BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) async fn trim<E: Engine>(shared: &Shared<E>, trim: Trim) -> Result<Trimmed, LogError> {
    let (from, (floor, holder), control) = {
        let replica = shared.replica();
        let floor = records::floor(replica.records(), &replica.routings.routings, &trim.holders);
        (replica.trimmed, floor, replica.control)
    };
    let nothing = Trimmed::default();
    let Some(older_than) = trim.older_than else { return Ok(nothing) };
    let (mut going, mut upto, mut held, mut is_young) = (0usize, from, None, false);
    // The first alone, since mostly it is too young.
    for messages_max in [1, trim.messages_max.saturating_add(1)] {
        if is_young || held.is_some() {
            break;
        }
        (going, upto) = (0, from);
        let patterns = vec![];
        let request = ReadRequest { after: from, upto: Offset::END, patterns, messages_max, bytes_max: BYTES_MAX };
        let batch = reads::read(shared, request).await?;
        for message in &batch.messages {
            if message.time >= older_than {
                is_young = true;
                break;
            }
            if message.offset >= floor {
                held = holder.clone();
                break;
            }
            going += 1;
            if going <= trim.messages_max {
                upto = message.offset;
            }
        }
        if batch.messages.is_empty() {
            break;
        }
    }
    let deleted = going.min(trim.messages_max);
    let mut trimmed =
        Trimmed { deleted: deleted as u64, more: deleted > 0 && !is_young && held.is_none(), bytes: 0, held };
    if deleted > 0 {
        if write(shared, Entry::Trim { from, upto, messages: deleted as u64 }, control).await? {
            trimmed.more &= upto < shared.replica().end;
        } else {
            (trimmed.deleted, trimmed.more) = (0, true);
        }
    }
    purge(shared).await?;
    Ok(trimmed)
}

/// Writes an entry that does nothing: when it came back, so did all that were written before.
pub(super) async fn catch_up<E: Engine>(shared: &Shared<E>) -> Result<(), LogError> {
    let from = shared.replica().trimmed;
    let nothing = Entry::Trim { from, upto: from, messages: 0 };
    shared.write(Subject::Control, nothing, None).await.map(drop).map_err(Into::into)
}

/// Whether it was done. Only behind the last entry that this host knows of those that concern more than one shard: a handler
/// that was forgotten and begins anew needs what the one before it had read, and this host may not have heard of it.
async fn write<E: Engine>(shared: &Shared<E>, entry: Entry, control: Option<u64>) -> Result<bool, LogError> {
    let Some(control) = control else {
        // To know which is the last. The next step comes soon.
        return catch_up(shared).await.map(|()| false);
    };
    match shared.write(Subject::Control, entry, Some(control)).await {
        // Otherwise another host did it.
        Ok(outcome) => Ok(!matches!(outcome, Outcome::Conflict)),
        Err(WriteError::Published(PublishError::Stale)) => {
            // Whoever wrote it may be no host.
            shared.replica().control = None;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Entries that nobody needs go out of the engine.
async fn purge<E: Engine>(shared: &Shared<E>) -> Result<(), LogError> {
    let first = shared.purged.load(Ordering::Relaxed);
    let due = |shared: &Shared<E>| {
        let replica = shared.replica();
        let sequence = replica.sequence_of(replica.trimmed);
        sequence.min(replica.parts.needed_from(sequence))
    };
    // Fewer where it is about to be full.
    let entries_min = if shared.room.is_short() { 1 } else { shared.bounds.purge_entries };
    if due(shared) < first.saturating_add(entries_min) {
        return Ok(());
    }
    // Whoever writes down or takes a snapshot now goes first; the next step comes soon.
    let Ok(_one) = shared.housekeeping.try_lock() else { return Ok(()) };
    if shared.snapshot_at.load(Ordering::Relaxed) < due(shared) {
        snapshot::take(shared).await?;
    }
    let upto = due(shared).min(shared.snapshot_at.load(Ordering::Relaxed));
    keep_letters(shared, upto).await?;
    shared.engine.purge_before(upto).await?;
    shared.purged.store(upto, Ordering::Relaxed);
    Ok(())
}

/// Dead letters of frames before this entry are copied, and copies of letters that are no longer there go.
async fn keep_letters<E: Engine>(shared: &Shared<E>, upto: u64) -> Result<(), LogError> {
    let engine = &shared.engine;
    let there = engine.letters().await?;
    let (known, applied, place): (HashSet<(HandlerName, u64)>, u64, _) = {
        let replica = shared.replica();
        let imported = replica.imported.clone();
        let all = replica
            .dead
            .iter()
            .flat_map(|(handler, dead)| dead.letters().keys().map(move |number| (handler.clone(), *number)));
        (all.collect(), replica.applied, move |number| imported.letter_at(number))
    };
    for (handler, number) in known.difference(&there) {
        let Some(Place { sequence, index }) = place(*number).filter(|place| place.sequence < upto) else { continue };
        let commit = look::commit_at(shared, sequence).await?;
        let Some(letter) = commit.and_then(|commit| commit.dead.get(usize::from(index)).cloned()) else { continue };
        let mut writer = Writer::default();
        write_letter(&mut writer, &letter);
        engine.put_letter(handler, *number, writer.finish()).await?;
    }
    // Of later entries another host may have copied letters that are not known here yet.
    let is_known = |number: u64| place(number).is_none_or(|place| place.sequence <= applied);
    for (handler, number) in there.difference(&known).filter(|(_, number)| is_known(*number)) {
        engine.drop_letter(handler, *number).await?;
    }
    Ok(())
}
