//! From outcomes to a commit, and what its answer means for the shard.

use super::commits::InFlight;
use super::origin::Origin;
use super::staged::Staged;
use super::{Caution, Report, Shard};
use crate::clock::Timestamp;
use crate::commit::ShardCommit;
use crate::effects::Effects;
use crate::handler::DeadFull;
use crate::routing::{Routed, reserved};
use std::time::Duration;

impl Shard {
    /// Takes the effects of a run into the commit to come.
    pub(super) fn stage_effects(&mut self, routed: &Routed, effects: Effects, now: Timestamp) {
        let Effects { outputs, writes, counts } = effects;
        if !outputs.is_empty() {
            let origin = Origin::of(self.log, &self.setup.id, self.commits.term(), routed);
            // A publisher's delay began when the log took the message: a backlog adds nothing to it, and messages of one key
            // with one delay are due in their order. What a handler delays that was sent such a message is its own.
            let is_publishers = self.setup.id.handler.is_delay() && reserved::is_delayed(&routed.message);
            let since = if is_publishers { routed.message.time } else { now };
            for (index, output) in outputs.into_iter().enumerate() {
                let delay = output.delay;
                let message = origin.message(index, output);
                match delay {
                    None => self.staged.output(message),
                    Some(delay) => {
                        let delayed = self.delayed.hold(since.after(delay), message);
                        self.staged.delay(delayed);
                    }
                }
            }
        }
        if let (Some(key), false) = (&routed.key, writes.is_empty()) {
            let (number, next) = (self.commits.next_number(), self.staged.keys_written());
            let at = self.state.write(routed.hash, key, &writes, number, next);
            self.staged.write(at, key, writes);
        }
        self.staged.count(counts);
    }

    /// The next commit, if there is something to write and none is in flight. Answer it with [`Shard::committed`], or
    /// claim the shard again.
    pub fn stage(&mut self) -> Option<ShardCommit> {
        // As many as fit a commit; the search for what cannot be committed is not to find one of these beside it.
        while self.commits.in_flight().is_none()
            && !self.caution.is_on()
            && !self.staged.is_full()
            && let Some(delayed) = self.delayed.take_shortened()
        {
            self.staged.delay_again(delayed);
        }
        let moved = self.position.has_moved() || self.lanes.have_changed() || self.open.has_changed();
        let content = !self.staged.is_empty() || self.orders.have_changed();
        if self.commits.in_flight().is_some() || !(content || (self.position.is_flushing() && moved)) {
            return None;
        }
        let number = self.commits.next_number();
        for at in self.lanes.take_changed() {
            self.stage_lane(at);
        }
        let (open_put, open_drop) = self.open.stage();
        if let Some(marks) = &mut self.marks {
            marks.expire(self.open.oldest());
        }
        self.position.staged();
        let next = self.staged.of_its_size();
        let staged = std::mem::replace(&mut self.staged, next);
        let only = staged.only().filter(|_| self.caution.is_on());
        let Staged { marks, outputs, state, delayed_put, delayed_again, dead, mut report, .. } = staged;
        let (delayed_drop, dead_drop) = (staged.delayed_drop, staged.dead_drop);
        report.dead = dead.clone();
        if let Some(kept) = &mut self.marks {
            report.marks_evicted = kept.take_evicted();
        }
        self.commits.begin(InFlight { report, only, removes: dead_drop.clone() });
        Some(ShardCommit {
            shard: self.setup.id.clone(),
            term: self.commits.term(),
            number,
            read: self.position.read(),
            open_put,
            open_drop,
            marks,
            marks_since: self.marks.as_ref().map_or(Timestamp(0), |marks| marks.since()),
            marks_max: self.marks.as_ref().map_or(0, |marks| marks.len()),
            state,
            outputs,
            delayed_put: delayed_put.into_values().chain(delayed_again.into_values()).collect(),
            delayed_drop,
            dead,
            dead_window: self.setup.policy.dedup.as_ref().map_or(Duration::ZERO, |dedup| dedup.window),
            dead_max: match self.setup.policy.dead.full {
                DeadFull::DropOldest => self.setup.policy.dead.letters_max,
                // The handler stops before: what is settled meanwhile is not lost.
                DeadFull::Stop => u64::MAX,
            },
            dead_drop,
            controlled: self.position.controlled(),
            control: self.orders.take_changed(),
        })
    }

    fn stage_lane(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let head = lane.head();
        if let Some(recorded) = lane.recorded
            && head.as_ref().is_none_or(|head| head.offset != recorded)
        {
            self.open.drop(recorded);
        }
        debug_assert!(
            head.as_ref().is_none_or(|head| !self.skipped.contains(head.offset)),
            "a lane's head would take the place of a message that gave its place up"
        );
        lane.recorded = head.as_ref().map(|head| head.offset);
        let done = lane.is_done();
        match head {
            Some(head) => self.open.put(head),
            None if done => self.lanes.remove(at),
            None => {}
        }
    }

    /// The commit in flight is durable. Returns what may be counted now.
    pub fn committed(&mut self) -> Report {
        let Some(commit) = self.commits.end() else { return Report::default() };
        self.orders.removed(&commit.removes);
        self.state.trim(self.commits.durable());
        self.end_caution();
        commit.report
    }

    /// How a new claim should go on after the commit in flight was refused for its content.
    pub fn caution_after_refusal(&self, reason: &str) -> Caution {
        let mut letters = self.caution.letters.clone();
        let mut only = None;
        if let Some(commit) = self.commits.in_flight() {
            match &commit.removes[..] {
                [] => only = commit.only,
                [number] if commit.report.settled.is_empty() => drop(letters.insert(*number)),
                // With both in it, either may be the culprit.
                _ => {}
            }
        }
        let uncommittable = only.map(|work| (work, reason.to_owned()));
        Caution { upto: self.position.read().max(self.caution.upto), uncommittable, letters }
    }

    /// Nothing of what the refused commit held is left to be tried.
    pub(super) fn end_caution(&mut self) {
        let is_over = self.caution.is_on()
            && self.position.read() >= self.caution.upto
            && self.is_idle()
            && self.runs.is_stuck()
            && self.wanted.is_idle()
            && self.orders.control().jobs.is_empty();
        if is_over {
            self.caution = Caution::default();
        }
    }
}
