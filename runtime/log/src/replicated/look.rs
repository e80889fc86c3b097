//! What people look at: positions of shards, open heads, delayed messages, dead letters.

use super::engine::Engine;
use super::entry::{self, Entry};
use super::reads;
use super::replica::Replica;
use super::shared::{Shared, unreadable};
use crate::contract::ShardStatus;
use crate::error::LogError;
use crate::frame::{Frame, Place, Reader, read_letter};
use crate::inspect::{DelayedFacts, DelayedQuery, HeadQuery, MessageFacts, OpenHead, Smallest};
use sluicebox_core::commit::{
    DeadCount, DeadFilter, DeadLetter, DeadOrder, DeadQuery, NumberedDeadLetter, ShardCommit,
};
use sluicebox_core::message::Offset;
use std::sync::Arc;

/// Heads whose messages are looked at together.
const HEADS_TOGETHER: usize = 256;

pub(super) fn status<E: Engine>(shared: &Shared<E>) -> Vec<ShardStatus> {
    let replica = shared.replica();
    let status = replica.records().map(|(id, shard)| {
        let dead = replica
            .dead
            .get(&id.handler)
            .map_or(0, |dead| dead.letters().values().filter(|indexed| indexed.letter.shard == *id).count());
        shard.status(id, dead, about_behind(&replica, shard.read.max(replica.trimmed)))
    });
    status.collect()
}

/// Entries, not messages: how many are in each is not counted.
fn about_behind(replica: &Replica, read: Offset) -> u64 {
    if read >= replica.end {
        return 0;
    }
    replica.sequence_of(replica.end).saturating_sub(replica.sequence_of(read)).max(1)
}

pub(super) async fn heads<E: Engine>(shared: &Shared<E>, query: HeadQuery) -> Result<Vec<OpenHead>, LogError> {
    let mut found = vec![];
    let mut after = query.after;
    while found.len() < query.heads_max {
        // A page of heads at a time, so that memory is bounded whatever the filter leaves.
        let page = {
            let replica = shared.replica();
            let mut page = Smallest::new(HEADS_TOGETHER);
            for (id, shard) in replica.shards.iter().filter(|(id, _)| id.handler == query.handler) {
                let range = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
                for (offset, head) in shard.record.open.range(range).take(HEADS_TOGETHER) {
                    if page.wants(*offset) {
                        page.add(*offset, (id.index, head.clone()));
                    }
                }
            }
            page.in_order()
        };
        let Some((_, last)) = page.last() else { break };
        after = last.offset;
        let messages = reads::fetch(shared, page.iter().map(|(_, head)| head.offset).collect()).await?;
        for ((shard, head), message) in page.into_iter().zip(messages) {
            let facts = |message: Arc<sluicebox_core::message::Message>| MessageFacts {
                topic: message.topic.clone(),
                id: message.id.clone(),
                time: message.time,
            };
            let head = OpenHead { shard, head, message: message.map(facts) };
            if query.filter.matches(&head) && found.len() < query.heads_max {
                found.push(head);
            }
        }
    }
    Ok(found)
}

pub(super) fn delayed<E: Engine>(shared: &Shared<E>, query: &DelayedQuery) -> Vec<DelayedFacts> {
    let replica = shared.replica();
    let mut first = Smallest::new(query.delayed_max);
    for (id, shard) in replica.shards.iter().filter(|(id, _)| id.handler == query.handler) {
        for delayed in shard.record.delayed.values() {
            let facts = DelayedFacts::of(id.index, delayed);
            let comes_after = query.after.is_none_or(|after| facts.place > after);
            if comes_after && query.filter.matches(&facts) && first.wants(facts.place) {
                first.add(facts.place, facts);
            }
        }
    }
    first.in_order()
}

pub(super) fn dead_count<E: Engine>(shared: &Shared<E>, filter: &DeadFilter) -> DeadCount {
    let replica = shared.replica();
    let mut count = DeadCount::default();
    for (number, indexed) in replica.dead.values().flat_map(|dead| dead.letters()) {
        if filter.matches(*number, &indexed.letter) {
            count.letters += 1;
            count.bytes += indexed.bytes as u64;
            count.newest = count.newest.max(*number);
        }
    }
    count
}

pub(super) async fn dead<E: Engine>(shared: &Shared<E>, query: DeadQuery) -> Result<Vec<NumberedDeadLetter>, LogError> {
    let mut listed = vec![];
    {
        let replica = shared.replica();
        let (is_newest, is_in_page): (bool, Box<dyn Fn(u64) -> bool>) = match query.order {
            DeadOrder::Newest { below } => (true, Box::new(move |number| below.is_none_or(|below| number < below))),
            DeadOrder::Oldest { above } => (false, Box::new(move |number| number > above)),
        };
        let all = replica.dead.values().flat_map(|dead| dead.letters());
        let mut wanted: Vec<_> = all
            .filter(|(number, indexed)| is_in_page(**number) && query.filter.matches(**number, &indexed.letter))
            .collect();
        wanted.sort_unstable_by_key(|(number, _)| if is_newest { u64::MAX - **number } else { **number });
        let mut bytes = 0usize;
        for (number, indexed) in wanted.into_iter().take(query.letters_max) {
            if bytes >= query.bytes_max {
                break;
            }
            bytes = bytes.saturating_add(indexed.bytes);
            listed.push((*number, indexed.letter.clone()));
        }
    }
    let mut letters = vec![];
    // Letters of one commit are beside each other in a list.
    let mut frame: Option<(u64, Box<ShardCommit>)> = None;
    for (number, known) in listed {
        let at = shared.replica().letter_at(number);
        if let Some(Place { sequence, .. }) = at
            && frame.as_ref().is_none_or(|(of, _)| *of != sequence)
        {
            frame = commit_at(shared, sequence).await?.map(|commit| (sequence, commit));
        }
        let letter = match (&frame, at) {
            (Some((_, commit)), Some(at)) => commit.dead.get(usize::from(at.index)).cloned(),
            _ => kept(shared, &known, number).await?,
        };
        // It may have been dropped since, and its frame with it.
        let Some(letter) = letter else { continue };
        let DeadLetter { shard, identity, deaths, .. } = known;
        letters.push(NumberedDeadLetter { number, letter: DeadLetter { shard, identity, deaths, ..letter } });
    }
    Ok(letters)
}

/// The commit with this sequence, if it is still in the log.
pub(super) async fn commit_at<E: Engine>(
    shared: &Shared<E>,
    sequence: u64,
) -> Result<Option<Box<ShardCommit>>, LogError> {
    let Some(stored) = shared.engine.get(sequence).await? else { return Ok(None) };
    let (_, content) = entry::open(&stored.payload).map_err(unreadable)?;
    let entry = match entry::decode(content).map_err(unreadable)? {
        Entry::Parts(sequences) => entry::decode(shared.assemble(&sequences).await?).map_err(unreadable)?,
        entry => entry,
    };
    Ok(if let Entry::Frame(Frame::Commit(commit)) = entry { Some(commit) } else { None })
}

/// A letter whose frame is gone.
async fn kept<E: Engine>(shared: &Shared<E>, known: &DeadLetter, number: u64) -> Result<Option<DeadLetter>, LogError> {
    let Some(letter) = shared.engine.letter(&known.shard.handler, number).await? else { return Ok(None) };
    read_letter(&mut Reader::new(letter)).map(Some).map_err(unreadable)
}
