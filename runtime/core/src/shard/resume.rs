//! What a lane does next, and who is due.

use super::Shard;
use super::lanes::Phase;
use super::timers::Timer;
use crate::clock::Timestamp;
use crate::message::Offset;

impl Shard {
    /// Decides what an idle lane does next.
    pub(super) fn resume(&mut self, at: usize) {
        let wants_fill = self.wants_fill(at);
        let Some(lane) = self.lanes.get_mut(at) else { return };
        if lane.phase == Phase::Running {
            return;
        }
        lane.phase = Phase::Empty;
        if wants_fill {
            self.wanted.scans.want(at);
        }
        let Some(item) = lane.items.front() else {
            if lane.is_done() && lane.recorded.is_none() {
                // Nothing of it was ever written, so nothing has to be unwritten.
                self.lanes.remove(at);
            }
            return;
        };
        let work = item.work;
        if item.has_failed() && !item.alone {
            // Timers go by the host's time; a due time in the past fires at the next look.
            lane.phase = Phase::Waiting;
            self.timers.set(item.due, Timer::Lane(at, work));
            return;
        }
        self.prepare(at);
    }

    /// The first item of the lane is due: it needs its message and its state before it is ready.
    pub(super) fn prepare(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let Some(item) = lane.items.front() else { return };
        match &item.routed {
            // At rest it is fetched when its turn comes.
            None if self.held.is_at_rest() => {
                lane.phase = Phase::Ready;
                self.runs.make_ready(at);
            }
            None => self.fetch(at),
            Some(routed) => match &routed.key {
                Some(key)
                    if self.setup.uses_state
                        && routed.unroutable.is_none()
                        && self.state.get(routed.hash, key).is_none() =>
                {
                    lane.phase = Phase::Loading;
                    self.wanted.states.want(key);
                }
                _ => {
                    lane.phase = Phase::Ready;
                    self.runs.make_ready(at);
                }
            },
        }
    }

    /// The lane waits for the message of its first item.
    pub(super) fn fetch(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        let Some(item) = lane.items.front() else { return };
        let Some(offset) = item.work.offset() else { return };
        lane.phase = Phase::Fetching;
        self.wanted.messages.want(offset, item.bytes_in_log(), at);
    }

    /// Wakes what is due: lanes, skipped messages, delayed messages.
    pub fn wake(&mut self, now: Timestamp) {
        while let Some((due, timer)) = self.timers.take_due(now) {
            match timer {
                Timer::Lane(at, work) => {
                    let waits = self.lanes.get(at).is_some_and(|lane| {
                        lane.phase == Phase::Waiting
                            && lane.items.front().is_some_and(|item| item.work == work && item.due == due)
                    });
                    if waits {
                        self.prepare(at);
                    }
                }
                Timer::Skipped(offset) => {
                    if self.skipped.get(offset).is_some_and(|item| item.due == due) {
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
        let delayed = self.delayed.next_due().filter(|_| !self.staged.is_full());
        self.timers.next_due().into_iter().chain(delayed).min()
    }

    /// A skipped message is due: it goes to the front of its key's lane.
    pub(super) fn rejoin(&mut self, offset: Offset) {
        let Some(item) = self.skipped.get(offset) else { return };
        let Some(routed) = &item.routed else {
            return self.wanted.messages.want_skipped(offset, item.bytes_in_log());
        };
        let at = self.lanes.of(routed.hash, routed.key.as_ref(), offset.into());
        let Some(item) = self.skipped.remove(offset) else { return };
        let Some(lane) = self.lanes.get_mut(at) else { return };
        match lane.phase {
            Phase::Running => lane.items.push_second(item),
            _ => lane.items.push_front(item),
        }
        // What was the first waits behind it now.
        self.held.changed_places();
        self.resume(at);
    }
}
