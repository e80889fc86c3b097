//! From outcomes to a commit, and what its answer means for the shard.

use super::open::Changes;
use super::staged::Staged;
use super::{InFlight, Report, Shard};
use crate::clock::Timestamp;
use crate::commit::ShardCommit;
use crate::effects::{Effects, Outgoing};
use crate::handler::DeadFull;
use crate::message::{Headers, IdHash, Message, NewMessage, Offset};
use crate::routing::Routed;
use std::sync::Arc;

/// The header that ties a trace together (W3C Trace Context); an output without one inherits its input's.
const TRACE_HEADER: &str = "traceparent";

impl Shard {
    /// Takes the effects of a run into the commit to come.
    pub(super) fn stage_effects(&mut self, routed: &Routed, effects: Effects, now: Timestamp) {
        let Effects { outputs, writes, counts } = effects;
        let input = &routed.message;
        if !outputs.is_empty() {
            let origin = Origin::of(self.setup.id.handler.as_str(), routed);
            for (index, output) in outputs.into_iter().enumerate() {
                let delay = output.delay;
                let message = origin.message(index, output, input);
                match delay {
                    None => self.staged.output(message),
                    Some(delay) => {
                        let delayed = self.delayed.hold(now.after(delay), message);
                        self.staged.delay(delayed);
                    }
                }
            }
        }
        if let (Some(key), false) = (&routed.key, writes.is_empty()) {
            self.state.write(key, &writes, self.next_number());
            self.staged.write(key, writes);
        }
        self.staged.count(counts);
    }

    /// The number of the commit that is being staged.
    fn next_number(&self) -> u64 {
        self.in_flight.as_ref().map_or(self.committed, |commit| commit.number) + 1
    }

    /// The next commit, if there is something to write and none is in flight. Answer it with [`Shard::committed`], or
    /// claim the shard again.
    pub fn stage(&mut self) -> Option<ShardCommit> {
        let moved = self.read > self.read_staged || !self.dirty.is_empty() || self.controlled > self.controlled_staged;
        let content = !self.staged.is_empty() || self.control_changed;
        if self.in_flight.is_some() || !(content || (self.flush && moved)) {
            return None;
        }
        self.flush = false;
        let number = self.next_number();
        let mut changes = std::mem::take(&mut self.changes);
        for at in std::mem::take(&mut self.dirty) {
            self.stage_lane(at, &mut changes);
        }
        let (open_put, open_drop) = self.ledger.apply(changes);
        if let Some(marks) = &mut self.marks {
            marks.expire(self.ledger.oldest());
        }
        (self.read_staged, self.controlled_staged) = (self.read, self.controlled);
        let mut staged = std::mem::take(&mut self.staged);
        let state = staged.take_state();
        let Staged { marks, outputs, delayed_put, delayed_drop, dead, dead_drop, mut report, .. } = staged;
        report.dead = dead.clone();
        if let Some(kept) = &mut self.marks {
            report.marks_evicted = kept.take_evicted();
        }
        let only =
            (self.caution.upto > Offset::START && report.settled.len() == 1).then_some(self.last_settled).flatten();
        self.in_flight = Some(InFlight { number, report, only, removes: dead_drop.clone() });
        Some(ShardCommit {
            shard: self.setup.id.clone(),
            term: self.term,
            number,
            read: self.read,
            open_put,
            open_drop,
            marks,
            marks_since: self.marks.as_ref().map_or(Timestamp(0), |marks| marks.since()),
            marks_max: self.marks.as_ref().map_or(0, |marks| marks.marks_max()),
            state,
            outputs,
            delayed_put: delayed_put.into_values().collect(),
            delayed_drop,
            dead,
            dead_max: match self.setup.policy.dead.full {
                DeadFull::DropOldest => self.setup.policy.dead.letters_max,
                // The handler stops before: what is settled meanwhile is not lost.
                DeadFull::Stop => u64::MAX,
            },
            dead_drop,
            controlled: self.controlled,
            control: std::mem::take(&mut self.control_changed).then(|| self.control.clone()),
        })
    }

    fn stage_lane(&mut self, at: usize, changes: &mut Changes) {
        let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.dirty) else { return };
        lane.dirty = false;
        let head = lane.head();
        if let Some(recorded) = lane.recorded
            && head.as_ref().is_none_or(|head| head.offset != recorded)
        {
            changes.drop(recorded);
        }
        debug_assert!(
            head.as_ref().is_none_or(|head| !self.skipped.contains_key(&head.offset)),
            "a lane's head would take the place of a message that gave its place up"
        );
        lane.recorded = head.as_ref().map(|head| head.offset);
        let done = lane.is_done();
        match head {
            Some(head) => changes.put(head),
            None if done => self.lanes.remove(at),
            None => {}
        }
    }

    /// The commit in flight is durable. Returns what may be counted now.
    pub fn committed(&mut self) -> Report {
        let Some(commit) = self.in_flight.take() else { return Report::default() };
        self.committed = commit.number;
        commit.removes.iter().for_each(|number| {
            self.removing.remove(number);
        });
        self.state.trim(self.committed);
        if self.caution.upto > Offset::START && self.read > self.caution.upto && self.staged.is_empty() {
            self.caution = super::Caution::default();
        }
        commit.report
    }

    /// How a new claim should go on after the commit in flight was refused for its content.
    pub fn caution_after_refusal(&self, reason: &str) -> super::Caution {
        let only = self.in_flight.as_ref().and_then(|commit| commit.only);
        super::Caution { upto: self.read, uncommittable: only.map(|offset| (offset, reason.to_owned())) }
    }
}

/// What the outputs of one run have in common: their ids are the same at every try.
struct Origin {
    seed: [u8; 32],
}

impl Origin {
    fn of(handler: &str, routed: &Routed) -> Self {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        hash.update(handler.as_bytes());
        match routed.id_hash() {
            Some(IdHash(id)) => {
                hash.update([0]);
                hash.update(id.to_le_bytes());
            }
            None => {
                hash.update([1]);
                hash.update(routed.message.offset.0.to_le_bytes());
            }
        }
        Self { seed: hash.finalize().into() }
    }

    fn message(&self, index: usize, output: Outgoing, input: &Arc<Message>) -> NewMessage {
        let id = output.id.unwrap_or_else(|| self.id(index));
        let headers = match input.headers.get(TRACE_HEADER) {
            Some(trace) if output.headers.get(TRACE_HEADER).is_none() => {
                let own = output.headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                Headers::new(own.chain([(TRACE_HEADER.to_owned(), trace.to_owned())]).collect())
            }
            _ => output.headers,
        };
        NewMessage {
            topic: output.topic,
            key: output.key,
            id: Some(id),
            headers,
            body: output.body,
            hops: input.hops.saturating_add(1),
        }
    }

    /// 128 bits of the seed and the index, as text.
    fn id(&self, index: usize) -> Arc<str> {
        let mut half = [0; 16];
        half.copy_from_slice(&self.seed[..16]);
        format!("{:032x}-{index}", u128::from_le_bytes(half)).into()
    }
}
