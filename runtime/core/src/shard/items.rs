//! The work that waits in a lane, in order.

use crate::clock::Timestamp;
use crate::commit::{Head, HeadScope};
use crate::handler::Digest;
use crate::message::{Key, Offset, WorkId};
use crate::routing::Routed;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Unsettled work of a lane: a message of the log, or a request.
#[derive(Clone, Debug)]
pub struct Item {
    pub work: WorkId,
    /// `None`: only in the log, to be fetched before it can run.
    pub routed: Option<Routed>,
    /// Failed tries so far.
    pub attempt: u32,
    pub due: Timestamp,
    /// It gave up its place: its own head in the record, not the lane's.
    pub alone: bool,
    /// What it held before it gave its memory back; 0: it never held any.
    shed_bytes: u32,
    /// How the last try failed. Most items never fail.
    pub failed: Option<Box<Failed>>,
}

#[derive(Clone, Debug)]
pub struct Failed {
    pub error: Arc<str>,
    pub digest: Option<Digest>,
}

impl Item {
    pub fn new(mut routed: Routed) -> Self {
        routed.hash_id();
        Self { work: routed.work(), routed: Some(routed), ..Self::in_log(Offset::START) }
    }

    /// An item that is only known by its offset.
    pub fn in_log(offset: Offset) -> Self {
        Self {
            work: offset.into(),
            routed: None,
            attempt: 0,
            due: Timestamp(0),
            alone: false,
            shed_bytes: 0,
            failed: None,
        }
    }

    /// As the record names it, with what it implies about its key.
    pub fn recorded(head: &Head) -> Self {
        let Head { offset, attempt, due, error, digest, .. } = head;
        // One that waits without an attempt failed all the same.
        let has_failed = *attempt > 0 || *due > Timestamp(0);
        let failed = has_failed.then(|| Box::new(Failed { error: error.clone(), digest: *digest }));
        let alone = head.scope == HeadScope::Message && head.key.is_some();
        Self { attempt: *attempt, due: *due, alone, failed, ..Self::in_log(*offset) }
    }

    /// How the record names it; only what is in the log is named there.
    pub fn head(&self, key: Option<Key>, scope: HeadScope) -> Option<Head> {
        let error = self.failed.as_ref().map_or_else(no_error, |failed| failed.error.clone());
        let (attempt, due, digest) = (self.attempt, self.due, self.digest());
        Some(Head { offset: self.work.offset()?, key, attempt, due, error, digest, scope })
    }

    /// The module that failed last.
    pub fn digest(&self) -> Option<Digest> {
        self.failed.as_ref()?.digest
    }

    /// Bytes it holds in memory.
    pub fn held_bytes(&self) -> usize {
        self.routed.as_ref().map_or(0, |routed| routed.message.bytes())
    }

    /// Bytes it will hold when it comes back from the log; 0: nobody knows.
    pub fn bytes_in_log(&self) -> usize {
        usize::try_from(self.shed_bytes).unwrap_or(0)
    }

    /// Gives its memory back, if the log can bring it back. Returns the bytes freed.
    pub fn shed(&mut self) -> usize {
        if self.work.offset().is_none() || self.routed.is_none() {
            return 0;
        }
        let bytes = self.held_bytes();
        self.shed_bytes = u32::try_from(bytes).unwrap_or(0);
        self.routed = None;
        bytes
    }

    /// Whether the log alone could bring it back as it is.
    pub fn is_plain(&self) -> bool {
        !self.has_failed() && !self.alone && self.work.offset().is_some()
    }

    /// Whether a try of it came to nothing, counted or not: it is not tried before it is due.
    pub fn has_failed(&self) -> bool {
        self.attempt > 0 || self.due > Timestamp(0)
    }
}

/// The shared empty error text.
fn no_error() -> Arc<str> {
    static EMPTY: OnceLock<Arc<str>> = OnceLock::new();
    EMPTY.get_or_init(|| "".into()).clone()
}

/// The queue of a lane. Most hold one item for a moment: it lies in the lane itself, without an allocation of its own.
#[derive(Debug, Default)]
pub struct Items {
    /// `None`: there is none.
    first: Option<Item>,
    rest: VecDeque<Item>,
}

impl Items {
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub fn front(&self) -> Option<&Item> {
        self.first.as_ref()
    }

    pub fn front_mut(&mut self) -> Option<&mut Item> {
        self.first.as_mut()
    }

    pub fn back(&self) -> Option<&Item> {
        self.rest.back().or(self.first.as_ref())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Item> {
        self.first.iter().chain(&self.rest)
    }

    /// All but the first.
    pub fn rest_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.rest.iter_mut()
    }

    pub fn push_back(&mut self, item: Item) {
        match &self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.push_back(item),
        }
    }

    pub fn push_front(&mut self, item: Item) {
        if let Some(second) = self.first.replace(item) {
            self.rest.push_front(second);
        }
    }

    /// Puts it behind the first, or in its place if there is none.
    pub fn push_second(&mut self, item: Item) {
        match &self.first {
            None => self.first = Some(item),
            Some(_) => self.rest.push_front(item),
        }
    }

    pub fn pop_front(&mut self) -> Option<Item> {
        let next = self.rest.pop_front();
        std::mem::replace(&mut self.first, next)
    }

    /// Drops all but the first.
    pub fn keep_first(&mut self) {
        self.rest = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, NewMessage};
    use crate::topic::Topic;

    #[test]
    fn an_item_from_the_record_goes_back_there_as_it_was() {
        let digest = Some(Digest::of(b"module"));
        let failures = [(0, 0, "", None), (3, 0, "down", digest), (3, 7, "down", None), (0, 7, "no room", digest)];
        for (attempt, due, error, digest) in failures {
            for scope in [HeadScope::Lane, HeadScope::Message] {
                let (key, due, error) = (Key::parse("k").unwrap(), Timestamp(due), error.into());
                let head = Head { offset: Offset(5), key, attempt, due, error, digest, scope };
                let item = Item::recorded(&head);
                assert_eq!(item.head(head.key.clone(), scope).as_ref(), Some(&head));
                assert_eq!(item.alone, scope == HeadScope::Message);
                // Most never failed, and there may be as many as may be open.
                assert_eq!(item.failed.is_some(), attempt > 0 || due > Timestamp(0), "{head:?}");
            }
        }
    }

    #[test]
    fn the_log_alone_brings_back_what_never_failed_and_has_its_place() {
        let plain = Item::in_log(Offset(5));
        assert!(plain.is_plain());
        let failed = Item { attempt: 1, ..plain.clone() };
        // Put off without an attempt.
        let put_off = Item { due: Timestamp(9), ..plain.clone() };
        assert!(failed.has_failed() && put_off.has_failed());
        let alone = Item { alone: true, ..plain.clone() };
        let request = Item { work: WorkId::Ticket(5), ..plain };
        for item in [failed, put_off, alone, request] {
            assert!(!item.is_plain(), "{item:?}");
        }
    }
    #[test]
    fn memory_is_given_back_once_and_only_of_what_the_log_can_bring_back() {
        let new = NewMessage::new(Topic::parse("in").unwrap(), "body");
        let message = Arc::new(Message::from_new(new, Offset(5), Timestamp(1)));
        let routed = Routed { message, hash: 0, key: None, id: None, unroutable: None, deaths: None };
        let mut logged = Item::new(routed);
        let bytes = logged.held_bytes();
        let mut request = Item { work: WorkId::Ticket(5), ..logged.clone() };
        assert_eq!((request.shed(), request.held_bytes()), (0, bytes), "a request is nowhere else");
        assert_eq!([logged.shed(), logged.shed()], [bytes, 0]);
        assert_eq!((logged.held_bytes(), logged.bytes_in_log()), (0, bytes), "room can be kept for its return");
    }
}
