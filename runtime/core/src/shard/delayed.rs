//! Messages held back until they are due.

use crate::clock::Timestamp;
use crate::commit::Delayed;
use crate::effects::Outgoing;
use crate::handler::DelayedBound;
use crate::invoke::DelayedRoom;
use crate::message::NewMessage;
use hashbrown::HashSet;
use std::collections::BTreeMap;

/// Why a message with a delay is refused, as whoever published it reads it.
pub const FULL: &str = "as many messages are held back until they are due as the handler's `delayed` setting allows: \
                        publish without a delay, or fail and be tried again later";

/// The delayed messages of a shard by due time. All are in memory.
#[derive(Debug, Default)]
pub struct DelayedQueue {
    by_due: BTreeMap<(Timestamp, u64), NewMessage>,
    last_number: u64,
    bytes: usize,
    /// Due earlier than the record says: where they are here.
    shortened: Vec<(Timestamp, u64)>,
    /// What the handler's other shards hold, as the host said last.
    others: Amount,
}

/// Delayed messages, and bytes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub messages: usize,
    pub bytes: usize,
}

impl DelayedQueue {
    pub fn new(recorded: Vec<Delayed>) -> Self {
        let last_number = recorded.iter().map(|delayed| delayed.number).max().unwrap_or(0);
        let bytes = recorded.iter().map(|delayed| delayed.message.bytes()).sum();
        let by_due = recorded.into_iter().map(|delayed| ((delayed.due, delayed.number), delayed.message)).collect();
        Self { by_due, last_number, bytes, ..Self::default() }
    }

    pub fn beside(&mut self, others: Amount) {
        self.others = others;
    }

    /// What is left of the handler's bound.
    pub fn room(&self, bound: DelayedBound) -> DelayedRoom {
        DelayedRoom {
            messages: bound.messages_max.saturating_sub(self.by_due.len() + self.others.messages),
            bytes: bound.bytes_max.saturating_sub(self.bytes + self.others.bytes),
        }
    }

    pub fn amount(&self) -> Amount {
        Amount { messages: self.by_due.len(), bytes: self.bytes }
    }

    /// Holds a message and says how it is recorded.
    pub fn hold(&mut self, due: Timestamp, message: NewMessage) -> Delayed {
        self.last_number += 1;
        self.bytes += message.bytes();
        self.by_due.insert((due, self.last_number), message.clone());
        Delayed { number: self.last_number, due, message }
    }

    /// The record has these with another due time: it is to be written.
    pub fn write_again(&mut self, numbers: Vec<u64>) {
        let numbers: HashSet<u64> = numbers.into_iter().collect();
        self.shortened = self.by_due.keys().filter(|(_, number)| numbers.contains(number)).copied().collect();
    }

    /// One that is to be written again, if it is still held.
    pub fn take_shortened(&mut self) -> Option<Delayed> {
        while let Some(place) = self.shortened.pop() {
            if let Some(message) = self.by_due.get(&place) {
                return Some(Delayed { number: place.1, due: place.0, message: message.clone() });
            }
        }
        None
    }

    /// The next message that is due, and its number.
    pub fn take_due(&mut self, now: Timestamp) -> Option<(u64, NewMessage)> {
        let entry = self.by_due.first_entry().filter(|entry| entry.key().0 <= now)?;
        let number = entry.key().1;
        let message = entry.remove();
        self.bytes -= message.bytes();
        Some((number, message))
    }

    /// Lets a message go before it is due, if it has this id or none is given; false: it is not held any more.
    pub fn cancel(&mut self, number: u64, id: Option<&str>) -> bool {
        let is_it = |held: u64, message: &NewMessage| held == number && (id.is_none() || id == message.id.as_deref());
        let found = self.by_due.iter().find(|((_, held), message)| is_it(*held, message));
        let Some(place) = found.map(|(place, _)| *place) else { return false };
        self.bytes -= self.by_due.remove(&place).map_or(0, |message| message.bytes());
        true
    }

    pub fn next_due(&self) -> Option<Timestamp> {
        self.by_due.keys().next().map(|(due, _)| *due)
    }
}

/// Whether all of these outputs that are delayed have room.
pub fn fit(outputs: &[Outgoing], room: DelayedRoom) -> bool {
    let mut delayed = outputs.iter().filter(|output| output.delay.is_some());
    delayed.try_fold(room, |room, output| room.without(output.bytes())).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Topic;

    fn message(bytes: usize) -> NewMessage {
        NewMessage::new(Topic::parse("out").unwrap(), vec![0; bytes])
    }

    #[test]
    fn what_is_cancelled_or_due_leaves_room_for_others() {
        let bound = DelayedBound { messages_max: 3, bytes_max: 10_000 };
        let mut queue = DelayedQueue::default();
        queue.beside(Amount { messages: 1, bytes: 1000 });
        let first = queue.hold(Timestamp(5), message(100)).number;
        let second = queue.hold(Timestamp(4), message(200)).number;
        assert_eq!(queue.room(bound).messages, 0);
        assert!(!queue.cancel(first, Some("another")) && queue.cancel(first, None) && !queue.cancel(first, None));
        assert_eq!(queue.take_due(Timestamp(9)).unwrap().0, second);
        assert_eq!(queue.room(bound), DelayedRoom { messages: 2, bytes: 9000 });
    }
    #[test]
    fn only_what_is_delayed_needs_room_and_all_of_it_together() {
        let output = |delay| Outgoing {
            topic: Topic::parse("out").unwrap(),
            key: None,
            id: None,
            headers: Default::default(),
            body: vec![0; 100].into(),
            delay,
        };
        let (now, later) = (output(None), output(Some(std::time::Duration::from_secs(1))));
        let room = |messages, bytes| DelayedRoom { messages, bytes };
        let one = later.bytes();
        assert!(fit(&[now.clone(), now.clone()], room(0, 0)));
        let two = [later.clone(), now, later];
        assert!(fit(&two, room(2, 2 * one)));
        assert!(!fit(&two, room(1, 2 * one)) && !fit(&two, room(2, 2 * one - 1)));
    }
}
