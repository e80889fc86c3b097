//! A shard: takes messages up, keeps the lanes of their keys, and turns runs into commits.
//!
//! [`Shard`] is a state machine without IO: time, randomness, messages, run results and commit answers are handed in,
//! calls, reads and commits come out. the actor of the program drives it against the real log; the simulation steps it from a seed.
//!
//! It guarantees:
//! - one run at a time per lane, in log order, across retries (unless the handler gives order up: `skip`);
//! - everything a run caused is in one commit with the settling of its message;
//! - what is not settled at or below `read` has a head in the record, or is implied by its lane's head;
//! - at most one commit in flight; meanwhile it runs ahead on its own uncommitted writes.
//!
//! It leaves to others: which messages are its own ([`crate::routing`]), what a run's result means
//! ([`crate::pipeline`]), and making the commit durable (the committer of the program).

mod delayed;
mod lanes;
mod marks;
mod open;
mod operator;
mod reads;
mod stage;
mod staged;
mod state;
mod swap;

pub use staged::Report;

use crate::clock::Timestamp;
use crate::commit::{Claim, Control, DeadLetter, DeadQuery, HeadScope, Mark, Term};
use crate::effects::{Effects, Entries};
use crate::handler::{Digest, OnFailure, Policy, ShardId};
use crate::invoke::{Call, Failure};
use crate::message::{IdHash, Key, Offset};
use crate::pipeline::{self, Admission, Outcome, Settled, Verdict};
use crate::routing::{Routed, Routing};
use hashbrown::{HashMap, HashSet};
use lanes::{Item, Lanes, More, Phase};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Most lanes that wait for their state or message to be read.
const READS_MAX: usize = 1024;
/// Most messages fetched at a time: with bodies of 512 KiB that is 128 MiB.
const FETCHES_MAX: usize = 256;

/// The bounds of what a shard holds in memory and in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// With this many heads the shard stops reading: that many failing keys is an outage, and the log keeps the rest.
    pub open_max: usize,
    /// Most messages a lane holds in memory; the rest of the key waits in the log.
    pub lane_items_max: usize,
    /// Most bytes of messages that wait in memory.
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
}

/// How to go on after a commit was refused for its content: one message per commit until the culprit is found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caution {
    /// Messages up to here are committed one by one.
    pub upto: Offset,
    /// This message alone could not be committed, for this reason.
    pub uncommittable: Option<(Offset, String)>,
}

/// A run to make. Answer it with [`Shard::finish`].
#[derive(Debug)]
pub struct Run {
    /// Names the run among those in flight.
    pub lane: usize,
    pub call: Call,
}

/// What a shard needs read from the log. Each need is handed out once and must be answered.
#[derive(Debug, Default)]
pub struct Needs {
    /// Keys whose state is wanted: answer with [`Shard::loaded`].
    pub load: Vec<Key>,
    /// Messages wanted back: answer with [`Shard::fetched`].
    pub fetch: Vec<Offset>,
    /// A range to read the handler's messages of: answer with [`Shard::scanned`].
    pub scan: Option<Scan>,
    /// Dead letters that an operator's command is about: answer with [`Shard::dead_found`].
    pub dead: Option<DeadQuery>,
}

/// Messages with `after < offset <= upto` are wanted, in order, as many as fit one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    pub after: Offset,
    pub upto: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lane(usize, Offset),
    Skipped(Offset),
}

/// The state machine of one shard. See the module's words.
#[derive(Debug)]
pub struct Shard {
    setup: Setup,
    term: Term,
    /// The number of the last commit that is durable.
    committed: u64,
    in_flight: Option<InFlight>,
    read: Offset,
    read_staged: Offset,
    /// Every operator command up to here is applied.
    controlled: Offset,
    controlled_staged: Offset,
    control: Control,
    control_changed: bool,
    /// Letters up to this number were taken up by the first job under way.
    job_above: u64,
    /// An answer about dead letters is awaited.
    job_reads: bool,
    /// Dead letters whose removal is not yet durable: the log still shows them, and another command may mean them too.
    removing: HashSet<u64>,
    /// Write the record even if nothing was settled.
    flush: bool,
    lanes: Lanes,
    dirty: Vec<usize>,
    /// Messages that gave up their place and wait for their retry.
    skipped: HashMap<Offset, Item>,
    /// Heads of skipped messages that changed since the last staging.
    changes: open::Changes,
    ledger: open::Ledger,
    ready: VecDeque<usize>,
    timers: BinaryHeap<Reverse<(Timestamp, Timer)>>,
    running: usize,
    /// Ids in a sandbox now, and the lanes that wait for them.
    twins: HashMap<IdHash, Vec<usize>>,
    loading: HashMap<Key, ()>,
    wanted_load: VecDeque<Key>,
    /// Keys whose state was asked for and has not come.
    loads_in_flight: usize,
    wanted_fetch: VecDeque<(Offset, usize)>,
    fetching: HashMap<Offset, usize>,
    /// Skipped messages that are to be fetched, each once.
    skipped_wanted: HashSet<Offset>,
    /// Lanes that hold few items and have more in the log.
    hungry: Vec<usize>,
    /// The lanes that the scan under way is for; empty when none is.
    scanning: Vec<usize>,
    held_bytes: usize,
    marks: Option<marks::Marks>,
    state: state::StateCache,
    delayed: delayed::DelayedQueue,
    staged: staged::Staged,
    caution: Caution,
    /// The message settled last: in a cautious commit the only one.
    last_settled: Option<Offset>,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    report: Report,
    /// The one message of a cautious commit.
    only: Option<Offset>,
    /// Dead letters that it removes.
    removes: Vec<u64>,
}

impl Shard {
    /// A shard that goes on from its record.
    pub fn new(setup: Setup, claim: Claim, caution: Caution) -> Self {
        let record = claim.record;
        let marks = setup.policy.dedup.as_ref().map(|dedup| {
            let share = dedup.marks_max.div_ceil(usize::from(setup.routing.shards.max(1)));
            marks::Marks::new(dedup.window, share, &record.marks)
        });
        let mut shard = Self {
            term: claim.term,
            committed: record.commit_number,
            in_flight: None,
            read: record.read,
            read_staged: record.read,
            controlled: record.controlled,
            controlled_staged: record.controlled,
            control: record.control,
            control_changed: false,
            job_above: 0,
            job_reads: false,
            removing: HashSet::new(),
            flush: false,
            lanes: Lanes::default(),
            dirty: Vec::new(),
            skipped: HashMap::new(),
            changes: open::Changes::default(),
            ledger: open::Ledger::new(&record.open),
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            running: 0,
            twins: HashMap::new(),
            loading: HashMap::new(),
            wanted_load: VecDeque::new(),
            loads_in_flight: 0,
            wanted_fetch: VecDeque::new(),
            fetching: HashMap::new(),
            skipped_wanted: HashSet::new(),
            hungry: Vec::new(),
            scanning: Vec::new(),
            held_bytes: 0,
            marks,
            state: state::StateCache::new(setup.bounds.state_bytes_max),
            delayed: delayed::DelayedQueue::new(record.delayed),
            staged: staged::Staged::default(),
            caution,
            last_settled: None,
            setup,
        };
        shard.restore(record.open);
        shard
    }

    /// Lanes of the heads in the record; what follows a head is read again from the log when its turn comes.
    fn restore(&mut self, open: Vec<crate::commit::Head>) {
        for head in open {
            // The module that failed is no longer in force: the fix may be here.
            let swapped = head.digest.is_some() && head.digest != self.setup.digest;
            let item = Item {
                attempt: head.attempt,
                due: if swapped { Timestamp(0) } else { head.due },
                error: head.error,
                digest: head.digest,
                alone: head.scope == HeadScope::Message && head.key.is_some(),
                ..Item::in_log(head.offset)
            };
            let hash = Routing::lane_hash(head.key.as_ref(), head.offset);
            if item.alone {
                self.timers.push(Reverse((item.due, Timer::Skipped(item.offset))));
                self.skipped.insert(item.offset, Item { routed: None, ..item });
                // The key comes back with the message.
                continue;
            }
            let at = self.lanes.of(hash, head.key.as_ref(), head.offset);
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            lane.recorded = Some(head.offset);
            if head.scope != HeadScope::After {
                lane.items.push_back(item);
            }
            if head.scope != HeadScope::Message && head.offset < self.read {
                lane.more = Some(More { after: head.offset, last: self.read, own: head.offset });
            }
            self.resume(at);
        }
    }

    pub fn id(&self) -> &ShardId {
        &self.setup.id
    }

    /// Up to here messages were taken up, in memory.
    pub fn read(&self) -> Offset {
        self.read
    }

    /// Heads that would be in the record if it were written now.
    pub fn open_len(&self) -> usize {
        self.lanes.len() + self.skipped.len()
    }

    /// Whether the count of bytes held is the sum over all that is held; for tests.
    #[doc(hidden)]
    pub fn held_bytes_add_up(&self) -> bool {
        let items = self.lanes.iter().flat_map(|(_, lane)| lane.items.iter()).chain(self.skipped.values());
        items.map(Item::held_bytes).sum::<usize>() == self.held_bytes
    }

    /// Messages held back until they are due.
    pub fn delayed_len(&self) -> usize {
        self.delayed.len()
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
        self.running == 0 && self.staged.is_empty() && self.in_flight.is_none()
    }

    /// Whether another message may be taken up now.
    pub fn wants_messages(&self) -> bool {
        self.open_len() < self.setup.bounds.open_max
            && self.held_bytes < self.setup.bounds.held_bytes_max
            && self.loading.len() + self.fetching.len() + self.wanted_fetch.len() < READS_MAX
            && self.may_act()
            && !self.only_lane_is_full()
    }

    /// Whether runs may be started and outcomes staged.
    fn may_act(&self) -> bool {
        // One message per commit while the culprit of a refused commit is looked for.
        let cautious = self.caution.upto > Offset::START && !self.is_idle();
        !self.staged.is_full() && !cautious && !self.control.paused && !self.delayed.is_full()
    }

    /// A handler with one lane only would race through the log and read it again in pieces: it waits instead.
    fn only_lane_is_full(&self) -> bool {
        self.setup.routing.key == crate::routing::KeyFrom::All
            && self
                .lanes
                .iter()
                .any(|(_, lane)| lane.items.len() >= self.setup.bounds.lane_items_max || lane.more.is_some())
    }

    /// Takes a message up. Its offset is greater than all before.
    pub fn offer(&mut self, routed: Routed) {
        let message = &routed.message;
        let offset = message.offset;
        debug_assert!(offset > self.read, "{}: {offset} after {}", self.setup.id, self.read);
        self.read = self.read.max(offset);
        if let Some(marks) = &mut self.marks {
            marks.taken_up(offset, message.time);
        }
        let at = self.lanes.of(routed.hash, routed.key.as_ref(), offset);
        let Some(lane) = self.lanes.get_mut(at) else { return };
        // What waits long gave its memory back, and what comes after it stays in the log too.
        let shed = matches!(lane.phase, Phase::Waiting | Phase::Paused)
            && lane.items.front().is_some_and(|item| item.routed.is_none());
        let full = shed
            || lane.items.len() >= self.setup.bounds.lane_items_max
            || self.held_bytes >= self.setup.bounds.held_bytes_max;
        if lane.more.is_some() || (full && !lane.items.is_empty()) {
            lane.leave(offset);
        } else {
            let item = Item::new(routed);
            self.held_bytes += item.held_bytes();
            lane.items.push_back(item);
        }
        self.mark_dirty(at);
        if self.lanes.get(at).is_some_and(|lane| lane.phase == Phase::Empty) {
            self.resume(at);
        }
    }

    /// Every message of this shard up to `upto` was offered. `flush` writes `read` even if nothing else happened.
    pub fn reached(&mut self, upto: Offset, flush: bool) {
        self.read = self.read.max(upto);
        self.flush |= flush;
    }

    /// The next run to make; settles what needs none (duplicates, what cannot run) on the way.
    pub fn next_run(&mut self, now: Timestamp) -> Option<Run> {
        while self.may_act() {
            let at = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.phase == Phase::Ready) else { continue };
            let Some(item) = lane.items.front() else { continue };
            let Some(routed) = &item.routed else { continue };
            if lane.key.as_ref().is_some_and(|key| self.control.paused_keys.contains(key)) {
                lane.phase = Phase::Paused;
                self.held_bytes -= lane.shed();
                self.mark_dirty(at);
                continue;
            }
            let (policy, message) = (&*self.setup.policy, &routed.message);
            let id = routed.id_hash().filter(|_| pipeline::deduplicates(policy, message));
            if let Some(waiting) = id.and_then(|id| self.twins.get_mut(&id)) {
                waiting.push(at);
                lane.phase = Phase::Twin;
                continue;
            }
            let marks = &self.marks;
            let admission = match &self.caution.uncommittable {
                Some((offset, reason)) if *offset == message.offset => {
                    Admission::Dead(Verdict { kind: "uncommittable", error: pipeline::clip(reason.clone()) })
                }
                _ => pipeline::admit(routed, policy, |routed| {
                    id.is_some_and(|id| marks.as_ref().is_some_and(|marks| marks.done(id, routed.message.time)))
                }),
            };
            match admission {
                Admission::Run => {
                    let state = match &routed.key {
                        Some(key) if self.setup.uses_state => match self.state.get(key) {
                            Some(entries) => entries.clone(),
                            // Evicted since it became ready.
                            None => {
                                self.resume(at);
                                continue;
                            }
                        },
                        _ => Entries::default(),
                    };
                    let call = Call {
                        message: message.clone(),
                        key: routed.key.clone(),
                        attempt: item.attempt.saturating_add(1),
                        state,
                    };
                    lane.phase = Phase::Running;
                    self.running += 1;
                    if let Some(id) = id {
                        self.twins.insert(id, Vec::new());
                    }
                    return Some(Run { lane: at, call });
                }
                Admission::Duplicate => {
                    self.staged.settled(message, Settled::Duplicate);
                    self.pop_first(at);
                }
                Admission::Dead(verdict) => {
                    let attempts = item.attempt;
                    self.give_up(at, verdict, attempts, None, now);
                }
            }
        }
        None
    }

    /// Takes the result of a run. `random` is uniform in [0, 1).
    pub fn finish(
        &mut self,
        at: usize,
        result: Result<Effects, Failure>,
        digest: Option<Digest>,
        random: f64,
        now: Timestamp,
    ) {
        let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.phase == Phase::Running) else { return };
        let Some(item) = lane.items.front() else { return };
        let Some(routed) = item.routed.clone() else { return };
        let attempt = item.attempt.saturating_add(1);
        self.running -= 1;
        lane.phase = Phase::Empty;
        let id = self.release_twins(&routed);
        match pipeline::settle(result, attempt, &self.setup.policy, random, now) {
            Outcome::Done(effects) => {
                if let (Some(id), Some(marks)) = (id, &mut self.marks) {
                    // The mark is in the same commit as the effects: a crash before it redelivers, and nothing was done.
                    let mark = Mark { id, time: routed.message.time };
                    marks.insert(mark);
                    self.staged.marks.push(mark);
                }
                self.stage_effects(&routed, effects, now);
                self.staged.settled(&routed.message, Settled::Done);
                self.pop_first(at);
            }
            Outcome::Retry { due, error } => {
                self.staged.settled(&routed.message, Settled::Retry);
                self.put_off(at, attempt, due, error, digest, now);
            }
            Outcome::Dead(verdict) => self.give_up(at, verdict, attempt, digest, now),
        }
    }

    /// A message is in a sandbox no more: who waits for its id goes on. The id, if it is remembered.
    fn release_twins(&mut self, routed: &Routed) -> Option<IdHash> {
        let id = routed.id_hash().filter(|_| pipeline::deduplicates(&self.setup.policy, &routed.message));
        if let Some(waiting) = id.and_then(|id| self.twins.remove(&id)) {
            waiting.into_iter().for_each(|twin| self.resume(twin));
        }
        id
    }

    /// The first item of the lane is settled.
    fn pop_first(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        lane.phase = Phase::Empty;
        if let Some(item) = lane.items.pop_front() {
            self.held_bytes -= item.held_bytes();
            self.last_settled = Some(item.offset);
            if item.alone {
                self.changes.settle(item.offset);
            }
        }
        self.mark_dirty(at);
        self.resume(at);
    }

    fn put_off(
        &mut self,
        at: usize,
        attempt: u32,
        due: Timestamp,
        error: Arc<str>,
        digest: Option<Digest>,
        now: Timestamp,
    ) {
        let skip = self.setup.policy.on_failure == OnFailure::Skip;
        let long = due.since(now) > self.setup.bounds.shed_after;
        let Some(lane) = self.lanes.get_mut(at) else { return };
        // Messages that gave up their place before cannot stand for the lane.
        let is_last_own = lane.items.iter().skip(1).all(|item| item.alone);
        let Some(item) = lane.items.front_mut() else { return };
        (item.attempt, item.due, item.error, item.digest) = (attempt, due, error, digest);
        self.last_settled = Some(item.offset);
        // With the next message only in the log its offset is not known, so the lane's head could not move on: it waits.
        let gives_up_place = skip && lane.key.is_some() && !(is_last_own && lane.more.is_some());
        if gives_up_place || item.alone {
            let Some(mut item) = lane.items.pop_front() else { return };
            item.alone = true;
            if long {
                self.held_bytes -= item.held_bytes();
                item.routed = None;
            }
            self.timers.push(Reverse((due, Timer::Skipped(item.offset))));
            self.changes.put(item.head(lane.key.clone(), HeadScope::Message));
            self.skipped.insert(item.offset, item);
        } else if long {
            self.held_bytes -= lane.shed();
        }
        self.mark_dirty(at);
        self.resume(at);
    }

    /// The first item of the lane becomes a dead letter.
    fn give_up(&mut self, at: usize, verdict: Verdict, attempts: u32, digest: Option<Digest>, now: Timestamp) {
        let Some(item) = self.lanes.get(at).and_then(|lane| lane.items.front()) else { return };
        let Some(routed) = &item.routed else { return };
        self.staged.settled(&routed.message, Settled::Dead);
        self.staged.dead(DeadLetter {
            shard: self.setup.id.clone(),
            message: routed.message.clone(),
            key: routed.key.clone(),
            attempts,
            kind: verdict.kind.to_owned(),
            error: verdict.error,
            digest: digest.or(item.digest),
            time: now,
        });
        self.pop_first(at);
    }

    /// Decides what an idle lane does next.
    fn resume(&mut self, at: usize) {
        let wants_fill = self.wants_fill(at);
        let Some(lane) = self.lanes.get_mut(at) else { return };
        if lane.phase == Phase::Running {
            return;
        }
        lane.phase = Phase::Empty;
        if wants_fill {
            self.hungry.push(at);
        }
        let Some(item) = lane.items.front() else {
            if lane.is_done() && lane.recorded.is_none() {
                // Nothing of it was ever written, so nothing has to be unwritten.
                self.lanes.remove(at);
            }
            return;
        };
        let offset = item.offset;
        if item.due > Timestamp(0) && item.attempt > 0 && !item.alone {
            // Timers compare with the wall clock; a due time in the past fires at the next look.
            lane.phase = Phase::Waiting;
            self.timers.push(Reverse((item.due, Timer::Lane(at, offset))));
            return;
        }
        self.prepare(at);
    }

    /// The first item of the lane is due: it needs its message and its state before it is ready.
    fn prepare(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let Some(item) = lane.items.front() else { return };
        match &item.routed {
            None => {
                lane.phase = Phase::Fetching;
                self.wanted_fetch.push_back((item.offset, at));
            }
            Some(routed) => match &routed.key {
                Some(key) if self.setup.uses_state && routed.unroutable.is_none() && self.state.get(key).is_none() => {
                    lane.phase = Phase::Loading;
                    if self.loading.insert(key.clone(), ()).is_none() {
                        self.wanted_load.push_back(key.clone());
                    }
                }
                _ => {
                    lane.phase = Phase::Ready;
                    self.ready.push_back(at);
                }
            },
        }
    }

    /// Wakes what is due: lanes, skipped messages, delayed messages.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some(Reverse((due, timer))) = self.timers.peek().copied()
            && due <= now
        {
            self.timers.pop();
            match timer {
                Timer::Lane(at, offset) => {
                    let waits = self.lanes.get(at).is_some_and(|lane| {
                        lane.phase == Phase::Waiting
                            && lane.items.front().is_some_and(|item| item.offset == offset && item.due == due)
                    });
                    if waits {
                        self.prepare(at);
                    }
                }
                Timer::Skipped(offset) => {
                    if self.skipped.get(&offset).is_some_and(|item| item.due == due) {
                        self.rejoin(offset);
                    }
                }
            }
        }
        while !self.staged.is_full()
            && let Some((number, message)) = self.delayed.take_due(now)
        {
            self.staged.release(number, message);
        }
    }

    /// When the shard should be woken next; in the past if something is due already.
    pub fn next_due(&self) -> Option<Timestamp> {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let delayed = self.delayed.next_due().filter(|_| !self.staged.is_full());
        timer.into_iter().chain(delayed).min()
    }

    /// A skipped message is due: it goes to the front of its key's lane.
    fn rejoin(&mut self, offset: Offset) {
        let Some(item) = self.skipped.get(&offset) else { return };
        let Some(routed) = &item.routed else {
            if self.skipped_wanted.insert(offset) {
                self.wanted_fetch.push_back((offset, usize::MAX));
            }
            return;
        };
        let at = self.lanes.of(routed.hash, routed.key.as_ref(), offset);
        let Some(item) = self.skipped.remove(&offset) else { return };
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let second = usize::from(lane.phase == Phase::Running);
        lane.items.insert(second, item);
        self.resume(at);
    }

    fn mark_dirty(&mut self, at: usize) {
        if let Some(lane) = self.lanes.get_mut(at)
            && !lane.dirty
        {
            lane.dirty = true;
            self.dirty.push(at);
        }
    }
}
