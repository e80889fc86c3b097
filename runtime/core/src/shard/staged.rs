//! The outcomes a shard has reached and not yet committed, coalesced into what the next commit will write.

use super::Report;
use crate::commit::{DeadLetter, Delayed, KeyWrites, Mark};
use crate::effects::StateWrite;
use crate::message::{Key, NewMessage, WorkId};
use crate::pipeline::Settled;
use crate::routing::Routed;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A commit with this many outcomes takes no more: it bounds what an unknown fate throws away.
pub const OUTCOMES_MAX: usize = 4096;
/// Likewise in bytes of outputs, state and dead letters (8 MiB).
pub const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The content of the commit to come.
#[derive(Debug, Default)]
pub struct Staged {
    pub marks: Vec<Mark>,
    pub outputs: Vec<NewMessage>,
    pub delayed_put: BTreeMap<u64, Delayed>,
    /// Those that the record has already, with another due time.
    pub delayed_again: BTreeMap<u64, Delayed>,
    pub delayed_drop: Vec<u64>,
    pub dead: Vec<DeadLetter>,
    /// Numbers of dead letters that go.
    pub dead_drop: Vec<u64>,
    pub report: Report,
    /// What was settled last: in a cautious commit the only one.
    last: Option<WorkId>,
    pub state: Vec<KeyWrites>,
    bytes: usize,
}

/// Room made for the next commit before it is needed: as many outcomes as the last one had, and no more than this.
const ROOM_MAX: usize = 256;

impl Staged {
    /// An empty one that will hold about as much as this one.
    pub fn of_its_size(&self) -> Self {
        let room = |len: usize| len.min(ROOM_MAX);
        Self {
            marks: Vec::with_capacity(room(self.marks.len())),
            outputs: Vec::with_capacity(room(self.outputs.len())),
            state: Vec::with_capacity(room(self.state.len())),
            ..Self::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.report.settled.is_empty()
            && self.outputs.is_empty()
            && self.dead_drop.is_empty()
            && self.delayed_drop.is_empty()
            && self.delayed_again.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.report.settled.len() >= OUTCOMES_MAX || self.bytes >= BYTES_MAX
    }

    pub fn settled(&mut self, routed: &Routed, outcome: Settled) {
        self.last = Some(routed.work());
        self.report.settled(routed, outcome);
    }

    /// What was settled, if it was one alone.
    pub fn only(&self) -> Option<WorkId> {
        self.last.filter(|_| self.report.settled.len() == 1)
    }

    pub fn output(&mut self, message: NewMessage) {
        self.bytes += message.bytes();
        self.outputs.push(message);
    }

    pub fn delay(&mut self, delayed: Delayed) {
        self.bytes += delayed.message.bytes();
        self.delayed_put.insert(delayed.number, delayed);
    }

    /// A delayed message is due at another time than the record says.
    pub fn delay_again(&mut self, delayed: Delayed) {
        self.bytes += delayed.message.bytes();
        self.delayed_again.insert(delayed.number, delayed);
    }

    /// A delayed message is due.
    pub fn release(&mut self, number: u64, message: NewMessage) {
        self.drop_delayed(number);
        self.output(message);
    }

    /// A delayed message leaves the record, unless it had not come that far.
    pub fn drop_delayed(&mut self, number: u64) {
        self.delayed_again.remove(&number);
        if self.delayed_put.remove(&number).is_none() {
            self.delayed_drop.push(number);
        }
    }

    pub fn dead(&mut self, letter: DeadLetter) {
        self.bytes += letter.message.bytes() + letter.error.len();
        self.dead.push(letter);
    }

    /// A dead letter goes: for good, or because it returns to the log as this message.
    pub fn remove_dead(&mut self, number: u64, returns: Option<NewMessage>) {
        self.dead_drop.push(number);
        self.report.dead_removed += 1;
        self.bytes += 16;
        if let Some(message) = returns {
            self.output(message);
        }
    }

    /// How many keys have writes.
    pub fn keys_written(&self) -> usize {
        self.state.len()
    }

    /// Adds the writes of a run to those of its key, which are `at` this place or the next; the last write to an entry wins.
    pub fn write(&mut self, at: usize, key: &Key, writes: Vec<StateWrite>) {
        self.bytes +=
            writes.iter().map(|write| write.value.as_ref().map_or(0, |value| value.len()) + 32).sum::<usize>();
        let Some(KeyWrites { writes: held, .. }) = self.state.get_mut(at) else {
            return self.state.push(KeyWrites { key: key.clone(), writes });
        };
        for write in writes {
            match held.iter_mut().find(|other| other.entry == write.entry) {
                Some(other) => *other = write,
                None => held.push(write),
            }
        }
    }

    pub fn count(&mut self, counts: Vec<(Arc<str>, u64)>) {
        for (name, by) in counts {
            match self.report.counts.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) => *sum = sum.saturating_add(by),
                None => self.report.counts.push((name, by)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::commit::Deaths;
    use crate::handler::{HandlerName, ShardId};
    use crate::message::{Message, Offset};
    use crate::topic::Topic;

    fn message(bytes: usize) -> NewMessage {
        NewMessage::new(Topic::parse("out").unwrap(), vec![0; bytes])
    }

    fn letter(bytes: usize, error: String) -> DeadLetter {
        DeadLetter {
            shard: ShardId { handler: HandlerName::parse("h").unwrap(), index: 0 },
            message: Arc::new(Message::from_new(message(bytes), Offset(1), Timestamp(0))),
            key: None,
            attempts: 1,
            kind: "rejected".into(),
            error,
            digest: None,
            time: Timestamp(0),
            identity: None,
            deaths: Deaths::first(Offset(1), Timestamp(0)),
        }
    }

    #[test]
    fn whatever_a_commit_carries_counts_towards_its_bound() {
        let delayed = || Delayed { number: 1, due: Timestamp(1), message: message(BYTES_MAX) };
        let key = |number| Key::parse(&format!("k{number}")).unwrap().unwrap();
        let write = |value: Option<usize>| {
            vec![StateWrite { entry: "e".into(), value: value.map(|bytes| vec![0; bytes].into()) }]
        };
        type Fill<'a> = &'a dyn Fn(&mut Staged);
        let full_with: [(&str, Fill<'_>); 9] = [
            ("an output", &|staged| staged.output(message(BYTES_MAX))),
            ("a delayed message", &|staged| staged.delay(delayed())),
            ("another due time", &|staged| staged.delay_again(delayed())),
            ("a letter that returns", &|staged| staged.remove_dead(1, Some(message(BYTES_MAX)))),
            ("letters that go", &|staged| {
                (0..BYTES_MAX as u64 / 16).for_each(|number| staged.remove_dead(number, None))
            }),
            ("a dead letter", &|staged| staged.dead(letter(BYTES_MAX, String::new()))),
            ("a long error", &|staged| staged.dead(letter(0, "x".repeat(BYTES_MAX)))),
            ("a state", &|staged| staged.write(0, &key(0), write(Some(BYTES_MAX)))),
            ("deleted states", &|staged| {
                (0..BYTES_MAX / 32).for_each(|number| staged.write(number, &key(number), write(None)));
            }),
        ];
        for (what, fill) in full_with {
            let mut staged = Staged::default();
            assert!(!staged.is_full(), "{what}");
            fill(&mut staged);
            assert!(staged.is_full(), "{what}");
        }
    }

    #[test]
    fn what_several_runs_counted_under_one_name_adds_up() {
        let mut staged = Staged::default();
        staged.count(vec![("a".into(), 1), ("b".into(), 2)]);
        staged.count(vec![("b".into(), 3), ("a".into(), u64::MAX)]);
        assert_eq!(staged.report.counts, [("a".into(), u64::MAX), ("b".into(), 5)]);
        staged.remove_dead(1, None);
        staged.remove_dead(2, None);
        assert_eq!(staged.report.dead_removed, 2);
    }
}
