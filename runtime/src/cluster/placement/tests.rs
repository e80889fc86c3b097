//! Placement under pauses, deaths, lost and late heartbeats, and hearing that is not mutual: hosts that claim and commit on a
//! log in memory, in steps of a clock of their own.

use super::*;
use crate::clock::{self, Timestamp};
use crate::commit::{CommitError, ShardCommit, Term};
use crate::log::memory::MemoryCore;
use crate::log::{Heartbeat, Runs};
use crate::message::Offset;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;

const LEASE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(40);

fn handlers() -> Vec<(HandlerName, u16)> {
    [("a", 8), ("b", 5)].map(|(name, shards)| (HandlerName::parse(name).unwrap(), shards)).to_vec()
}

fn shards() -> impl Iterator<Item = ShardId> {
    let of_handler = |(handler, shards): (HandlerName, u16)| {
        (0..shards).map(move |index| ShardId { handler: handler.clone(), index })
    };
    handlers().into_iter().flat_map(of_handler)
}

/// A commit that changes nothing but its number.
fn commit(shard: &ShardId, term: Term, number: u64) -> ShardCommit {
    ShardCommit {
        shard: shard.clone(),
        term,
        number,
        read: Offset::START,
        open_put: vec![],
        open_drop: vec![],
        marks: vec![],
        marks_since: Timestamp(0),
        marks_max: usize::MAX,
        state: vec![],
        outputs: vec![],
        delayed_put: vec![],
        delayed_drop: vec![],
        dead: vec![],
        dead_window: LEASE,
        dead_max: u64::MAX,
        dead_drop: vec![],
        controlled: Offset::START,
        control: None,
    }
}

struct Simulated {
    id: HostId,
    placement: Placement,
    members: BTreeMap<HostId, Member>,
    held: BTreeMap<ShardId, (Term, u64)>,
    /// Until when each takes to leave.
    draining: BTreeMap<ShardId, Instant>,
    said: Option<Heartbeat>,
    said_at: Instant,
    paused_until: Instant,
    leaving: bool,
    /// Heartbeats on their way.
    arriving: Vec<(Instant, Arc<Heartbeat>)>,
}

struct World {
    random: StdRng,
    now: Instant,
    core: MemoryCore,
    hosts: Vec<Simulated>,
    next_id: u64,
    /// Whether the first hears the second.
    deaf: BTreeSet<(HostId, HostId)>,
    /// Of a hundred heartbeats so many are lost.
    lost: u32,
    claims: usize,
    /// Shards that nobody held, by tick.
    unheld: usize,
    commits: usize,
    /// By shard the term of its last commit.
    committed: BTreeMap<ShardId, Term>,
    /// By term of a shard the host that claimed it.
    claimed_by: BTreeMap<(ShardId, Term), HostId>,
}

impl World {
    fn new(seed: u64, hosts: usize) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            now: clock::instant(),
            core: MemoryCore::default(),
            hosts: vec![],
            next_id: seed << 8,
            deaf: BTreeSet::new(),
            lost: 0,
            claims: 0,
            unheld: 0,
            commits: 0,
            committed: BTreeMap::new(),
            claimed_by: BTreeMap::new(),
        };
        (0..hosts).for_each(|_| world.join());
        world
    }

    fn join(&mut self) {
        self.next_id += 1;
        let id = HostId(self.next_id);
        self.hosts.push(Simulated {
            id,
            placement: Placement::new(id, LEASE, self.now),
            members: BTreeMap::new(),
            held: BTreeMap::new(),
            draining: BTreeMap::new(),
            said: None,
            said_at: self.now,
            paused_until: self.now,
            leaving: false,
            arriving: vec![],
        });
    }

    fn run(&mut self, leases: u32) {
        self.run_for(LEASE * leases);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            for at in 0..self.hosts.len() {
                if self.hosts[at].paused_until <= self.now {
                    self.step(at);
                }
            }
            self.hosts.retain(|host| !(host.leaving && host.held.is_empty()));
            self.unheld +=
                shards().filter(|shard| !self.hosts.iter().any(|host| host.held.contains_key(shard))).count();
        }
    }

    fn step(&mut self, at: usize) {
        let now = self.now;
        let host = &mut self.hosts[at];
        let (due, later) = std::mem::take(&mut host.arriving).into_iter().partition(|(arrives, _)| *arrives <= now);
        host.arriving = later;
        let due: Vec<(Instant, Arc<Heartbeat>)> = due;
        for (_, beat) in due {
            let known = host.members.get(&beat.host).map_or(0, |member| member.beat.sequence);
            if beat.sequence > known {
                host.members.insert(beat.host, Member { beat, heard: now });
            }
        }
        self.compare(at);
        self.commit_some(at);
        let host = &mut self.hosts[at];
        let gone: Vec<ShardId> =
            host.draining.iter().filter(|(_, until)| **until <= now).map(|(shard, _)| shard.clone()).collect();
        for shard in gone {
            host.draining.remove(&shard);
            host.held.remove(&shard);
        }
        let members: Vec<Member> = host.members.values().cloned().collect();
        let (held, draining) = (host.held.keys().cloned().collect(), host.draining.keys().cloned().collect());
        let runs = handlers();
        let view = View { members: &members, runs: &runs, held: &held, draining: &draining, leaving: host.leaving };
        let decision = host.placement.decide(now, view);
        for shard in held.difference(&decision.own).filter(|shard| !draining.contains(*shard)) {
            let takes = Duration::from_millis(self.random.random_range(0..300));
            host.draining.insert(shard.clone(), now + takes);
        }
        for shard in decision.own.difference(&held) {
            let claim = self.core.claim(shard, Offset::START);
            self.claims += 1;
            self.claimed_by.insert((shard.clone(), claim.term), host.id);
            host.held.insert(shard.clone(), (claim.term, claim.record.commit_number));
        }
        self.say(at, decision.newcomers, decision.listens);
    }

    /// Where another host says that it holds the same, the log knows better.
    fn compare(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let others: Vec<&Member> = host
            .members
            .values()
            .filter(|member| member.beat.host != host.id && self.now - member.heard < LEASE)
            .collect();
        let doubtful = host.held.iter().filter(|(shard, _)| others.iter().any(|member| member.beat.holds(shard)));
        let doubtful: Vec<(ShardId, Term)> = doubtful.map(|(shard, (term, _))| (shard.clone(), *term)).collect();
        if doubtful.is_empty() {
            return;
        }
        let newest: BTreeMap<ShardId, Term> =
            self.core.status().into_iter().map(|status| (status.shard, status.term)).collect();
        for (shard, _) in doubtful.into_iter().filter(|(shard, term)| newest[shard] > *term) {
            host.held.remove(&shard);
            if host.draining.remove(&shard).is_none() {
                host.placement.lost(shard, Loss::Fenced, self.now);
            }
        }
    }

    fn commit_some(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let mut fenced = vec![];
        for (shard, (term, number)) in &mut host.held {
            if !self.random.random_bool(0.05) {
                continue;
            }
            match self.core.commit(commit(shard, *term, *number + 1), Timestamp(0)) {
                Ok(_) => {
                    *number += 1;
                    self.commits += 1;
                    let before = self.committed.insert(shard.clone(), *term);
                    assert!(before.is_none_or(|before| before <= *term), "a fenced host committed");
                    assert_eq!(self.claimed_by[&(shard.clone(), *term)], host.id, "two hosts commit in one term");
                }
                Err(CommitError::Fenced { .. }) => fenced.push(shard.clone()),
                Err(error) => panic!("{error}"),
            }
        }
        for shard in fenced {
            host.held.remove(&shard);
            if host.draining.remove(&shard).is_none() {
                host.placement.lost(shard, Loss::Fenced, self.now);
            }
        }
    }

    fn say(&mut self, at: usize, asked: bool, joining: bool) {
        let host = &mut self.hosts[at];
        let of_handler = |(handler, shards): (HandlerName, u16)| {
            let held = host.held.keys().filter(|shard| shard.handler == handler).map(|shard| shard.index).collect();
            Runs { handler, shards, held }
        };
        let sequence = host.said.as_ref().map_or(0, |said| said.sequence);
        let beat = Heartbeat {
            host: host.id,
            name: String::new(),
            address: String::new(),
            version: String::new(),
            features: 1,
            started: Timestamp(0),
            runs: handlers().into_iter().map(of_handler).collect(),
            joining,
            leaving: host.leaving,
            sequence,
        };
        if !asked && host.said.as_ref() == Some(&beat) && self.now < host.said_at + LEASE / 5 {
            return;
        }
        let beat = Heartbeat { sequence: sequence + 1, ..beat };
        (host.said, host.said_at) = (Some(beat.clone()), self.now);
        let (from, beat) = (host.id, Arc::new(beat));
        for to in &mut self.hosts {
            let is_lost = from != to.id && self.random.random_ratio(self.lost, 100);
            if !is_lost && !self.deaf.contains(&(to.id, from)) {
                let takes = Duration::from_millis(self.random.random_range(0..60));
                to.arriving.push((self.now + takes, beat.clone()));
            }
        }
    }

    /// Something happens to somebody.
    fn strike(&mut self) {
        if self.hosts.is_empty() {
            return self.join();
        }
        let at = self.random.random_range(0..self.hosts.len());
        let other = self.random.random_range(0..self.hosts.len());
        match self.random.random_range(0..6) {
            0 => {
                let millis = self.random.random_range(0..4000);
                self.hosts[at].paused_until = self.now + Duration::from_millis(millis);
            }
            1 if self.hosts.len() > 1 => drop(self.hosts.remove(at)),
            2 if self.hosts.len() < 5 => self.join(),
            3 if at != other => drop(self.deaf.insert((self.hosts[at].id, self.hosts[other].id))),
            4 => self.deaf.clear(),
            5 if self.hosts.len() > 1 => self.hosts[at].leaving = true,
            _ => {}
        }
    }

    /// Each shard is one host's, which is the one that claimed it last.
    #[track_caller]
    fn check_one_owner_each(&self) {
        for shard in shards() {
            let owners: Vec<(HostId, Term)> =
                self.hosts.iter().filter_map(|host| Some((host.id, host.held.get(&shard)?.0))).collect();
            let newest = self.core.status().into_iter().find(|status| status.shard == shard).unwrap().term;
            assert!(matches!(owners[..], [(_, term)] if term == newest), "{shard} at {newest:?}: {owners:?}");
        }
    }

    fn spread(&self) -> Vec<usize> {
        self.hosts.iter().map(|host| host.held.len()).collect()
    }
}

#[test]
fn whatever_happens_each_shard_has_one_owner_in_the_end_and_a_fenced_one_never_commits() {
    let (mut claims, mut commits, mut strikes) = (0, 0, 0);
    for seed in 0..40 {
        let mut world = World::new(seed, 3);
        world.lost = 5;
        for _ in 0..20 {
            world.strike();
            strikes += 1;
            world.run(1);
        }
        (world.lost, world.deaf) = (0, BTreeSet::new());
        let in_chaos = world.claims;
        world.run(40);
        world.check_one_owner_each();
        // Whoever is struck moves his shards, and comes back for them; nobody claims without end.
        assert!(in_chaos <= 20 * 3 * shards().count(), "seed {seed}: {in_chaos} claims");
        let (before, spread) = (world.claims, world.spread());
        world.run(10);
        assert_eq!(
            (world.claims, world.spread()),
            (before, spread),
            "seed {seed}: nothing moves while nothing happens"
        );
        claims += in_chaos;
        commits += world.commits;
    }
    println!("{strikes} strikes: {claims} claims, {commits} commits");
}

#[test]
fn a_host_alone_begins_at_once_and_one_that_joins_gets_its_share_without_a_fence() {
    let mut world = World::new(1, 1);
    world.run(1);
    world.check_one_owner_each();
    assert_eq!(world.claims, 13);
    let unheld = world.unheld;
    world.join();
    world.join();
    world.run(3);
    world.check_one_owner_each();
    let moved = 13 - world.spread()[0];
    assert!(moved >= 4 && world.spread().iter().all(|held| *held > 0), "{:?}", world.spread());
    // Two may join one after the other in the eyes of the first, so a shard may move twice.
    assert!(world.claims <= 13 + 2 * moved, "{} claims for {moved} that moved", world.claims);
    // From when one was given up until the other one heard of it.
    let ticks = world.unheld - unheld;
    assert!(ticks <= 3 * (world.claims - 13), "{ticks} ticks without a host for {moved} that moved");
}

#[test]
fn a_host_that_leaves_is_followed_at_once_and_one_that_dies_after_its_lease() {
    let mut world = World::new(2, 3);
    world.run(3);
    world.hosts[0].leaving = true;
    let before = world.claims;
    // It drains for less than a third of a lease.
    world.run(1);
    assert_eq!(world.hosts.len(), 2);
    world.check_one_owner_each();
    let dead = world.hosts.remove(0);
    world.run_for(LEASE / 2);
    assert!(shards().any(|shard| !world.hosts[0].held.contains_key(&shard)), "not yet dead");
    world.run(1);
    world.check_one_owner_each();
    assert!(world.claims - before <= 13 + dead.held.len(), "nobody claims what he did not gain");
}

#[test]
fn a_host_that_slept_past_its_lease_leaves_what_others_took_and_gets_its_share_in_order() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3);
        world.run(3);
        let (slept, spread) = (world.hosts[1].held.len(), world.spread());
        let before = world.claims;
        world.hosts[1].paused_until = world.now + LEASE * 4;
        world.run(4);
        assert_eq!(world.claims - before, slept, "seed {seed}: each is taken over once");
        let unheld = world.unheld;
        world.run(20);
        let ticks = world.unheld - unheld;
        assert!(ticks <= 3 * slept, "seed {seed}: {ticks} ticks without a host for {slept} that came back");
        world.check_one_owner_each();
        assert_eq!(world.spread(), spread, "seed {seed}");
        assert!(world.claims - before <= 3 * slept, "seed {seed}: {} for {slept}", world.claims - before);
    }
}

#[test]
fn where_hearing_is_not_mutual_who_is_not_heard_stays_away() {
    let mut world = World::new(3, 2);
    let (a, b) = (world.hosts[0].id, world.hosts[1].id);
    world.run(3);
    world.deaf.insert((b, a));
    world.run(20);
    world.check_one_owner_each();
    assert_eq!(world.spread(), [0, 13], "only one of them knows of the other");
    let before = world.claims;
    world.run(100);
    assert_eq!(world.claims, before);
}

#[test]
fn hosts_that_never_hear_each_other_take_shards_from_each_other_ever_more_seldom() {
    let mut world = World::new(4, 2);
    let (a, b) = (world.hosts[0].id, world.hosts[1].id);
    world.deaf.extend([(a, b), (b, a)]);
    world.run(200);
    let first = world.claims;
    assert!(first <= 13 * 20, "{first}");
    assert!(world.commits > 0);
    world.run(200);
    assert!(world.claims - first <= 13 * 8, "{}", world.claims - first);
}

#[test]
fn a_handler_goes_to_hosts_that_can_run_it_as_it_is() {
    let now = clock::instant();
    let name = |text: &str| HandlerName::parse(text).unwrap();
    let member = |host: u64, runs: &[(&str, u16)], leaving| {
        let runs = runs.iter().map(|(handler, shards)| Runs {
            handler: name(handler),
            shards: *shards,
            held: Default::default(),
        });
        let beat = Heartbeat {
            host: HostId(host),
            name: String::new(),
            address: String::new(),
            version: String::new(),
            features: 1,
            started: Timestamp(0),
            runs: runs.collect(),
            joining: false,
            leaving,
            sequence: 1,
        };
        Member { beat: Arc::new(beat), heard: now }
    };
    let runs = [(name("a"), 64), (name("b"), 64), (name("c"), 64), (name("d"), 64)];
    // It knows of b with another number of shards, cannot run c, and is about to leave with all else.
    let other = member(2, &[("a", 64), ("b", 32), ("d", 64)], false);
    let leaves = member(3, &[("d", 64), ("a", 64)], true);
    let members = [member(1, &[("a", 64), ("b", 64), ("c", 64), ("d", 64)], false), other, leaves];
    let none = BTreeSet::new();
    let view = View { members: &members, runs: &runs, held: &none, draining: &none, leaving: false };
    let mut placement = Placement::new(HostId(1), LEASE, now);
    placement.decide(now, View { members: &[], ..view });
    let heard = now + LEASE / 2;
    let decision = placement.decide(heard, view);
    let count = |of: &str| decision.own.iter().filter(|shard| shard.handler == name(of)).count();
    assert!((10..54).contains(&count("a")), "{}", count("a"));
    assert_eq!((count("b"), count("c")), (64, 64));
    assert!((10..54).contains(&count("d")), "{}", count("d"));
}
