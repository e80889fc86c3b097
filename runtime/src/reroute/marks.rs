//! Marks: whose they are is told by the messages in the log.

use super::old::Old;
use super::{Change, before};
use crate::clock::Timestamp;
use crate::commit::{Mark, Record};
use crate::log::{Log, LogError};
use crate::message::{IdHash, Offset};
use crate::routing::Routed;
use std::collections::HashMap;

/// The marks of all shards, until the messages that they are of are found.
pub(super) struct Marks {
    /// The time of the message that was done; the newest when there were several.
    sought: HashMap<IdHash, Timestamp>,
    /// With the shard that each belongs to.
    found: Vec<(u16, Mark)>,
}

impl Marks {
    /// Takes them out of the old records: they may be many.
    pub(super) fn new(old: &mut Old) -> Self {
        let mut sought = HashMap::new();
        for Mark { id, time } in old.records.iter_mut().flat_map(|record| std::mem::take(&mut record.marks)) {
            sought.entry(id).and_modify(|newest: &mut Timestamp| *newest = time.max(*newest)).or_insert(time);
        }
        Self { sought, found: vec![] }
    }

    /// Messages after this are to be seen.
    pub(super) async fn needs_after(&self, log: &dyn Log) -> Result<Offset, LogError> {
        match self.sought.values().min() {
            // A returned dead letter is dated where it returned, so no message of a mark is older than it.
            Some(oldest) => Ok(log.offset_before(*oldest).await?),
            None => Ok(before(Offset::END)),
        }
    }

    /// A message that is not a dead letter. The first one of an id at that time is the one that was done: it stood before its
    /// twins.
    pub(super) fn see(&mut self, change: &Change, of_old: &Routed, of_new: &Routed) {
        let time = of_old.message.time;
        let shard = of_new.shard(change.to.shards);
        if let Some(id) = of_old.id_hash()
            && self.take(id, time)
            && let Some(id) = of_new.id_hash()
        {
            self.found.push((shard, Mark { id, time }));
        }
        // An earlier version marked the id alone.
        if of_old.message.offset <= change.from.identity.after
            && let Some(id) = of_old.id_alone_hash()
            && self.take(id, time)
            && let Some(id) = of_new.id_alone_hash()
        {
            self.found.push((shard, Mark { id, time }));
        }
    }

    fn take(&mut self, id: IdHash, time: Timestamp) -> bool {
        self.sought.get(&id) == Some(&time) && self.sought.remove(&id).is_some()
    }

    /// Puts them into the records. How many were found, how many every shard has, and how many are lost.
    pub(super) fn fill(self, change: &Change, marks_max: usize, records: &mut [Record]) -> (usize, usize, usize) {
        let found = self.found.len();
        for (shard, mark) in self.found {
            if let Some(record) = records.get_mut(usize::from(shard)) {
                record.marks.push(mark);
            }
        }
        let mut unknown: Vec<Mark> = self.sought.into_iter().map(|(id, time)| Mark { id, time }).collect();
        let all = unknown.len();
        // Each counts once for every shard that has it; the oldest go, as they do in a shard.
        let kept = if change.keeps_marks() { marks_max.div_ceil(records.len().max(1)) } else { 0 };
        unknown.sort_unstable_by_key(|mark| std::cmp::Reverse(mark.time));
        unknown.truncate(kept);
        for record in records {
            record.marks.extend(&unknown);
            // As commits bring them.
            record.marks.sort_by_key(|mark| mark.time);
        }
        (found, unknown.len(), all - unknown.len())
    }
}
