//! Shards stepped from a seed over the in-memory log, with faults at every boundary: refused commits, commits of
//! unknown fate (written or not, some arriving late), crashes, takeovers by another host, a wall clock that jumps.
//!
//! A failure prints its seed; `SLUICEBOX_SEED=n` runs that seed alone. `the_checker_catches_…` tests seed known bugs
//! into the world around the shards and demand that the checker sees each of them.

use crate::checker::{self, Handler, History};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sluicebox::clock::Timestamp;
use sluicebox::commit::{CommitError, ShardCommit, Term};
use sluicebox::effects::{Effects, Outgoing, StateWrite};
use sluicebox::handler::{Dedup, HandlerName, OnFailure, Policy, Retry, ShardId};
use sluicebox::invoke::{Call, Failure};
use sluicebox::log::memory::MemoryCore;
use sluicebox::log::{DeadFilter, DeadQuery, ReadRequest};
use sluicebox::message::{Headers, Key, Message, NewMessage, Offset};
use sluicebox::routing::{IdFrom, KeyFrom, Routed, Routing, Span};
use sluicebox::shard::{Bounds, Caution, Needs, Run, Scan, Setup, Shard};
use sluicebox::topic::{Pattern, Topic};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const SEEDS: u64 = 2000;
const STEPS: usize = 600;
const KEYS: usize = 5;

/// A bug in the world around the shards, of the kinds this field is known for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    SkipTheFence,
    MarkBeforeCommit,
    EffectsBeforeMark,
    UnknownTakenAsDone,
    UnknownTakenAsFailed,
    ReplyBeforeCommit,
    CountBeforeCommit,
    DedupByWallClock,
    OpenDroppedAtClaim,
    OpenNotWritten,
    StaleStateLoaded,
    TailGapIgnored,
    MarksLostAtClaim,
    DelayedLostAtClaim,
    ReadNotMovedBack,
}

/// One shard on one host.
struct Instance {
    shard: Shard,
    inbox: VecDeque<Routed>,
    inbox_upto: Offset,
    runs: Vec<Run>,
    needs: Vec<Needs>,
    commit: Option<ShardCommit>,
    /// The inputs that the runs since the last commit completed.
    finished: Vec<Offset>,
    committing: Vec<Offset>,
}

struct World {
    rng: StdRng,
    bug: Option<Bug>,
    log: MemoryCore,
    /// What a load of stale state would see.
    old_log: MemoryCore,
    setups: Vec<Setup>,
    instances: Vec<Instance>,
    /// Commits that left a host which has given them up: they may still arrive.
    late: Vec<ShardCommit>,
    wall: Timestamp,
    log_clock: Timestamp,
    faults: bool,
    next_body: u64,
    shown: Vec<(Offset, bool)>,
    counted: u64,
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

/// The native stand-in for a handler. What it does follows from the body: `ok`, `fail <times>`, `reject`, `boom`
/// (its output cannot be committed), `later` (publishes a second, delayed message).
fn handle(handler: &HandlerName, call: &Call) -> Result<Effects, Failure> {
    let body = String::from_utf8(call.message.body.to_vec()).unwrap();
    let mut words = body.split(' ');
    let kind = words.next().unwrap();
    match kind {
        "fail" if call.attempt <= words.next().unwrap().parse().unwrap() => {
            return Err(Failure::Retry { reason: "not yet".into(), after: None });
        }
        "reject" => return Err(Failure::Reject { reason: "never".into() }),
        _ => {}
    }
    let n = call.state.get("n").map_or(0, |n| String::from_utf8(n.to_vec()).unwrap().parse::<u64>().unwrap()) + 1;
    let body = format!(r#"{{"source":{},"n":{n}}}"#, call.message.offset);
    let output = |topic_name: String, body: String, delay| Outgoing {
        topic: topic(&topic_name),
        key: call.key.clone(),
        id: None,
        headers: Headers::default(),
        body: body.into(),
        delay,
    };
    let mut outputs = vec![output(format!("out.{handler}"), body, None)];
    if kind == "boom" {
        outputs.push(output("boom".into(), "boom".into(), None));
    }
    if kind == "later" {
        outputs.push(output(format!("later.{handler}"), call.message.offset.to_string(), Some(Duration::from_secs(5))));
    }
    let writes = match call.key {
        Some(_) => vec![StateWrite { entry: "n".into(), value: Some(n.to_string().into()) }],
        None => vec![],
    };
    Ok(Effects { outputs, writes, counts: vec![("ok".into(), 1)] })
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let log = MemoryCore::default();
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
                ..Policy::default()
            };
            let keys = if rng.random_bool(0.85) { KeyFrom::Message } else { KeyFrom::All };
            let routing = Arc::new(Routing {
                handler: HandlerName::parse(name).unwrap(),
                key: keys,
                id: IdFrom::Message,
                shards: rng.random_range(1..4),
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
                });
            }
        }
        let mut world = World {
            rng,
            bug,
            old_log: log.clone(),
            log,
            setups,
            instances: vec![],
            late: vec![],
            wall: Timestamp(1_000_000),
            log_clock: Timestamp(1_000_000),
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

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    fn fault(&mut self, probability: f64) -> bool {
        self.faults && self.rng.random_bool(probability)
    }

    fn claim(&mut self, setup: Setup, caution: Caution) -> Instance {
        let mut claim = self.log.claim(&setup.id, setup.routing.start());
        match self.bug {
            Some(Bug::OpenDroppedAtClaim) => claim.record.open.clear(),
            Some(Bug::MarksLostAtClaim) => claim.record.marks.clear(),
            Some(Bug::DelayedLostAtClaim) => claim.record.delayed.clear(),
            Some(Bug::ReadNotMovedBack) if claim.term > Term(1) => {
                claim.record.read = claim.record.read.max(self.log.end())
            }
            _ => {}
        }
        let upto = claim.record.read;
        Instance {
            shard: Shard::new(setup, claim, caution),
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
    fn reclaim(&mut self, at: usize, caution: Caution) {
        let id = self.instances[at].shard.id().clone();
        let setup = self.setups.iter().find(|setup| setup.id == id).unwrap().clone();
        self.instances[at] = self.claim(setup, caution);
    }

    fn append(&mut self) {
        let count = self.rng.random_range(1..5);
        let messages = (0..count)
            .map(|_| {
                self.next_body += 1;
                let kind = match self.rng.random_range(0..40) {
                    0..3 => "fail 1".to_owned(),
                    3..5 => format!("fail {}", self.rng.random_range(1..6)),
                    5 => "reject".to_owned(),
                    6 => "boom".to_owned(),
                    7 => "later".to_owned(),
                    _ => "ok".to_owned(),
                };
                let mut message = NewMessage::new(topic("in.a"), format!("{kind} {}", self.next_body));
                if self.rng.random_bool(0.9) {
                    message.key = Key::parse(&format!("k{}", self.rng.random_range(0..KEYS))).unwrap();
                }
                if self.rng.random_bool(0.6) {
                    message.id = Some(format!("id{}", self.rng.random_range(0..self.next_body.max(2))).into());
                }
                message
            })
            .collect();
        self.log_clock.0 += self.rng.random_range(0..10);
        self.log.append(messages, self.log_clock).unwrap();
    }

    fn read(&mut self, setup: &Setup, after: Offset, upto: Offset) -> (Vec<Routed>, Offset) {
        let request = ReadRequest {
            after,
            upto,
            patterns: setup.routing.patterns_after(after),
            messages_max: self.rng.random_range(1..12),
            bytes_max: usize::MAX,
        };
        let batch = self.log.read(&request);
        let routed = batch
            .messages
            .iter()
            .filter(|message| setup.routing.subscribes(message))
            .map(|message| self.route(setup, message))
            .filter(|routed| routed.shard(setup.routing.shards) == setup.id.index)
            .collect();
        (routed, batch.upto)
    }

    fn route(&self, setup: &Setup, message: &Arc<Message>) -> Routed {
        let mut routed = setup.routing.route(message);
        if self.bug == Some(Bug::DedupByWallClock) {
            routed.message = Arc::new(Message { time: self.wall, ..(**message).clone() });
        }
        routed
    }

    fn setup_of(&self, at: usize) -> Setup {
        let id = self.instances[at].shard.id();
        self.setups.iter().find(|setup| setup.id == *id).unwrap().clone()
    }

    fn deliver(&mut self, at: usize) {
        let setup = self.setup_of(at);
        if self.instances[at].inbox.is_empty() {
            let after = self.instances[at].inbox_upto;
            let (mut routed, upto) = self.read(&setup, after, Offset::END);
            if self.bug == Some(Bug::TailGapIgnored) && self.fault(0.05) {
                routed.clear();
            }
            let instance = &mut self.instances[at];
            instance.inbox = routed.into();
            instance.inbox_upto = upto;
        }
        let flush = self.rng.random_bool(0.2);
        let take = self.rng.random_range(1..8);
        let instance = &mut self.instances[at];
        for _ in 0..take {
            if !instance.shard.wants_messages() {
                break;
            }
            let Some(routed) = instance.inbox.pop_front() else {
                instance.shard.reached(instance.inbox_upto, flush);
                break;
            };
            instance.shard.offer(routed);
        }
    }

    fn start(&mut self, at: usize) {
        let wall = self.wall;
        let instance = &mut self.instances[at];
        instance.shard.wake(wall);
        if instance.runs.len() < 4
            && let Some(run) = instance.shard.next_run(wall)
        {
            instance.runs.push(run);
        }
    }

    fn finish(&mut self, at: usize) {
        if self.instances[at].runs.is_empty() {
            return;
        }
        let pick = self.rng.random_range(0..self.instances[at].runs.len());
        let random = self.rng.random_range(0.0..1.0);
        let instance = &mut self.instances[at];
        let run = instance.runs.swap_remove(pick);
        let result = handle(&instance.shard.id().handler, &run.call);
        if result.is_ok() {
            instance.finished.push(run.call.message.offset);
            if self.bug == Some(Bug::ReplyBeforeCommit) {
                let source = run.call.message.offset;
                self.shown.push((source, is_done(&self.log, source, instance.shard.id())));
            }
            if self.bug == Some(Bug::CountBeforeCommit) {
                self.counted += 1;
            }
        }
        instance.shard.finish(run.lane, result, None, random, self.wall);
    }

    fn answer_needs(&mut self, at: usize) {
        let needs = self.instances[at].shard.take_needs();
        if !needs.load.is_empty() || !needs.fetch.is_empty() || needs.scan.is_some() {
            self.instances[at].needs.push(needs);
        }
        if self.instances[at].needs.is_empty() || (self.faults && self.chance(0.5)) {
            return;
        }
        let pick = self.rng.random_range(0..self.instances[at].needs.len());
        let needs = self.instances[at].needs.swap_remove(pick);
        let setup = self.setup_of(at);
        let source = if self.bug == Some(Bug::StaleStateLoaded) { &self.old_log } else { &self.log };
        let states = source.load(&setup.id.handler, &needs.load);
        let fetched = self.log.fetch(&needs.fetch);
        let fetched = fetched.into_iter().map(|message| message.map(|message| self.route(&setup, &message)));
        let fetched: Vec<_> = needs.fetch.iter().copied().zip(fetched).collect();
        if let Some(Scan { after, upto }) = needs.scan {
            let (messages, upto) = self.read(&setup, after, upto);
            self.instances[at].shard.scanned(needs.scan.unwrap(), messages, upto);
        }
        let shard = &mut self.instances[at].shard;
        shard.loaded(needs.load.into_iter().zip(states).collect());
        shard.fetched(fetched);
    }

    fn stage(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        if let Some(mut commit) = instance.shard.stage() {
            if self.bug == Some(Bug::OpenNotWritten) {
                commit.open_put.clear();
            }
            instance.committing = std::mem::take(&mut instance.finished);
            instance.commit = Some(commit);
        }
    }

    fn write(&mut self, mut commit: ShardCommit) -> Result<(), CommitError> {
        if commit.outputs.iter().any(|output| output.topic.as_str() == "boom") {
            return Err(CommitError::Refused { shard: commit.shard, reason: "boom".into() });
        }
        if self.bug == Some(Bug::SkipTheFence) {
            // What a log would do that does not compare terms: it writes under whatever is in force.
            let held = self.log.status().into_iter().find(|status| status.shard == commit.shard).unwrap();
            (commit.term, commit.number) = (held.term, held.commit_number + 1);
        }
        self.log.commit(vec![commit], self.log_clock).0.pop().unwrap()
    }

    fn answer_commit(&mut self, at: usize) {
        let Some(commit) = self.instances[at].commit.take() else { return };
        if self.fault(0.05) {
            // Not taken: the same commit may be tried again, or the shard claimed.
            match self.chance(0.5) {
                true => self.instances[at].commit = Some(commit),
                false => self.reclaim(at, Caution::default()),
            }
            return;
        }
        if self.fault(0.15) {
            self.unknown_fate(at, commit);
            return;
        }
        match self.write(commit) {
            Ok(()) => self.committed(at),
            Err(CommitError::Refused { reason, .. }) => {
                let caution = self.instances[at].shard.caution_after_refusal(&reason);
                self.reclaim(at, caution);
            }
            Err(_) => self.reclaim(at, Caution::default()),
        }
    }

    fn committed(&mut self, at: usize) {
        let instance = &mut self.instances[at];
        let report = instance.shard.committed();
        if self.bug != Some(Bug::CountBeforeCommit) {
            self.counted += report.counts.iter().map(|(_, by)| by).sum::<u64>();
        }
        assert!(report.settled.iter().all(|(topic, _)| topic.as_str() != "boom"));
        let shown: Vec<_> = instance
            .committing
            .drain(..)
            .map(|source| (source, is_done(&self.log, source, instance.shard.id())))
            .collect();
        self.shown.extend(shown);
    }

    fn unknown_fate(&mut self, at: usize, commit: ShardCommit) {
        let written = self.chance(0.5);
        let late = !written && self.chance(0.5);
        if written {
            let _ = self.write(commit.clone());
        } else if late {
            self.late.push(commit.clone());
        } else {
            self.torn(commit.clone());
        }
        match self.bug {
            Some(Bug::UnknownTakenAsDone) => self.committed(at),
            Some(Bug::UnknownTakenAsFailed) => {
                self.reclaim(at, Caution::default());
                let held = self.log.status().into_iter().find(|status| status.shard == commit.shard).unwrap();
                let again = ShardCommit { term: held.term, number: held.commit_number + 1, ..commit };
                let _ = self.write(again);
                self.reclaim(at, Caution::default());
            }
            _ => self.reclaim(at, Caution::default()),
        }
    }

    /// What a log without atomic commits would leave of a commit that was cut off.
    fn torn(&mut self, commit: ShardCommit) {
        let torn = match self.bug {
            Some(Bug::MarkBeforeCommit) => ShardCommit { outputs: vec![], state: vec![], ..commit },
            Some(Bug::EffectsBeforeMark) => {
                ShardCommit { marks: vec![], open_put: vec![], open_drop: vec![], read: Offset::START, ..commit }
            }
            _ => return,
        };
        let _ = self.write(torn);
    }

    /// The host dies: its commits in flight were written, are lost, or arrive late.
    fn crash(&mut self) {
        for at in 0..self.instances.len() {
            if let Some(commit) = self.instances[at].commit.take() {
                match self.rng.random_range(0..3) {
                    0 => drop(self.write(commit)),
                    1 => self.late.push(commit),
                    _ => self.torn(commit),
                }
            }
        }
        for at in 0..self.instances.len() {
            self.reclaim(at, Caution::default());
        }
    }

    /// Another host claims a shard while the first goes on with it.
    fn takeover(&mut self) {
        let at = self.rng.random_range(0..self.setups.len());
        let setup = self.setups[at].clone();
        let instance = self.claim(setup, Caution::default());
        self.instances.push(instance);
    }

    fn step(&mut self) {
        let at = self.rng.random_range(0..self.instances.len());
        match self.rng.random_range(0..100) {
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
            _ => {}
        }
        assert!(self.instances.iter().all(|instance| instance.shard.held_bytes_add_up()));
    }

    /// No more faults and no more input: everything must come to an end by itself.
    fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        for late in std::mem::take(&mut self.late) {
            drop(self.write(late));
        }
        // Of several hosts the last to claim a shard keeps it.
        let mut owners: BTreeMap<ShardId, usize> = BTreeMap::new();
        for at in 0..self.instances.len() {
            owners.insert(self.instances[at].shard.id().clone(), at);
        }
        let mut index = 0;
        self.instances.retain(|instance| {
            index += 1;
            owners[instance.shard.id()] == index - 1
        });
        let mut quiet = 0;
        for _ in 0..20_000 {
            for at in 0..self.instances.len() {
                self.deliver(at);
                self.answer_needs(at);
                self.start(at);
                self.finish(at);
                self.stage(at);
                self.answer_commit(at);
            }
            let idle = self.instances.iter().all(|instance| {
                instance.shard.is_idle()
                    && instance.shard.open_len() == 0
                    && instance.inbox.is_empty()
                    && instance.commit.is_none()
                    && instance.shard.next_due().is_none()
                    && instance.inbox_upto >= self.log.end()
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

    fn history(&self) -> History {
        let everything = ReadRequest {
            after: Offset::START,
            upto: Offset::END,
            patterns: vec![],
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
        };
        let messages = self.log.read(&everything).messages;
        let dead = self.log.dead(&DeadQuery::newest(DeadFilter::default(), usize::MAX));
        let mut keys: Vec<Key> = (0..KEYS).filter_map(|key| Key::parse(&format!("k{key}")).unwrap()).collect();
        keys.extend(Key::parse("*").unwrap());
        let mut handlers: Vec<Handler> = vec![];
        for setup in &self.setups {
            if setup.id.index > 0 {
                continue;
            }
            let states = self.log.load(&setup.id.handler, &keys);
            let count = |n: &bytes::Bytes| String::from_utf8(n.to_vec()).unwrap().parse().unwrap();
            let state = keys.iter().cloned().zip(states.iter().map(|state| state.get("n").map_or(0, count))).collect();
            handlers.push(Handler {
                routing: (*setup.routing).clone(),
                policy: (*setup.policy).clone(),
                output: format!("out.{}", setup.id.handler),
                state,
                ordered: setup.policy.on_failure == OnFailure::Park,
            });
        }
        let dead = dead.into_iter().map(|numbered| numbered.letter).collect();
        History { messages, dead, handlers, shown: self.shown.clone(), counted: Some(self.counted) }
    }

    /// Delayed messages appear once per handled `later`.
    fn check_delayed(&self, history: &History) -> Result<(), String> {
        for handler in ["first", "second"] {
            let mut due: Vec<u64> = history
                .messages
                .iter()
                .filter(|message| message.topic.as_str() == format!("out.{handler}"))
                .filter_map(|message| {
                    serde_json::from_slice::<serde_json::Value>(&message.body).ok()?["source"].as_u64()
                })
                .filter(|source| {
                    let input = history.messages.iter().find(|message| message.offset.0 == *source);
                    input.is_some_and(|input| input.body.starts_with(b"later"))
                })
                .collect();
            let mut came: Vec<u64> = history
                .messages
                .iter()
                .filter(|message| message.topic.as_str() == format!("later.{handler}"))
                .filter_map(|message| std::str::from_utf8(&message.body).ok()?.parse().ok())
                .collect();
            due.sort_unstable();
            came.sort_unstable();
            if due != came {
                return Err(format!("{handler}: delayed messages for {due:?} were due, {came:?} came"));
            }
        }
        Ok(())
    }
}

/// Whether the log holds the effect of this input.
fn is_done(log: &MemoryCore, source: Offset, shard: &ShardId) -> bool {
    let request = ReadRequest {
        after: source,
        upto: Offset::END,
        patterns: vec![Pattern::parse(&format!("out.{}", shard.handler)).unwrap()],
        messages_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    let wanted = format!(r#"{{"source":{source},"#);
    log.read(&request).messages.iter().any(|message| message.body.starts_with(wanted.as_bytes()))
}

fn run(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    let mut world = World::new(seed, bug);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle()?;
    let history = world.history();
    checker::check(&history)?;
    world.check_delayed(&history)
}

#[test]
fn every_message_has_exactly_one_effect_whatever_fails() {
    let only = std::env::var("SLUICEBOX_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed, None)).unwrap_or_else(|_| Err("panicked".into()));
        if let Err(why) = result {
            panic!("seed {seed}: {why}; run it alone with SLUICEBOX_SEED={seed}");
        }
    }
}

/// The checker must see the bug within a few hundred seeds: it would be worthless otherwise.
#[track_caller]
fn check_caught(bug: Bug) {
    let caught = (0..400).find_map(|seed| {
        let result = std::panic::catch_unwind(|| run(seed, Some(bug))).unwrap_or_else(|_| Err("panicked".into()));
        result.err().map(|why| (seed, why))
    });
    let (seed, why) = caught.unwrap_or_else(|| panic!("{bug:?} went unnoticed"));
    println!("{bug:?}: seed {seed}: {why}");
}

macro_rules! caught {
    ($($test:ident: $bug:ident,)*) => {
        $(#[test]
        fn $test() {
            check_caught(Bug::$bug);
        })*
    };
}

caught! {
    the_checker_catches_a_skipped_fence: SkipTheFence,
    the_checker_catches_marks_written_before_the_commit: MarkBeforeCommit,
    the_checker_catches_effects_written_before_the_mark: EffectsBeforeMark,
    the_checker_catches_an_unknown_fate_taken_as_done: UnknownTakenAsDone,
    the_checker_catches_an_unknown_fate_taken_as_failed: UnknownTakenAsFailed,
    the_checker_catches_a_reply_before_the_commit: ReplyBeforeCommit,
    the_checker_catches_a_counter_moved_before_the_commit: CountBeforeCommit,
    the_checker_catches_dedup_by_the_wall_clock: DedupByWallClock,
    the_checker_catches_open_heads_dropped_at_claim: OpenDroppedAtClaim,
    the_checker_catches_open_heads_that_are_not_written: OpenNotWritten,
    the_checker_catches_stale_state: StaleStateLoaded,
    the_checker_catches_an_ignored_gap_in_the_tail: TailGapIgnored,
    the_checker_catches_marks_lost_at_claim: MarksLostAtClaim,
    the_checker_catches_delayed_messages_lost_at_claim: DelayedLostAtClaim,
    the_checker_catches_a_read_position_not_moved_back: ReadNotMovedBack,
}
