//! How many messages of a handler wait: counted from the log, as its routing reads it, within bounds on what a look costs.
//!
//! A message of the handler waits when it is open, when an open head of its key stands before it, or when its shard has not
//! taken it up. Messages of others are read over and not counted. What lies beyond the bounds of a look is not guessed: the
//! count says that it is at least so many.

use crate::clock::Timestamp;
use crate::commit::HeadScope;
use crate::log::{HeadFilter, HeadQuery, Log, LogError, MessageFacts, OpenHead, ReadRequest};
use crate::message::{Key, Message, Offset};
use crate::routing::{Router, Routing};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Heads looked at for one handler.
const HEADS_MAX: usize = 1000;
/// One read.
const READ_MESSAGES_MAX: usize = 4096;
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many reads a look may make, for all handlers that it is about.
#[derive(Debug)]
pub struct Budget {
    reads: usize,
    /// Of one count of one handler, so that one far behind leaves something for the others.
    reads_at_a_time: usize,
}

impl Default for Budget {
    /// Each read looks at a bounded number of rows, so a look ends whatever the log holds and however many handlers there are.
    fn default() -> Self {
        Self { reads: 64, reads_at_a_time: 4 }
    }
}

/// How far the shards of a handler are.
#[derive(Clone, Debug)]
pub struct Place {
    /// By the index of the shard: it has taken up what is not after this.
    pub read: Vec<Offset>,
    /// Open heads, over all shards.
    pub open: u64,
}

impl Place {
    fn read_of(&self, shard: u16) -> Offset {
        self.read.get(usize::from(shard)).copied().unwrap_or(Offset::END)
    }
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub messages: u64,
    /// There may be more.
    pub at_least: bool,
    /// The log's time of the oldest; `None`: nothing waits, or what does is no longer in the log.
    pub oldest: Option<Timestamp>,
}

/// Counts what waits of one handler, up to `end`.
pub async fn count(
    log: &dyn Log,
    routing: &Routing,
    place: &Place,
    end: Offset,
    budget: &mut Budget,
) -> Result<Waiting, LogError> {
    let mut waiting = Waiting::default();
    let slowest = place.read.iter().min().copied().unwrap_or(end);
    let reached = scan(log, routing, (slowest, end), budget, |message, shard, _| {
        if message.offset > place.read_of(shard) {
            waiting.add(1, Some(message.time));
        }
        true
    })
    .await?;
    waiting.at_least |= reached < end;
    if place.open == 0 {
        return Ok(waiting);
    }
    let query = HeadQuery {
        handler: routing.handler.clone(),
        filter: HeadFilter::default(),
        after: Offset::START,
        heads_max: HEADS_MAX,
    };
    let heads = log.heads(query).await?;
    waiting.at_least |= heads.len() >= HEADS_MAX;
    // Beyond those looked at there are as many as the record says, or there were when it was read.
    let unseen = if heads.len() >= HEADS_MAX { place.open.saturating_sub(heads.len() as u64) } else { 0 };
    let settled = heads.iter().filter(|found| found.head.scope == HeadScope::After).count() as u64;
    waiting.add(heads.len() as u64 - settled + unseen, None);
    for found in heads.iter().filter(|found| found.head.scope != HeadScope::After) {
        waiting.add(0, found.message.as_ref().map(|message| message.time));
    }
    let lanes = Lanes::of(&heads);
    let Some(first) = lanes.first() else { return Ok(waiting) };
    let furthest = place.read.iter().max().copied().unwrap_or(end).min(end);
    let reached = scan(log, routing, (first, furthest), budget, |message, shard, key| {
        if message.offset <= place.read_of(shard) && lanes.stands_before(key, message.offset) {
            waiting.add(1, Some(message.time));
        }
        true
    })
    .await?;
    waiting.at_least |= reached < furthest;
    Ok(waiting)
}

/// How many messages wait behind a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub messages: u64,
    /// There may be more.
    pub at_least: bool,
}

/// Counts what waits behind each of these heads up to `end`, by offset of the head. Heads that nothing can wait for (no
/// key, or the message gave up its place) are not among them.
pub async fn behind(
    log: &dyn Log,
    routing: &Routing,
    heads: &[OpenHead],
    end: Offset,
    budget: &mut Budget,
) -> Result<HashMap<Offset, Behind>, LogError> {
    let lanes = Lanes::of(heads);
    let mut behind: HashMap<Offset, Behind> = lanes.heads.values().map(|head| (*head, Behind::default())).collect();
    let Some(first) = lanes.first() else { return Ok(behind) };
    let reached = scan(log, routing, (first, end), budget, |message, _, key| {
        if lanes.stands_before(key, message.offset)
            && let Some(head) = key.and_then(|key| lanes.heads.get(key))
            && let Some(behind) = behind.get_mut(head)
        {
            behind.messages += 1;
        }
        true
    })
    .await?;
    behind.values_mut().for_each(|behind| behind.at_least = reached < end);
    Ok(behind)
}

impl Waiting {
    fn add(&mut self, messages: u64, time: Option<Timestamp>) {
        self.messages += messages;
        self.oldest = self.oldest.into_iter().chain(time).min();
    }
}

/// The keys that wait for their head.
struct Lanes<'h> {
    heads: HashMap<&'h Key, Offset>,
    /// Messages with a head of their own, which are counted by it.
    open: HashSet<Offset>,
}

impl<'h> Lanes<'h> {
    fn of(heads: &'h [OpenHead]) -> Self {
        let lanes = heads.iter().filter(|found| found.head.scope != HeadScope::Message);
        let lanes = lanes.filter_map(|found| Some((found.head.key.as_ref()?, found.head.offset)));
        Self { heads: lanes.collect(), open: heads.iter().map(|found| found.head.offset).collect() }
    }

    fn first(&self) -> Option<Offset> {
        self.heads.values().min().copied()
    }

    /// Whether the message of this key waits behind a head.
    fn stands_before(&self, key: Option<&Key>, offset: Offset) -> bool {
        let head = key.and_then(|key| self.heads.get(key));
        head.is_some_and(|head| offset > *head) && !self.open.contains(&offset)
    }
}

/// A message that its shard has not taken up, without its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Unread {
    pub offset: Offset,
    pub shard: u16,
    /// The key it will be handled under.
    pub key: Option<Key>,
    pub message: MessageFacts,
}

/// The first messages after `after` that no shard has taken up and that `wants` wants, at most `messages_max`; and how far
/// it looked: what is after that was not seen.
pub async fn unread(
    log: &dyn Log,
    routing: &Routing,
    place: &Place,
    (after, end): (Offset, Offset),
    wants: impl Fn(&Unread) -> bool,
    messages_max: usize,
    budget: &mut Budget,
) -> Result<(Vec<Unread>, Offset), LogError> {
    let mut found = vec![];
    let slowest = place.read.iter().min().copied().unwrap_or(end);
    let reached = scan(log, routing, (slowest.max(after), end), budget, |message, shard, key| {
        if message.offset > place.read_of(shard) {
            let facts = MessageFacts { topic: message.topic.clone(), id: message.id.clone(), time: message.time };
            let unread = Unread { offset: message.offset, shard, key: key.cloned(), message: facts };
            if wants(&unread) {
                found.push(unread);
            }
        }
        found.len() < messages_max
    })
    .await?;
    Ok((found, reached))
}

/// Calls `each` with the handler's messages with `after < offset <= upto`, the shard and the key of each, until it says
/// no or the budget ends. How far it came.
async fn scan(
    log: &dyn Log,
    routing: &Routing,
    (mut after, upto): (Offset, Offset),
    budget: &mut Budget,
    mut each: impl FnMut(&Arc<Message>, u16, Option<&Key>) -> bool,
) -> Result<Offset, LogError> {
    let router = Router::new([routing]);
    let mut reads = budget.reads_at_a_time;
    while after < upto {
        let patterns = routing.patterns_after(after);
        if patterns.is_empty() {
            // It gets nothing more; no pattern would be every topic.
            return Ok(upto);
        }
        if reads == 0 || budget.reads == 0 {
            return Ok(after);
        }
        (reads, budget.reads) = (reads - 1, budget.reads - 1);
        let (messages_max, bytes_max) = (READ_MESSAGES_MAX, READ_BYTES_MAX);
        let batch = log.read(ReadRequest { after, upto, patterns, messages_max, bytes_max }).await?;
        for message in batch.messages.iter().filter(|message| routing.subscribes(message)) {
            let routed = router.message(message).to(0);
            if !each(message, routed.shard(routing.shards), routed.key.as_ref()) {
                return Ok(message.offset);
            }
        }
        after = batch.upto.max(after);
    }
    Ok(upto)
}

#[cfg(test)]
mod tests;
