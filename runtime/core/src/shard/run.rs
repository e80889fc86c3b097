//! Runs: which is next, and what its result makes of the message and its lane.

use super::items::{Failed, Item};
use super::lanes::Phase;
use super::timers::Timer;
use super::{Shard, delayed};
use crate::clock::Timestamp;
use crate::commit::{DeadLetter, Deaths, HeadScope, Mark};
use crate::effects::{Effects, Entries};
use crate::handler::{Digest, OnFailure};
use crate::invoke::{Call, Failure};
use crate::message::IdHash;
use crate::pipeline::breaker::Try;
use crate::pipeline::{self, Admission, Outcome, Settled, Verdict};
use crate::routing::{KeyFrom, Routed};

/// A run to make. Answer it with [`Shard::finish`].
#[derive(Debug)]
pub struct Run {
    /// Names the run among those in flight.
    pub lane: usize,
    pub tries: Try,
    pub call: Call,
}

/// What became of a finished run, for who counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    Settled,
    /// It waits: no more messages may be delayed.
    Full,
}

/// Which runs are asked for.
#[derive(Clone, Copy, PartialEq)]
enum Which {
    All,
    FirstTries,
}

impl Shard {
    /// The next run to make; settles what needs none (duplicates, what cannot run) on the way.
    pub fn next_run(&mut self, now: Timestamp) -> Option<Run> {
        self.next(Which::All, now)
    }

    /// As [`Shard::next_run`], but of messages that never failed only: the others stay ready.
    pub fn next_first_try(&mut self, now: Timestamp) -> Option<Run> {
        self.next(Which::FirstTries, now)
    }

    fn next(&mut self, which: Which, now: Timestamp) -> Option<Run> {
        let run = self.next_ready(which, now);
        if run.is_none() && self.is_full() {
            self.make_room();
        }
        run
    }

    /// Whatever waits gives its memory back: the log can bring it back, and with memory full nothing is taken up.
    fn make_room(&mut self) {
        if !self.held.take_grew() {
            return;
        }
        let lanes = self.lanes.iter_mut().map(|(_, lane)| lane.shed_idle()).sum::<usize>();
        let skipped = self.skipped.iter_mut().map(Item::shed).sum::<usize>();
        self.held.give(lanes + skipped);
    }

    fn next_ready(&mut self, which: Which, now: Timestamp) -> Option<Run> {
        while self.may_act() {
            if self.held.is_at_rest() && !self.has_next_at_rest(which == Which::FirstTries) {
                return None;
            }
            let at = match which {
                Which::All => self.runs.next_ready()?,
                Which::FirstTries => self.runs.next_not_passed_over()?,
            };
            let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.phase == Phase::Ready) else { continue };
            let Some(item) = lane.items.front() else { continue };
            if which == Which::FirstTries && item.attempt > 0 {
                self.runs.pass_over(at);
                continue;
            }
            if lane.key.as_ref().is_some_and(|key| self.orders.control().paused_keys.contains(key)) {
                lane.phase = Phase::Paused;
                self.held.give(lane.shed());
                self.lanes.touch(at);
                continue;
            }
            let Some(routed) = &item.routed else {
                // It gave its memory back while nothing ran.
                self.fetch(at);
                continue;
            };
            let (policy, message) = (&*self.setup.policy, &routed.message);
            let id = routed.id_hash().filter(|_| pipeline::deduplicates(policy, message));
            if self.runs.waits_for_twin(id, at) {
                lane.phase = Phase::Twin;
                continue;
            }
            let marks = &self.marks;
            let admission = match self.caution.condemns(item.work) {
                Some(reason) => {
                    Admission::Dead(Verdict { kind: "uncommittable", error: pipeline::clip(reason.to_owned()) })
                }
                None => pipeline::admit(routed, policy, |routed| {
                    let Some((id, marks)) = id.zip(marks.as_ref()) else { return false };
                    let time = routed.message.time;
                    marks.done(id, time)
                        || (marks.has_of_before(self.setup.routing.identity.time, time)
                            && routed.id_alone_hash().is_some_and(|id| marks.done(id, time)))
                }),
            };
            match admission {
                Admission::Run => {
                    let state = match &routed.key {
                        Some(key) if self.setup.uses_state => match self.state.get(routed.hash, key) {
                            Some(entries) => entries.clone(),
                            // Evicted since it became ready. It is due: put back to wait it would be taken for idle, and at
                            // rest lose its message.
                            None => {
                                self.prepare(at);
                                continue;
                            }
                        },
                        _ => Entries::default(),
                    };
                    let tries = match item.attempt {
                        // With one lane for all messages nobody else is held back by one of them.
                        0 if self.setup.routing.key == KeyFrom::All => Try::First { key: item.work.number() },
                        0 => Try::First { key: lane.hash },
                        _ => Try::Again,
                    };
                    let call = Call {
                        message: message.clone(),
                        key: routed.key.clone(),
                        attempt: item.attempt.saturating_add(1),
                        state,
                        delayed_room: self.delayed.room(policy.delayed),
                    };
                    lane.phase = Phase::Running;
                    self.runs.begin(id);
                    return Some(Run { lane: at, tries, call });
                }
                Admission::Duplicate => {
                    self.staged.settled(routed, Settled::Duplicate);
                    self.pop_first(at);
                }
                Admission::Dead(verdict) => {
                    let attempts = item.attempt;
                    let Some(routed) = self.take_first(at) else { continue };
                    self.give_up(at, routed, verdict, attempts, None, now);
                }
            }
        }
        None
    }

    /// The message that runs in a lane, and how often it failed before.
    pub fn running(&self, at: usize) -> Option<(&Routed, u32)> {
        let lane = self.lanes.get(at).filter(|lane| lane.phase == Phase::Running)?;
        let item = lane.items.front()?;
        Some((item.routed.as_ref()?, item.attempt))
    }

    /// Takes the result of a run. `random` is uniform in [0, 1).
    pub fn finish(
        &mut self,
        at: usize,
        result: Result<Effects, Failure>,
        digest: Option<Digest>,
        random: f64,
        now: Timestamp,
    ) -> Finish {
        let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.phase == Phase::Running) else {
            return Finish::Settled;
        };
        let Some(item) = lane.items.front() else { return Finish::Settled };
        let (tries, attempt) = (item.attempt, item.attempt.saturating_add(1));
        lane.phase = Phase::Empty;
        let Some(routed) = self.take_first(at) else { return Finish::Settled };
        let id = self.end_run(&routed);
        // Others may have filled the room that there was when it began.
        let result = result.and_then(|effects| {
            let fits = delayed::fit(&effects.outputs, self.delayed.room(self.setup.policy.delayed));
            if fits { Ok(effects) } else { Err(Failure::Full { reason: delayed::FULL.into() }) }
        });
        match pipeline::settle(result, attempt, &self.setup.policy, random, now) {
            Outcome::Done(effects) => {
                if let (Some(id), Some(marks)) = (id, &mut self.marks) {
                    // The mark is in the same commit as the effects: a crash before it redelivers, and nothing was done.
                    let mark = Mark { id, time: routed.message.time };
                    marks.insert(mark);
                    self.staged.marks.push(mark);
                }
                self.stage_effects(&routed, effects, now);
                self.staged.settled(&routed, Settled::Done);
                self.pop_first(at);
            }
            Outcome::Retry { due, error } => {
                self.staged.settled(&routed, Settled::Retry);
                self.put_back(at, routed);
                self.put_off(at, attempt, due, Failed { error, digest }, now);
            }
            Outcome::Later { due, error } => {
                self.staged.settled(&routed, Settled::Retry);
                self.put_back(at, routed);
                self.put_off(at, tries, due, Failed { error, digest }, now);
                return Finish::Full;
            }
            Outcome::Postponed => {
                self.put_back(at, routed);
                if let Some(lane) = self.lanes.get_mut(at) {
                    lane.phase = Phase::Ready;
                    self.runs.put_back(at);
                }
            }
            Outcome::Dead(verdict) => self.give_up(at, routed, verdict, attempt, digest, now),
        }
        Finish::Settled
    }

    /// A message is in a sandbox no more: who waits for its id goes on. The id, if it is remembered.
    pub(super) fn end_run(&mut self, routed: &Routed) -> Option<IdHash> {
        let id = routed.id_hash().filter(|_| pipeline::deduplicates(&self.setup.policy, &routed.message));
        self.runs.end(id).into_iter().for_each(|twin| self.resume(twin));
        id
    }

    /// The message of the lane's first item, whose place stays.
    fn take_first(&mut self, at: usize) -> Option<Routed> {
        let routed = self.lanes.get_mut(at)?.items.front_mut()?.routed.take()?;
        self.held.give(routed.message.bytes());
        Some(routed)
    }

    /// The message of the lane's first item comes back to its place.
    fn put_back(&mut self, at: usize, routed: Routed) {
        if let Some(item) = self.lanes.get_mut(at).and_then(|lane| lane.items.front_mut()) {
            self.held.take_back(item, || routed);
        }
    }

    /// The first item of the lane is settled.
    fn pop_first(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        lane.phase = Phase::Empty;
        if let Some(item) = lane.items.pop_front() {
            self.held.give(item.held_bytes());
            if item.alone
                && let Some(offset) = item.work.offset()
            {
                self.open.settle(offset);
            }
        }
        self.lanes.touch(at);
        self.resume(at);
    }

    fn put_off(&mut self, at: usize, attempt: u32, due: Timestamp, failed: Failed, now: Timestamp) {
        let skip = self.setup.policy.on_failure == OnFailure::Skip;
        let long = due.since(now) > self.setup.bounds.shed_after || self.held.is_tight();
        let Some(lane) = self.lanes.get_mut(at) else { return };
        // Messages that gave up their place before cannot stand for the lane.
        let is_last_own = lane.items.iter().skip(1).all(|item| item.alone);
        let Some(item) = lane.items.front_mut() else { return };
        (item.attempt, item.due, item.failed) = (attempt, due, Some(Box::new(failed)));
        // With the next message only in the log its offset is not known, so the lane's head could not move on: it waits.
        let gives_up_place = skip && lane.key.is_some() && !(is_last_own && lane.more.is_some());
        if (gives_up_place || item.alone)
            && let Some(offset) = item.work.offset()
        {
            let key = lane.key.clone();
            let Some(mut item) = lane.items.pop_front() else { return };
            item.alone = true;
            if long {
                self.held.give(item.shed());
            }
            self.timers.set(due, Timer::Skipped(offset));
            item.head(key.clone(), HeadScope::Message).into_iter().for_each(|head| self.open.put(head));
            self.skipped.insert(offset, key, item);
        } else if long {
            self.held.give(lane.shed());
        }
        self.lanes.touch(at);
        self.resume(at);
    }

    /// The first item of the lane, whose message this is, becomes a dead letter.
    fn give_up(
        &mut self,
        at: usize,
        routed: Routed,
        verdict: Verdict,
        attempts: u32,
        digest: Option<Digest>,
        now: Timestamp,
    ) {
        let before = self.lanes.get(at).and_then(|lane| lane.items.front()).and_then(Item::digest);
        self.staged.settled(&routed, Settled::Dead);
        let identity = routed.id_hash().filter(|_| pipeline::deduplicates(&self.setup.policy, &routed.message));
        let deaths = match &routed.deaths {
            Some(before) => before.again(),
            None => Deaths::first(routed.message.offset, now),
        };
        self.staged.dead(DeadLetter {
            shard: self.setup.id.clone(),
            message: routed.message,
            key: routed.key,
            attempts,
            kind: verdict.kind.to_owned(),
            error: verdict.error,
            digest: digest.or(before),
            time: now,
            identity,
            deaths,
        });
        self.pop_first(at);
    }
}
