//! What operators asked of a shard: what is in force, and the dead letters that the command under way is about.

use crate::commit::{Control, DeadAction, DeadFilter, DeadJob, DeadOrder, DeadQuery, NumberedDeadLetter};
use crate::control::{Applied, Command};
use crate::handler::ShardId;
use crate::message::{NewMessage, Offset};
use crate::routing::reserved;
use hashbrown::HashSet;
use std::collections::BTreeSet;

/// Dead letters taken up at a time, and bytes of them: they are in one commit.
pub const LETTERS_MAX: usize = 256;
const LETTER_BYTES_MAX: usize = 2 * 1024 * 1024;

#[derive(Debug)]
pub struct Orders {
    control: Control,
    /// Since the last commit that was staged.
    changed: bool,
    /// Letters up to this number were taken up by the first job under way.
    above: u64,
    /// An answer about dead letters is awaited.
    reading: bool,
    /// Dead letters whose removal is not yet durable: the log still shows them, and another command may mean them too.
    removing: HashSet<u64>,
    /// Those whose removal became durable while an answer was awaited, which may be from before.
    removed_meanwhile: HashSet<u64>,
}

impl Orders {
    /// What the record of the shard with this index says.
    pub fn new(mut control: Control, index: u16) -> Self {
        // An earlier version took letters of every shard for a job that names one.
        let is_others = |job: &DeadJob| job.filter.shard.is_some_and(|named| named != index);
        let jobs = control.jobs.len();
        control.jobs.retain(|job| !is_others(job));
        Self {
            changed: control.jobs.len() < jobs,
            control,
            above: 0,
            reading: false,
            removing: HashSet::new(),
            removed_meanwhile: HashSet::new(),
        }
    }

    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Takes a command in force.
    pub fn apply(&mut self, offset: Offset, command: Command) -> Applied {
        let applied = self.control.apply(offset, command);
        self.changed |= applied == Applied::Done;
        applied
    }

    pub fn have_changed(&self) -> bool {
        self.changed
    }

    /// For the commit that is being staged: what is in force, if that changed since the last one.
    pub fn take_changed(&mut self) -> Option<Control> {
        std::mem::take(&mut self.changed).then(|| self.control.clone())
    }

    /// The dead letters that the oldest command under way is about and that were not yet taken up.
    pub fn next_letters(&mut self, shard: &ShardId, letters_max: usize) -> Option<DeadQuery> {
        if self.reading {
            return None;
        }
        let job = self.control.jobs.first()?;
        self.reading = true;
        Some(DeadQuery {
            filter: DeadFilter { handler: Some(shard.handler.clone()), shard: Some(shard.index), ..job.filter.clone() },
            order: DeadOrder::Oldest { above: self.above },
            letters_max,
            bytes_max: LETTER_BYTES_MAX,
        })
    }

    /// The letters that were asked for come at a bad time: they are asked for again.
    pub fn put_off(&mut self) {
        self.reading = false;
        self.removed_meanwhile.clear();
    }

    /// Takes the letters that were asked for; none: the command is done. Returns those that go, each with the message
    /// that it returns as; `stay` do not.
    pub fn found(&mut self, letters: Vec<NumberedDeadLetter>, stay: &BTreeSet<u64>) -> Vec<(u64, Option<NewMessage>)> {
        self.reading = false;
        let gone = std::mem::take(&mut self.removed_meanwhile);
        let Some(job) = self.control.jobs.first() else { return Vec::new() };
        if letters.is_empty() {
            self.control.jobs.remove(0);
            (self.changed, self.above) = (true, 0);
            return Vec::new();
        }
        let returns = job.action == DeadAction::Retry;
        let to = job.to.clone();
        let mut going = Vec::with_capacity(letters.len());
        for NumberedDeadLetter { number, letter } in letters {
            self.above = self.above.max(number);
            if !stay.contains(&number) && !gone.contains(&number) && self.removing.insert(number) {
                // At the end of the log, and so of its key's lane, in the order in which the letters died.
                going.push((number, returns.then(|| reserved::returned(&letter, to.as_ref()))));
            }
        }
        going
    }

    /// The removal of these letters is durable.
    pub fn removed(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.removing.remove(number);
        }
        if self.reading {
            self.removed_meanwhile.extend(numbers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::HandlerName;

    fn orders() -> (Orders, ShardId) {
        let mut orders = Orders::new(Control::default(), 2);
        let filter = DeadFilter { kind: Some("rejected".into()), upto: Some(9), ..DeadFilter::default() };
        orders.apply(Offset(1), Command::DropDead { filter });
        (orders, ShardId { handler: HandlerName::parse("h").unwrap(), index: 2 })
    }

    #[test]
    fn an_order_about_letters_of_all_shards_is_about_its_own_in_each() {
        let (mut orders, shard) = orders();
        let filter = orders.next_letters(&shard, 10).unwrap().filter;
        let own = (Some(shard.handler), Some(shard.index), Some("rejected"));
        assert_eq!((filter.handler, filter.shard, filter.kind.as_deref()), own);
    }

    #[test]
    fn letters_are_asked_for_once_and_again_when_they_came_at_a_bad_time() {
        let (mut orders, shard) = orders();
        assert!(orders.next_letters(&shard, 10).is_some() && orders.next_letters(&shard, 10).is_none());
        orders.put_off();
        assert!(orders.next_letters(&shard, 10).is_some());
    }

    #[test]
    fn a_letter_whose_removal_is_durable_is_not_remembered_for_ever() {
        let (mut orders, shard) = orders();
        orders.removing.extend([7, 8]);
        orders.removed(&[7]);
        assert_eq!(orders.removing, HashSet::from([8]));
        assert!(orders.removed_meanwhile.is_empty(), "nobody asked meanwhile");
        orders.next_letters(&shard, 10);
        orders.removed(&[8]);
        assert!(orders.removing.is_empty() && orders.removed_meanwhile.contains(&8));
    }
}
