//! Another version of the handler, at a message boundary.

use super::Shard;
use super::lanes::Phase;
use crate::clock::Timestamp;
use crate::handler::{Digest, Policy};
use crate::message::Offset;
use std::sync::Arc;

impl Shard {
    /// Goes on under other settings. What needs another record (dedup) or another reading of the log (routing, state) is
    /// not among them: that needs a new claim.
    pub fn adopt(&mut self, policy: Arc<Policy>) {
        debug_assert_eq!(self.setup.policy.dedup, policy.dedup, "marks are kept as they were claimed");
        self.setup.policy = policy;
    }

    /// Goes on with another module: whoever waits for a retry is due now, for the fix may be here. Attempts stay.
    pub fn swapped(&mut self, digest: Option<Digest>, now: Timestamp) {
        self.setup.digest = digest;
        let waiting = |(at, lane): (usize, &super::lanes::Lane)| (lane.phase == Phase::Waiting).then_some(at);
        let waiting: Vec<usize> = self.lanes.iter().filter_map(waiting).collect();
        for at in waiting {
            if let Some(item) = self.lanes.get_mut(at).and_then(|lane| lane.items.front_mut()) {
                item.due = item.due.min(now);
            }
            self.prepare(at);
        }
        let skipped: Vec<Offset> = self.skipped.offsets().collect();
        for offset in skipped {
            if let Some(item) = self.skipped.get_mut(offset) {
                item.due = item.due.min(now);
            }
            self.rejoin(offset);
        }
    }

    /// A run that was handed out and did not take place: it is ready again.
    pub fn withdraw(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at).filter(|lane| lane.phase == Phase::Running) else { return };
        lane.phase = Phase::Ready;
        self.runs.put_back(at);
        if let Some(routed) = lane.items.front().and_then(|item| item.routed.clone()) {
            self.end_run(&routed);
        }
    }
}
