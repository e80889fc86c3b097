//! One handler: its routing, its joined shards, and how those that are behind are brought back.

use super::Options;
use super::batch::ShardBatch;
use super::cursor::Cursor;
use super::recent::{Chunk, Recent};
use super::subscribers::Entry;
use crate::log::ReadRequest;
use crate::message::Offset;
use crate::routing::Routing;
use std::sync::Arc;
use tokio::sync::Notify;

/// A read asks for so much even where there is less memory: one message at a time it would read the log again and again.
const CHUNK_BYTES_MIN: usize = 64 * 1024;

/// The shards of one handler on this host.
pub(super) struct Subscription {
    pub(super) routing: Arc<Routing>,
    /// By index of the shard.
    pub(super) cursors: Vec<Option<Cursor>>,
    /// What the dispatcher sees of it outside the lock.
    pub(super) entry: Entry,
    /// Wakes the catch-up task.
    pub(super) wake: Arc<Notify>,
    live: usize,
    /// Each shard that is behind and has room is served once a round: one that is far behind does not hold back one
    /// that is nearly there.
    round: u64,
    /// Where the tail was when the idle shards were last looked after.
    swept: Offset,
}

/// What the catch-up task does next.
pub(super) enum Step {
    /// The handler is gone.
    End,
    /// Nothing until it is woken.
    Wait,
    /// These messages come next.
    Deliver(Chunk, Plan),
    /// The messages that come next are to be read.
    Read(ReadRequest, Plan),
}

/// Under which routing messages are delivered, after which offset they begin, and where the tail was then.
pub(super) struct Plan {
    pub(super) routing: Arc<Routing>,
    pub(super) after: Offset,
    pub(super) tail: Option<Offset>,
}

impl Subscription {
    pub(super) fn new(routing: Arc<Routing>, entry: Entry, wake: Arc<Notify>) -> Self {
        let cursors = cursors(&routing);
        Self { routing, cursors, entry, wake, live: 0, round: 1, swept: Offset::START }
    }

    /// Takes the new routing; returns the cursors of shards that no longer exist.
    pub(super) fn reroute(&mut self, routing: Arc<Routing>, entry: Entry) -> Vec<Cursor> {
        let count = usize::from(routing.shards.max(1));
        let gone: Vec<Cursor> = self.cursors.drain(count.min(self.cursors.len())..).flatten().collect();
        self.cursors.resize_with(count, || None);
        self.live -= gone.iter().filter(|cursor| cursor.live).count();
        if self.live > 0 {
            entry.activate();
        }
        (self.routing, self.entry) = (routing, entry);
        self.wake.notify_one();
        gone
    }

    /// Lets a shard join; returns the cursor it had. It is on the tail if it is not behind it.
    pub(super) fn join(&mut self, index: usize, cursor: Cursor, tail: Option<Offset>) -> Option<Cursor> {
        let old = self.leave(index);
        self.cursors[index] = Some(cursor);
        self.go_live_where_possible(tail);
        self.wake.notify_one();
        old
    }

    pub(super) fn leave(&mut self, index: usize) -> Option<Cursor> {
        let cursor = self.cursors.get_mut(index)?.take()?;
        if cursor.live {
            self.deactivate(1);
        }
        Some(cursor)
    }

    /// Delivers messages of the tail, sorted by shard, which reach from `tail` to `upto`.
    pub(super) fn dispatch(&mut self, batches: &mut [ShardBatch], tail: Option<Offset>, upto: Offset) {
        let mut dropped = 0;
        for (cursor, batch) in self.cursors.iter_mut().zip(batches).filter(|(_, batch)| !batch.is_empty()) {
            let Some(cursor) = cursor.as_mut().filter(|cursor| cursor.live) else {
                batch.clear();
                continue;
            };
            if !cursor.deliver(batch, cursor.position(tail), upto) {
                // Its position is after the last message it took: the tail has been past that.
                cursor.drop_off(None);
                dropped += 1;
            }
        }
        if dropped > 0 {
            self.deactivate(dropped);
            self.wake.notify_one();
        }
    }

    /// Takes every shard off the tail: it lost messages after `tail`.
    pub(super) fn drop_all_off(&mut self, tail: Option<Offset>) {
        for cursor in self.cursors.iter_mut().flatten().filter(|cursor| cursor.live) {
            cursor.drop_off(tail);
        }
        self.deactivate(self.live);
        self.wake.notify_one();
    }

    /// What the catch-up task does next.
    pub(super) fn step(
        &mut self,
        tail: Option<Offset>,
        read_to_end: Option<Offset>,
        recent: &Recent,
        options: &Options,
    ) -> Step {
        self.go_live_where_possible(tail);
        // With a tail, every shard that is behind has something to come.
        let mut end = if tail.is_some() { Offset::END } else { read_to_end.unwrap_or(Offset::END) };
        let (plan, patterns) = loop {
            let Some(after) = self.next_after(end) else {
                return Step::Wait;
            };
            let plan = Plan { routing: self.routing.clone(), after, tail };
            let patterns = plan.routing.patterns_after(after);
            // No pattern: the handler was removed before here. A log would take that for every topic and is not asked.
            match tail {
                _ if !patterns.is_empty() => break (plan, patterns),
                Some(tail) => return Step::Deliver(Chunk { upto: tail, ..Chunk::default() }, plan),
                None => end = after,
            }
        };
        let after = plan.after;
        // Where little memory is left less of it would be taken.
        let room = options.waiting.inbox_room().max(CHUNK_BYTES_MIN);
        let (messages_max, bytes_max) = (options.chunk_messages_max.max(1), options.chunk_bytes_max.clamp(1, room));
        if let Some(chunk) = tail.and_then(|_| recent.chunk(after, messages_max, bytes_max)) {
            return Step::Deliver(chunk, plan);
        }
        // Up to the end, not to the tail: the tail moves on meanwhile, and who reads past it is on it.
        let request = ReadRequest { after, upto: Offset::END, patterns, messages_max, bytes_max };
        Step::Read(request, plan)
    }

    /// Delivers what was planned to every shard that is behind and within it; says whether it was still of use.
    pub(super) fn deliver(
        &mut self,
        plan: &Plan,
        batches: &mut [ShardBatch],
        upto: Offset,
        tail: Option<Offset>,
        foreign_max: usize,
    ) -> bool {
        if !Arc::ptr_eq(&plan.routing, &self.routing) {
            return true;
        }
        let messages: usize = batches.iter().map(ShardBatch::len).sum();
        for (cursor, batch) in self.cursors.iter_mut().zip(batches) {
            let Some(cursor) = cursor.as_mut().filter(|cursor| !cursor.live) else { continue };
            let from = cursor.position(tail);
            if from < plan.after || upto <= from {
                continue;
            }
            let nothing = batch.is_empty();
            cursor.deliver(batch, from, upto);
            cursor.round = self.round;
            if nothing {
                cursor.count_foreign(messages, foreign_max);
            }
        }
        self.go_live_where_possible(tail);
        upto > plan.after
    }

    /// Tells shards that were told nothing since the last sweep where they are.
    pub(super) fn sweep(&mut self, tail: Option<Offset>) {
        for cursor in self.cursors.iter_mut().flatten().filter(|cursor| !cursor.told_since(self.swept)) {
            cursor.tell(cursor.position(tail));
        }
        self.swept = tail.unwrap_or(self.swept);
    }

    /// The least position below `end` of the shards with room that were not served in this round.
    fn next_after(&mut self, end: Offset) -> Option<Offset> {
        let mut next: Option<(bool, Offset)> = None;
        let wanting = |cursor: &&Cursor| !cursor.live && cursor.position(None) < end && cursor.queue.has_room();
        for cursor in self.cursors.iter().flatten().filter(wanting) {
            let place = (cursor.round >= self.round, cursor.position(None));
            next = Some(next.map_or(place, |next| next.min(place)));
        }
        let (all_served, after) = next?;
        if all_served {
            self.round += 1;
        }
        Some(after)
    }

    fn go_live_where_possible(&mut self, tail: Option<Offset>) {
        let Some(tail) = tail else { return };
        let mut joined = 0;
        for cursor in self.cursors.iter_mut().flatten().filter(|cursor| !cursor.live && cursor.position(None) >= tail) {
            cursor.go_live();
            joined += 1;
        }
        if joined > 0 {
            if self.live == 0 {
                self.entry.activate();
            }
            self.live += joined;
        }
    }

    fn deactivate(&mut self, count: usize) {
        self.live -= count;
        if self.live == 0 {
            self.entry.deactivate();
        }
    }
}

fn cursors(routing: &Routing) -> Vec<Option<Cursor>> {
    (0..routing.shards.max(1)).map(|_| None).collect()
}
