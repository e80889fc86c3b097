//! The durable side of `open`: which heads the record holds, so that a commit writes only what changed.

use crate::clock::Timestamp;
use crate::commit::{Head, HeadScope};
use crate::message::Offset;
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// What of a head can change while its offset stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    attempt: u32,
    due: Timestamp,
    scope: HeadScope,
}

impl Stamp {
    fn of(head: &Head) -> Self {
        Self { attempt: head.attempt, due: head.due, scope: head.scope }
    }
}

/// The heads of the record as of the last commit that was staged, and what changed since.
#[derive(Debug)]
pub struct Open {
    recorded: BTreeMap<Offset, Stamp>,
    /// The last word on an offset counts.
    changes: HashMap<Offset, Option<Head>>,
}

impl Open {
    pub fn new(recorded: &[Head]) -> Self {
        let recorded = recorded.iter().map(|head| (head.offset, Stamp::of(head))).collect();
        Self { recorded, changes: HashMap::new() }
    }

    pub fn put(&mut self, head: Head) {
        self.changes.insert(head.offset, Some(head));
    }

    /// A message with a head of its own is settled.
    pub fn settle(&mut self, offset: Offset) {
        self.changes.insert(offset, None);
    }

    /// A lane's head moved on from here.
    pub fn drop(&mut self, offset: Offset) {
        // A head put by another lane or by a skipped message at the same offset stays.
        self.changes.entry(offset).or_insert(None);
    }

    /// Something may differ from the record.
    pub fn has_changed(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The oldest message with a head is not before this; `None`: there is no head.
    pub fn oldest(&self) -> Option<Offset> {
        let put = self.changes.iter().filter(|(_, head)| head.is_some()).map(|(offset, _)| *offset);
        self.recorded.keys().next().copied().into_iter().chain(put).min()
    }

    /// Reduces the changes to what differs from the record, and takes them as recorded: heads to put, offsets to drop.
    pub fn stage(&mut self) -> (Vec<Head>, Vec<Offset>) {
        let (mut put, mut drop) = (Vec::new(), Vec::new());
        for (offset, head) in self.changes.drain() {
            match head {
                Some(head) => {
                    let stamp = Stamp::of(&head);
                    if self.recorded.insert(offset, stamp) != Some(stamp) {
                        put.push(head);
                    }
                }
                None => {
                    if self.recorded.remove(&offset).is_some() {
                        drop.push(offset);
                    }
                }
            }
        }
        put.sort_by_key(|head| head.offset);
        drop.sort();
        (put, drop)
    }
}
