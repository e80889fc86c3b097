//! Retries that an operator wants now instead of when they are due.

use super::Shard;
use super::lanes::Phase;
use crate::clock::Timestamp;
use crate::message::{Key, Offset};

impl Shard {
    /// Whatever failed and waits is due: all of it, or what is of this key and at this offset. Attempts stay.
    ///
    /// The heads go into the commit that says that the command is applied: after a crash they are due too, or the command
    /// is read again.
    pub(super) fn retry_now(&mut self, key: Option<&Key>, offset: Option<Offset>, now: Timestamp) {
        let lanes = self.lanes.iter().filter(|(_, lane)| key.is_none_or(|key| lane.key.as_ref() == Some(key)));
        let lanes = lanes.filter(|(_, lane)| {
            lane.items
                .front()
                .is_some_and(|first| first.due > now && offset.is_none_or(|offset| first.work == offset.into()))
        });
        let lanes: Vec<usize> = lanes.map(|(at, _)| at).collect();
        for at in lanes {
            let Some(lane) = self.lanes.get_mut(at) else { continue };
            if let Some(first) = lane.items.front_mut() {
                first.due = now;
            }
            let waits = lane.phase == Phase::Waiting;
            self.lanes.touch(at);
            if waits {
                self.prepare(at);
            }
        }
        let skipped: Vec<Offset> = self.skipped.offsets().collect();
        for at in skipped.into_iter().filter(|at| offset.is_none_or(|offset| *at == offset)) {
            if key.is_some() && self.skipped.key(at) != key {
                continue;
            }
            let Some(item) = self.skipped.get_mut(at).filter(|item| item.due > now) else { continue };
            item.due = now;
            self.skipped.head(at).into_iter().for_each(|head| self.open.put(head));
            self.rejoin(at);
        }
    }
}
