//! Which shards this host is to work on, from what it hears of the others. Pure: the time is handed in, and nothing is done.
//!
//! Each shard goes to the host with the highest draw (rendezvous hashing) among those that live and can run its handler, so a
//! host that comes or goes moves no more shards than its own. A shard is gained only when nobody who lives says that he holds
//! it. So it moves by being given up first, and whoever died loses it when his lease is over. Hosts may see different things
//! for a while, or for good where hearing is not mutual; then two may claim one shard, the log fences one of them out, and
//! that one waits until what it sees was the same for a lease, longer each time, or until the other gave the shard up.

use super::hashing::Draw;
use crate::actor::Loss;
use crate::handler::{HandlerName, ShardId};
use crate::log::{Heartbeat, HostId, Member, Runs};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long a host that starts listens before it claims anything, as a part of the lease: those that hear it answer at once.
const LISTENS: u32 = 10;
/// The first wait after a doubt about what a commit did, as a part of the lease; it doubles up to the lease.
const DOUBTS: u32 = 50;
/// The wait of a host that is fenced again and again grows up to so many leases.
const WAITS_MAX: u32 = 64;

/// What this host hears and what it has.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    /// Everyone that was heard, this host among them.
    pub members: &'v [Member],
    /// What this host can run, with the number of shards.
    pub runs: &'v [(HandlerName, u16)],
    /// The shards that it works on or is claiming.
    pub held: &'v BTreeSet<ShardId>,
    /// The shards that it is giving up, and has not yet.
    pub draining: &'v BTreeSet<ShardId>,
    /// It takes nothing any more.
    pub leaving: bool,
}

/// What is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub own: BTreeSet<ShardId>,
    /// Those of them that are gained from hosts that died.
    pub taken_over: BTreeSet<ShardId>,
    /// Look again at this time, though nothing was heard.
    pub again: Option<Instant>,
    /// There are hosts that did not live the last time: they know nothing of this one.
    pub newcomers: bool,
    /// It listens before it claims anything.
    pub listens: bool,
}

/// Decides for one host.
#[derive(Debug)]
pub struct Placement {
    me: HostId,
    lease: Duration,
    /// It claims nothing before.
    listens_until: Option<Instant>,
    /// It heard itself once.
    was_heard: bool,
    /// Others that lived, as they were seen last: who, and whether and what they run.
    seen: BTreeMap<HostId, (bool, u64)>,
    /// Since when they are the same.
    stable_since: Instant,
    lost: BTreeMap<ShardId, Lost>,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    at: Instant,
    loss: Loss,
    wait: Duration,
    /// Somebody else was heard to hold it since.
    is_taken: bool,
    /// It was gained again; that it was lost only makes the next wait longer.
    is_over: bool,
}

impl Placement {
    pub fn new(me: HostId, lease: Duration, now: Instant) -> Self {
        let (seen, lost) = (BTreeMap::new(), BTreeMap::new());
        Self { me, lease, listens_until: None, was_heard: false, seen, stable_since: now, lost }
    }

    /// A shard was lost.
    pub fn lost(&mut self, shard: ShardId, loss: Loss, now: Instant) {
        let (first, max) = match loss {
            Loss::Fenced => (self.lease, self.lease * WAITS_MAX),
            Loss::Doubt => (self.lease / DOUBTS, self.lease),
        };
        let before = self.lost.get(&shard).filter(|before| before.loss == loss);
        let wait = before.map_or(first, |before| (before.wait * 2).min(max));
        self.lost.insert(shard, Lost { at: now, loss, wait, is_taken: false, is_over: false });
    }

    /// What this host is to work on. Asked whenever something was heard or changed.
    pub fn decide(&mut self, now: Instant, view: View<'_>) -> Decision {
        let lives = |member: &&Member| now.saturating_duration_since(member.heard) < self.lease;
        let (living, dead): (Vec<&Member>, Vec<&Member>) = view.members.iter().partition(|member| lives(member));
        let hears_itself = living.iter().any(|member| member.beat.host == self.me);
        let others: Vec<Other<'_>> =
            living.iter().filter(|member| member.beat.host != self.me).map(|member| Other::of(member)).collect();
        // Who died long ago has lost what he held to others meanwhile.
        let died = |member: &&&Member| now.saturating_duration_since(member.heard) < self.lease * 3;
        let dead: Vec<Other<'_>> = dead
            .iter()
            .filter(|member| member.beat.host != self.me)
            .filter(died)
            .map(|member| Other::of(member))
            .collect();
        let mut again = others.iter().map(|other| other.heard + self.lease).min();
        let newcomers = self.look(now, &others, hears_itself);
        let mut decision = Decision { newcomers, ..Decision::default() };
        if view.leaving {
            return decision;
        }
        let may_gain = hears_itself && self.listens_until.is_none_or(|until| until <= now);
        decision.listens = !may_gain;
        if !may_gain {
            again = again.into_iter().chain(self.listens_until).min();
        }
        for (handler, shards) in view.runs {
            let draws: Vec<(Draw, &Other<'_>)> = others
                .iter()
                .filter(|other| !other.is_leaving && other.runs.get(handler).is_some_and(|runs| runs.shards == *shards))
                .map(|other| (Draw::of(other.host, handler), other))
                .collect();
            let mine = Draw::of(self.me, handler);
            for index in 0..*shards {
                let shard = ShardId { handler: handler.clone(), index };
                let draws_more = |draw: Draw| draw.for_shard(index) > mine.for_shard(index);
                // What is to be another's is not taken from here on, and kept until he can take it.
                let is_mine = !draws.iter().any(|(draw, _)| draws_more(*draw));
                let stays = !draws.iter().any(|(draw, other)| !other.is_joining && draws_more(*draw));
                let others_hold = others.iter().any(|other| other.holds(&shard));
                let until = self.barred_until(&shard, others_hold, now);
                if view.held.contains(&shard) && !view.draining.contains(&shard) {
                    // Whoever hears nobody, not even itself, does not know who else there is.
                    if (stays || !hears_itself) && until.is_none() {
                        decision.own.insert(shard);
                    }
                    continue;
                }
                if !is_mine || others_hold || view.draining.contains(&shard) {
                    continue;
                }
                match until {
                    Some(until) => again = again.into_iter().chain([until]).min(),
                    None if may_gain => {
                        if dead.iter().any(|member| member.holds(&shard)) {
                            decision.taken_over.insert(shard.clone());
                        }
                        self.lost.entry(shard.clone()).and_modify(|lost| lost.is_over = true);
                        decision.own.insert(shard);
                    }
                    None => {}
                }
            }
        }
        decision.again = again;
        decision
    }

    /// Notes who lives; true if somebody does that did not.
    fn look(&mut self, now: Instant, others: &[Other<'_>], hears_itself: bool) -> bool {
        if !hears_itself {
            // When it is back it has to hear everyone anew. One that knew others gives them the time to come back too.
            let knew = self.was_heard && !self.seen.is_empty();
            let listens = if knew { self.lease } else { self.lease / LISTENS };
            self.listens_until = Some(self.listens_until.unwrap_or(now).max(now + listens));
        }
        self.was_heard |= hears_itself;
        let seen: BTreeMap<HostId, (bool, u64)> =
            others.iter().map(|other| (other.host, (other.is_leaving, other.digest()))).collect();
        let newcomers = seen.keys().any(|host| !self.seen.contains_key(host));
        if seen != self.seen {
            self.stable_since = now;
        }
        // What was known before a silence stays known, so that the silence counts as one.
        if hears_itself || !seen.is_empty() {
            self.seen = seen;
        }
        newcomers
    }

    /// Until when a shard that was lost is not claimed again; `None`: it may be.
    fn barred_until(&mut self, shard: &ShardId, others_hold: bool, now: Instant) -> Option<Instant> {
        let stable_since = self.stable_since;
        let lost = self.lost.get_mut(shard)?;
        lost.is_taken |= others_hold;
        let begins = match lost.loss {
            Loss::Fenced => lost.at.max(stable_since),
            Loss::Doubt => lost.at,
        };
        let until = begins + lost.wait;
        if now >= lost.at + lost.wait * 8 && (lost.is_over || now >= until) {
            // Long ago: the next loss is the first one again.
            self.lost.remove(shard);
            return None;
        }
        if lost.is_over {
            return None;
        }
        let given_up = lost.loss == Loss::Fenced && lost.is_taken && !others_hold;
        (now < until && !given_up).then_some(until)
    }
}

/// Another host, so that a question about a shard is quick.
struct Other<'m> {
    host: HostId,
    heard: Instant,
    is_leaving: bool,
    is_joining: bool,
    runs: HashMap<&'m HandlerName, &'m Runs>,
}

impl<'m> Other<'m> {
    fn of(member: &'m Member) -> Self {
        let beat = &member.beat;
        let runs = beat.runs.iter().map(|runs| (&runs.handler, runs)).collect();
        let Heartbeat { host, leaving, joining, .. } = **beat;
        Self { host, heard: member.heard, is_leaving: leaving, is_joining: joining, runs }
    }

    fn holds(&self, shard: &ShardId) -> bool {
        self.runs.get(&shard.handler).is_some_and(|runs| runs.held.contains(shard.index))
    }

    /// Of what it can run, whatever it holds.
    fn digest(&self) -> u64 {
        self.runs.values().fold(0, |digest, runs| digest ^ super::hashing::of_handler(&runs.handler, runs.shards))
    }
}

#[cfg(test)]
mod tests;
