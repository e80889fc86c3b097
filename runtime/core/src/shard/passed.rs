//! A shard that hears nothing: marks of which no later message can be a twin go without a commit, since they count
//! against the marks of the handler's other shards.

use super::Shard;
use crate::clock::Timestamp;
use crate::message::Offset;
use std::time::Duration;

/// A look for marks that may go is worth while after such a part of their window.
const LOOKS: u32 = 64;

impl Shard {
    /// When the oldest mark may matter no more, by the time of the log. By how much later they go at the most is
    /// [`Shard::marks_slack`].
    pub fn marks_due(&self) -> Option<Timestamp> {
        self.marks.as_ref().and_then(|marks| marks.due())
    }

    /// How much longer than their window marks may be kept.
    pub fn marks_slack(&self) -> Duration {
        self.marks.as_ref().map_or(Duration::ZERO, |marks| marks.window() / LOOKS)
    }

    /// Every message of this shard up to `upto` was offered, and the log was as late as `time` there: a later message is
    /// not older. Lets marks go by that, and says how many. A place behind what was taken up says nothing new.
    pub fn passed(&mut self, upto: Offset, time: Timestamp) -> usize {
        if upto < self.position.read() {
            return 0;
        }
        self.position.read_to(upto);
        let oldest = self.oldest_unsettled();
        let Some(marks) = &mut self.marks else { return 0 };
        let before = marks.len();
        marks.taken_up(upto, time);
        marks.expire(oldest);
        before - marks.len()
    }

    /// No message before this one waits; `None`: none does. With what the next commit will say.
    fn oldest_unsettled(&self) -> Option<Offset> {
        let heads = self.lanes.changed().filter_map(|lane| lane.head()).map(|head| head.offset);
        heads.chain(self.open.oldest()).min()
    }
}
