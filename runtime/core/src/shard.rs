//! A shard: takes messages up, keeps the lanes of their keys, and turns runs into commits.
//!
//! [`Shard`] is a state machine without IO: time, randomness, messages, run results and commit answers are handed in,
//! calls, reads and commits come out. The actor of the program drives it against the real log; the simulation steps it from a seed.
//!
//! It guarantees:
//! - one run at a time per lane, in log order, across retries (unless the handler gives order up: `skip`);
//! - everything a run caused is in one commit with the settling of its message;
//! - what is not settled at or below `read` has a head in the record, or is implied by its lane's head;
//! - at most one commit in flight; meanwhile it runs ahead on its own uncommitted writes.
//!
//! It leaves to others: which messages are its own ([`crate::routing`]), what a run's result means
//! ([`crate::pipeline`]), and making the commit durable (the committer of the program).

mod caution;
mod claimed;
mod commits;
mod delayed;
mod held;
mod items;
mod lanes;
mod marks;
mod open;
mod operator;
mod orders;
mod origin;
mod passed;
mod position;
mod reads;
mod report;
mod rest;
mod resume;
mod retry_now;
mod run;
mod runs;
mod skipped;
mod stage;
mod staged;
mod state;
mod swap;
mod timers;
mod wanted;

pub use caution::Caution;
pub use delayed::{Amount, FULL as DELAYED_FULL};
pub use held::Allowance;
pub use marks::Remembered;
pub use reads::{Needs, Scan};
pub use report::{Report, Settlements, Traced};
pub use rest::Keep;
pub use run::{Finish, Run};

use crate::clock::Timestamp;
use crate::commit::{Claim, Head, HeadScope, LogId};
use crate::handler::{Digest, Policy, ShardId};
use crate::message::Offset;
use crate::routing::{KeyFrom, Routed, Routing};
use items::Item;
use lanes::{Lanes, More, Phase};
use std::sync::Arc;
use std::time::Duration;
use timers::Timer;

/// The bounds of what a shard holds in memory and in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// With this many heads the shard stops reading: that many failing keys is an outage, and the log keeps the rest.
    pub open_max: usize,
    /// Most messages a lane holds in memory; the rest of the key waits in the log.
    pub lane_items_max: usize,
    /// Most bytes of messages that wait in memory or are on their way there; the host may allow less.
    pub held_bytes_max: usize,
    /// Most bytes of cached states.
    pub state_bytes_max: usize,
    /// A lane that waits longer than this for a retry gives back the memory of its messages.
    pub shed_after: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            open_max: 100_000,
            lane_items_max: 256,
            held_bytes_max: 8 * 1024 * 1024,
            state_bytes_max: 8 * 1024 * 1024,
            shed_after: Duration::from_secs(1),
        }
    }
}

/// What a shard is made for.
#[derive(Clone, Debug)]
pub struct Setup {
    pub id: ShardId,
    pub routing: Arc<Routing>,
    pub policy: Arc<Policy>,
    /// Whether runs need the state of their key loaded.
    pub uses_state: bool,
    /// The module in force; heads that failed under another one are due at once.
    pub digest: Option<Digest>,
    pub bounds: Bounds,
    /// Shared by the shards of the handler.
    pub remembered: Remembered,
}

/// The state machine of one shard. See the module's words.
#[derive(Debug)]
pub struct Shard {
    setup: Setup,
    log: LogId,
    position: position::Position,
    commits: commits::Commits,
    staged: staged::Staged,
    caution: Caution,
    lanes: Lanes,
    skipped: skipped::Skipped,
    open: open::Open,
    runs: runs::Runs,
    timers: timers::Timers,
    wanted: wanted::Wanted,
    held: held::Held,
    orders: orders::Orders,
    marks: Option<marks::Marks>,
    state: state::StateCache,
    delayed: delayed::DelayedQueue,
}

impl Shard {
    /// A shard that goes on from its record.
    pub fn new(setup: Setup, claim: Claim, caution: Caution) -> Self {
        let record = claim.record;
        let marks = setup.policy.dedup.as_ref().map(|dedup| {
            let share = dedup.marks_max.div_ceil(usize::from(setup.routing.shards.max(1)));
            let bounds = marks::MarkBounds { window: dedup.window, marks_max: dedup.marks_max, share };
            marks::Marks::new(bounds, setup.remembered.clone(), &record.marks)
        });
        let mut shard = Self {
            log: claim.log,
            position: position::Position::new(record.read, record.controlled),
            commits: commits::Commits::new(claim.term, record.commit_number),
            staged: staged::Staged::default(),
            caution,
            lanes: Lanes::default(),
            skipped: skipped::Skipped::default(),
            open: open::Open::new(&record.open),
            runs: runs::Runs::default(),
            timers: timers::Timers::default(),
            wanted: wanted::Wanted::default(),
            held: held::Held::new(setup.bounds.held_bytes_max),
            orders: orders::Orders::new(record.control, setup.id.index),
            marks,
            state: state::StateCache::new(setup.bounds.state_bytes_max),
            delayed: delayed::DelayedQueue::new(record.delayed),
            setup,
        };
        shard.restore(record.open);
        shard
    }

    /// Lanes of the heads in the record; what follows a head is read again from the log when its turn comes.
    fn restore(&mut self, open: Vec<Head>) {
        let read = self.position.read();
        for head in open {
            // The module that failed is no longer in force: the fix may be here.
            let swapped = head.digest.is_some() && head.digest != self.setup.digest;
            let mut item = Item::recorded(&head);
            if swapped {
                item.due = Timestamp(0);
            }
            if item.alone {
                // The key comes back with the message.
                self.timers.set(item.due, Timer::Skipped(head.offset));
                self.skipped.insert(head.offset, head.key.clone(), item);
                continue;
            }
            let hash = Routing::lane_hash(head.key.as_ref(), head.offset);
            let at = self.lanes.of(hash, head.key.as_ref(), head.offset.into());
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            lane.recorded = Some(head.offset);
            if head.scope != HeadScope::After {
                lane.items.push_back(item);
            }
            if head.scope != HeadScope::Message && head.offset < read {
                lane.more = Some(More { after: head.offset, last: read, own: head.offset });
            }
            self.resume(at);
        }
    }

    pub fn id(&self) -> &ShardId {
        &self.setup.id
    }

    /// Up to here messages were taken up, in memory.
    pub fn read(&self) -> Offset {
        self.position.read()
    }

    /// Heads that would be in the record if it were written now.
    pub fn open_len(&self) -> usize {
        self.lanes.len() + self.skipped.len()
    }

    /// Whether the count of bytes held is the sum over all that is held; for tests.
    #[doc(hidden)]
    pub fn held_bytes_add_up(&self) -> bool {
        let items = self.lanes.iter().flat_map(|(_, lane)| lane.items.iter()).chain(self.skipped.iter());
        items.map(Item::held_bytes).sum::<usize>() == self.held.waiting_bytes()
    }

    /// Bytes of messages that wait in memory or are on their way there.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// What it may hold from now on.
    pub fn allow(&mut self, allowed: Allowance) {
        self.held.allow(allowed);
    }

    /// Messages held back until they are due.
    pub fn delayed(&self) -> Amount {
        self.delayed.amount()
    }

    /// What the handler's other shards hold back: with its own it is bounded.
    pub fn delayed_beside(&mut self, others: Amount) {
        self.delayed.beside(others);
    }

    pub fn marks_len(&self) -> usize {
        self.marks.as_ref().map_or(0, marks::Marks::len)
    }

    /// How a new claim should go on after a commit that was not refused.
    pub fn caution(&self) -> &Caution {
        &self.caution
    }

    /// Nothing runs, nothing is staged, no commit is in flight.
    pub fn is_idle(&self) -> bool {
        self.runs.is_idle() && self.staged.is_empty() && self.commits.in_flight().is_none()
    }

    /// Whether each message that was taken up was tried here, and nothing is under way: what is not settled waits for
    /// another try. Goes through all that waits.
    pub fn are_all_tried(&self) -> bool {
        // One that the record names and that was not tried since has never been in memory.
        let is_tried = |item: &Item| item.has_failed() && item.held_bytes().max(item.bytes_in_log()) > 0;
        let is_lane_tried = |lane: &lanes::Lane| lane.more.is_none() && lane.items.iter().all(is_tried);
        self.is_idle() && self.lanes.iter().all(|(_, lane)| is_lane_tried(lane)) && self.skipped.iter().all(is_tried)
    }

    /// Whether another message may be taken up now.
    pub fn wants_messages(&self) -> bool {
        self.open_len() < self.setup.bounds.open_max
            && !self.is_full()
            && !self.wanted.is_full()
            && self.may_act()
            && !self.only_lane_is_full()
    }

    /// Whether memory has no room for a new message.
    fn is_full(&self) -> bool {
        self.held.is_full() || (self.wanted.messages.are_queued() && self.held.is_full_beside_fetches())
    }

    /// Whether runs may be started and outcomes staged.
    fn may_act(&self) -> bool {
        // One message per commit while the culprit of a refused commit is looked for.
        let waits = self.caution.is_on() && !self.is_idle();
        !self.staged.is_full() && !waits && !self.orders.control().paused
    }

    /// A handler with one lane only would race through the log and read it again in pieces: it waits instead.
    fn only_lane_is_full(&self) -> bool {
        let is_full = |lane: &lanes::Lane| lane.items.len() >= self.setup.bounds.lane_items_max || lane.more.is_some();
        self.setup.routing.key == KeyFrom::All && self.lanes.iter().any(|(_, lane)| is_full(lane))
    }

    /// Takes a message up. Its offset is greater than all before.
    pub fn offer(&mut self, routed: Routed) {
        let message = &routed.message;
        let offset = message.offset;
        debug_assert!(offset > self.read(), "{}: {offset} after {}", self.setup.id, self.read());
        self.position.read_to(offset);
        if let Some(marks) = &mut self.marks {
            marks.taken_up(offset, message.time);
        }
        let at = self.lanes.of(routed.hash, routed.key.as_ref(), offset.into());
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let full = lane.is_shed() || lane.items.len() >= self.setup.bounds.lane_items_max || self.held.is_tight();
        if lane.more.is_some() || (full && !lane.items.is_empty()) {
            lane.leave(offset);
        } else {
            let item = Item::new(routed);
            self.held.take(&item);
            lane.items.push_back(item);
        }
        let idle = lane.phase == Phase::Empty;
        self.lanes.touch(at);
        if idle {
            self.resume(at);
        }
    }

    /// Every message of this shard up to `upto` was offered. `flush` writes `read` even if nothing else happened.
    pub fn reached(&mut self, upto: Offset, flush: bool) {
        self.position.read_to(upto);
        if flush {
            self.position.flush();
        }
    }
}
