//! The world of one seed: hosts with their shards, a log, clocks, and what happens next.

use super::Bug;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicebox::clock::{self, Timestamp};
use sluicebox::commit::{LogId, ShardCommit, Term};
use sluicebox::handler::{BreakerSettings, Dedup, DelayedBound, HandlerName, OnFailure, Policy, Retry, ShardId, Trip};
use sluicebox::log::memory::MemoryCore;
use sluicebox::message::{Message, Offset};
use sluicebox::pipeline::breaker::{Breaker, Ticket};
use sluicebox::routing::{IdFrom, KeyFrom, Routed, Routing, Since, Span};
use sluicebox::shard::{Allowance, Bounds, Caution, Keep, Needs, Run, Setup, Shard};
use sluicebox::topic::Pattern;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One shard on one host.
pub struct Instance {
    pub shard: Shard,
    pub inbox: VecDeque<Routed>,
    pub inbox_upto: Offset,
    pub runs: Vec<(Run, Ticket)>,
    pub needs: Vec<Needs>,
    pub commit: Option<ShardCommit>,
    /// The inputs that the runs since the last commit completed.
    pub finished: Vec<Offset>,
    pub committing: Vec<Offset>,
}

pub struct World {
    pub rng: StdRng,
    pub bug: Option<Bug>,
    pub log: MemoryCore,
    /// Every message that ever was in the log: `retain` deletes the old ones there.
    pub archive: Vec<Arc<Message>>,
    /// What a load of stale state would see.
    pub old_log: MemoryCore,
    pub setups: Vec<Setup>,
    pub instances: Vec<Instance>,
    /// Commits that left a host which has given them up: they may still arrive.
    pub late: Vec<ShardCommit>,
    pub wall: Timestamp,
    pub log_clock: Timestamp,
    /// Time as it really passed, by the log's clock.
    pub passed: Timestamp,
    /// When, by that, each message of the archive came.
    pub came: BTreeMap<Offset, Timestamp>,
    /// Nothing waits longer.
    pub wait_max: Duration,
    pub faults: bool,
    pub next_body: u64,
    pub shown: Vec<(Offset, bool)>,
    pub counted: u64,
    /// One for each handler.
    pub breakers: BTreeMap<HandlerName, Breaker>,
    /// The monotonic clock.
    pub instant: Instant,
    /// Modules that were in force.
    pub swaps: u64,
    /// Dead letters that a commit removed, by handler and offset.
    pub removed: BTreeSet<(HandlerName, Offset)>,
    /// Handlers of which letters were dropped, not only retried.
    pub dropped: BTreeSet<HandlerName>,
    /// Commands about dead letters, and the shards that refused them.
    pub dead_commands: Vec<(Offset, HandlerName, sluicebox::commit::DeadFilter)>,
    pub refused: BTreeSet<(Offset, ShardId)>,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let log = MemoryCore::new(LogId(seed.into()));
        let mut setups = vec![];
        // Of the log's time, which moves by a few milliseconds per append: shorter than a key may wait, or longer than all.
        let window_ms = if rng.random_bool(0.5) { rng.random_range(20..400) } else { 3_600_000 };
        for (name, subscribe) in [("first", "in.*"), ("second", "out.first")] {
            let policy = Policy {
                dedup: rng
                    .random_bool(0.8)
                    .then(|| Dedup { window: Duration::from_millis(window_ms), ..Dedup::default() }),
                retry: Retry {
                    attempts: rng.random_range(1..5),
                    min: Duration::from_millis(50),
                    max: Duration::from_secs(3),
                },
                on_failure: if rng.random_bool(0.5) { OnFailure::Park } else { OnFailure::Skip },
                breaker: rng.random_bool(0.7).then(|| BreakerSettings {
                    trip: match rng.random_range(0..3) {
                        0 => Trip::Consecutive { failures: rng.random_range(1..4) },
                        1 => Trip::Count { failures: rng.random_range(1..6), window: Duration::from_secs(1) },
                        _ => Trip::Rate { percent: 50, samples: 4, window: Duration::from_secs(1) },
                    },
                    wait: Duration::from_millis(rng.random_range(1..500)),
                    max_wait: Duration::from_secs(2),
                }),
                delayed: DelayedBound { messages_max: rng.random_range(1..8), ..DelayedBound::default() },
                ..Policy::default()
            };
            let keys = if rng.random_bool(0.85) { KeyFrom::Message } else { KeyFrom::All };
            let routing = Arc::new(Routing {
                handler: HandlerName::parse(name).unwrap(),
                key: keys,
                id: IdFrom::Message,
                shards: rng.random_range(1..4),
                recorded: Offset::START,
                identity: Since::default(),
                spans: vec![Span { after: Offset::START, subscribe: vec![Pattern::parse(subscribe).unwrap()] }],
            });
            let policy = Arc::new(policy);
            // Small enough that lanes overflow into the log and states are evicted.
            let bounds = Bounds {
                open_max: rng.random_range(3..50),
                lane_items_max: rng.random_range(1..12),
                held_bytes_max: rng.random_range(300..10_000),
                state_bytes_max: rng.random_range(200..2_000),
                shed_after: Duration::from_millis(rng.random_range(0..2_000)),
            };
            for index in 0..routing.shards {
                let id = ShardId { handler: routing.handler.clone(), index };
                setups.push(Setup {
                    id,
                    routing: routing.clone(),
                    policy: policy.clone(),
                    uses_state: true,
                    digest: None,
                    bounds,
                    remembered: Default::default(),
                });
            }
        }
        let mut world = World {
            rng,
            bug,
            archive: vec![],
            old_log: log.clone(),
            log,
            breakers: setups
                .iter()
                .map(|setup: &Setup| (setup.id.handler.clone(), Breaker::new(breaker_settings(&setup.policy))))
                .collect(),
            instant: clock::instant(),
            swaps: 0,
            removed: BTreeSet::new(),
            dropped: BTreeSet::new(),
            dead_commands: vec![],
            refused: BTreeSet::new(),
            setups,
            instances: vec![],
            late: vec![],
            wall: super::clocks::BEGIN,
            log_clock: super::clocks::BEGIN,
            passed: super::clocks::BEGIN,
            came: BTreeMap::new(),
            wait_max: super::clocks::WAIT_MAX,
            faults: true,
            next_body: 0,
            shown: vec![],
            counted: 0,
        };
        for setup in world.setups.clone() {
            let instance = world.claim(setup, Caution::default());
            world.instances.push(instance);
        }
        world
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub fn fault(&mut self, probability: f64) -> bool {
        self.faults && self.rng.random_bool(probability)
    }

    pub fn claim(&mut self, setup: Setup, caution: Caution) -> Instance {
        let mut claim = self.log.claim(&setup.id, setup.routing.start());
        match self.bug {
            Some(Bug::OpenDroppedAtClaim) => claim.record.open.clear(),
            Some(Bug::MarksLostAtClaim) => claim.record.marks.clear(),
            Some(Bug::DelayedLostAtClaim) => claim.record.delayed.clear(),
            Some(Bug::ControlLostAtClaim) => claim.record.control = Default::default(),
            Some(Bug::ReadNotMovedBack) if claim.term > Term(1) => {
                claim.record.read = claim.record.read.max(self.log.end())
            }
            _ => {}
        }
        let upto = claim.record.read;
        if claim.record.control.tripped {
            self.breaker(&setup.id.handler).trip();
        }
        let shard = match self.bug {
            Some(Bug::WaitsLeftAhead) => Shard::new(setup, claim, caution),
            _ => Shard::claimed(setup, claim, caution, self.wall).0,
        };
        Instance {
            shard,
            inbox: VecDeque::new(),
            inbox_upto: upto,
            runs: vec![],
            needs: vec![],
            commit: None,
            finished: vec![],
            committing: vec![],
        }
    }

    /// Throws an instance's memory away and claims its shard again.
    pub fn reclaim(&mut self, at: usize, caution: Caution) {
        self.drop_runs(at);
        let setup = self.setup_of(at);
        self.instances[at] = self.claim(setup, caution);
    }

    pub fn setup_of(&self, at: usize) -> Setup {
        let id = self.instances[at].shard.id();
        self.setups.iter().find(|setup| setup.id == *id).unwrap().clone()
    }

    pub fn step(&mut self) {
        let at = self.rng.random_range(0..self.instances.len());
        self.instant += Duration::from_millis(self.rng.random_range(0..5));
        match self.rng.random_range(0..114) {
            0..8 => self.append(),
            8..30 => self.deliver(at),
            30..50 => self.start(at),
            50..68 => self.finish(at),
            68..78 => self.answer_needs(at),
            78..86 => self.stage(at),
            86..94 => self.answer_commit(at),
            94 => self.wall.0 += self.rng.random_range(0..500),
            95 if self.chance(0.1) => self.wall.0 += 7_200_000,
            96 if self.chance(0.2) => self.crash(),
            97 if self.chance(0.2) && self.instances.len() < self.setups.len() + 2 => self.takeover(),
            98 if !self.late.is_empty() => {
                let late = self.late.swap_remove(self.rng.random_range(0..self.late.len()));
                drop(self.write(late));
            }
            99 => self.old_log = self.log.clone(),
            100..105 => self.hear(at),
            105..107 if self.chance(0.6) => self.order(),
            107..110 => self.trim(),
            110 if self.chance(0.3) => self.swap(),
            111 if self.chance(0.15) => self.clock_is_set(),
            111 => self.allow(at),
            112 => self.rest(at),
            113 => self.passed(at),
            _ => {}
        }
        assert!(self.instances.iter().all(|instance| instance.shard.held_bytes_add_up()));
    }

    /// The host lets a shard hold more or less than before, perhaps nothing.
    fn allow(&mut self, at: usize) {
        let bytes_max = if self.rng.random_bool(0.5) { 0 } else { self.rng.random_range(0..10_000) };
        let is_tight = self.rng.random_bool(0.5);
        self.instances[at].shard.allow(Allowance { bytes_max, is_tight });
    }

    /// The handler runs nothing for a while.
    fn rest(&mut self, at: usize) {
        let keep = if self.rng.random_bool(0.5) { Keep::Nothing } else { Keep::FirstTry };
        self.instances[at].shard.rest(keep);
    }

    /// A shard that took up what there is for it hears how far the log is.
    fn passed(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        let upto = instance.inbox_upto;
        let last = self.archive.iter().rev().find(|message| message.offset <= upto);
        if let (true, Some(last)) = (instance.inbox.is_empty(), last) {
            instance.shard.passed(upto, last.time);
        }
    }

    /// No more faults and no more input: everything must come to an end by itself.
    pub fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        for late in std::mem::take(&mut self.late) {
            drop(self.write(late));
        }
        // Of several hosts the last to claim a shard keeps it.
        let mut owners: BTreeMap<ShardId, usize> = BTreeMap::new();
        for at in 0..self.instances.len() {
            owners.insert(self.instances[at].shard.id().clone(), at);
        }
        for at in (0..self.instances.len()).rev() {
            if owners[self.instances[at].shard.id()] != at {
                self.drop_runs(at);
                self.instances.remove(at);
            }
        }
        self.let_everything_go();
        // Whatever the others leave a shard, it comes to an end.
        (0..self.instances.len()).for_each(|at| self.allow(at));
        let mut quiet = 0;
        for _ in 0..20_000 {
            for at in 0..self.instances.len() {
                self.hear(at);
                self.deliver(at);
                self.answer_needs(at);
                self.start(at);
                self.finish(at);
                self.stage(at);
                self.answer_commit(at);
            }
            self.instant += Duration::from_secs(1);
            let idle = self.instances.iter().all(|instance| {
                instance.shard.is_idle()
                    && instance.shard.open_len() == 0
                    && instance.inbox.is_empty()
                    && instance.commit.is_none()
                    && instance.shard.next_due().is_none()
                    && instance.inbox_upto >= self.log.end()
                    && instance.shard.controlled() >= self.log.end()
                    && instance.shard.control().jobs.is_empty()
            });
            quiet = if idle { quiet + 1 } else { 0 };
            if quiet > 3 {
                return Ok(());
            }
            let next_due = self.instances.iter().filter_map(|instance| instance.shard.next_due()).min();
            if let Some(due) = next_due.filter(|_| self.chance(0.3)) {
                self.wall = self.wall.max(due);
            }
        }
        Err("the shards do not come to rest".into())
    }
}

/// A handler without a breaker has one that never trips.
fn breaker_settings(policy: &Policy) -> BreakerSettings {
    let never = BreakerSettings { trip: Trip::Consecutive { failures: u32::MAX }, ..Default::default() };
    policy.breaker.clone().unwrap_or(never)
}
