//! One handler: its routing, its joined shards, and how those that are behind are brought back.

use super::Options;
use super::part::Part;
use super::recent::{Chunk, Recent};
use super::seat::Seat;
use super::subscribers::Entry;
use crate::log::ReadRequest;
use crate::message::Offset;
use crate::routing::Routing;
use std::sync::Arc;
use tokio::sync::Notify;

/// The shards of one handler on this host.
pub(super) struct Feed {
    pub(super) routing: Arc<Routing>,
    /// By index of the shard.
    pub(super) seats: Vec<Option<Seat>>,
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

impl Feed {
    pub(super) fn new(routing: Arc<Routing>, entry: Entry, wake: Arc<Notify>) -> Self {
        let seats = seats(&routing);
        Self { routing, seats, entry, wake, live: 0, round: 1, swept: Offset::START }
    }

    /// Takes the new routing; returns the seats of shards that no longer exist.
    pub(super) fn reroute(&mut self, routing: Arc<Routing>, entry: Entry) -> Vec<Seat> {
        let count = usize::from(routing.shards.max(1));
        let gone: Vec<Seat> = self.seats.drain(count.min(self.seats.len())..).flatten().collect();
        self.seats.resize_with(count, || None);
        self.live -= gone.iter().filter(|seat| seat.live).count();
        if self.live > 0 {
            entry.activate();
        }
        (self.routing, self.entry) = (routing, entry);
        self.wake.notify_one();
        gone
    }

    /// Seats a shard; returns the seat it had. It is on the tail if it is not behind it.
    pub(super) fn seat(&mut self, index: usize, seat: Seat, tail: Option<Offset>) -> Option<Seat> {
        let old = self.unseat(index);
        self.seats[index] = Some(seat);
        self.go_live_where_possible(tail);
        self.wake.notify_one();
        old
    }

    pub(super) fn unseat(&mut self, index: usize) -> Option<Seat> {
        let seat = self.seats.get_mut(index)?.take()?;
        if seat.live {
            self.deactivate(1);
        }
        Some(seat)
    }

    /// Delivers messages of the tail, sorted by shard, which reach from `tail` to `upto`.
    pub(super) fn dispatch(&mut self, parts: &mut [Part], tail: Option<Offset>, upto: Offset) {
        let mut dropped = 0;
        for (seat, part) in self.seats.iter_mut().zip(parts).filter(|(_, part)| !part.is_empty()) {
            let Some(seat) = seat.as_mut().filter(|seat| seat.live) else {
                part.clear();
                continue;
            };
            if !seat.deliver(part, seat.position(tail), upto) {
                // Its position is after the last message it took: the tail has been past that.
                seat.drop_off(None);
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
        for seat in self.seats.iter_mut().flatten().filter(|seat| seat.live) {
            seat.drop_off(tail);
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
        let (messages_max, bytes_max) = (options.chunk_messages_max.max(1), options.chunk_bytes_max.max(1));
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
        parts: &mut [Part],
        upto: Offset,
        tail: Option<Offset>,
        foreign_max: usize,
    ) -> bool {
        if !Arc::ptr_eq(&plan.routing, &self.routing) {
            return true;
        }
        let messages: usize = parts.iter().map(Part::len).sum();
        for (seat, part) in self.seats.iter_mut().zip(parts) {
            let Some(seat) = seat.as_mut().filter(|seat| !seat.live) else { continue };
            let from = seat.position(tail);
            if from < plan.after || upto <= from {
                continue;
            }
            let nothing = part.is_empty();
            seat.deliver(part, from, upto);
            seat.round = self.round;
            if nothing {
                seat.count_foreign(messages, foreign_max);
            }
        }
        self.go_live_where_possible(tail);
        upto > plan.after
    }

    /// Tells shards that were told nothing since the last sweep where they are.
    pub(super) fn sweep(&mut self, tail: Option<Offset>) {
        for seat in self.seats.iter_mut().flatten().filter(|seat| !seat.told_since(self.swept)) {
            seat.tell(seat.position(tail));
        }
        self.swept = tail.unwrap_or(self.swept);
    }

    /// The least position below `end` of the shards with room that were not served in this round.
    fn next_after(&mut self, end: Offset) -> Option<Offset> {
        let mut next: Option<(bool, Offset)> = None;
        let wanting = |seat: &&Seat| !seat.live && seat.position(None) < end && seat.queue.has_room();
        for seat in self.seats.iter().flatten().filter(wanting) {
            let place = (seat.round >= self.round, seat.position(None));
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
        for seat in self.seats.iter_mut().flatten().filter(|seat| !seat.live && seat.position(None) >= tail) {
            seat.go_live();
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

fn seats(routing: &Routing) -> Vec<Option<Seat>> {
    (0..routing.shards.max(1)).map(|_| None).collect()
}
