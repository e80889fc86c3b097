//! How to go on after a commit was refused for its content: one message, or one dead letter, per commit until the culprit
//! is found.

use crate::message::{Offset, WorkId};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Caution {
    /// Messages up to here are committed one by one.
    pub upto: Offset,
    /// This message alone could not be committed, for this reason.
    pub uncommittable: Option<(WorkId, String)>,
    /// Dead letters whose return alone could not be committed: they stay in their box. No more than an order is about.
    pub letters: BTreeSet<u64>,
}

impl Caution {
    /// Whether the culprit of a refused commit is looked for.
    pub fn is_on(&self) -> bool {
        self.upto > Offset::START
    }

    /// Why the message can never be committed, if it is the culprit.
    pub fn condemns(&self, work: WorkId) -> Option<&str> {
        self.uncommittable.as_ref().filter(|(culprit, _)| *culprit == work).map(|(_, reason)| reason.as_str())
    }
}
