//! What a handler is to have after its key, id or shards changed: all of its records anew, in one piece.

use sluicebox_core::commit::{Record, Term};
use sluicebox_core::message::IdHash;
use sluicebox_core::routing::Routing;

/// Replaces the routing of a handler and the records of all its shards.
///
/// State is addressed by handler and key, so nothing is said of it: it stays as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Rerouting {
    /// The version of the routings that it was made from.
    pub version: u64,
    /// In the place of the one that the handler has.
    pub routing: Routing,
    /// By the index of the shard as it was: the term and the commit number of the claim that it was made from.
    pub from: Vec<(Term, u64)>,
    /// By the index of the shard as it will be, as many as `routing.shards`. Their commit numbers are the log's business.
    pub records: Vec<Record>,
    /// Ascending by number: dead letters of the handler that belong elsewhere now, or are another message's now. What is not named stays, and
    /// goes to the first shard when its own is gone.
    pub letters: Vec<MovedLetter>,
}

/// A dead letter and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedLetter {
    pub number: u64,
    pub shard: u16,
    /// As in [`DeadLetter::identity`](sluicebox_core::commit::DeadLetter::identity).
    pub identity: Option<IdHash>,
}

impl Rerouting {
    /// Higher than any term there was: whoever still works on one of the old shards is fenced.
    pub(crate) fn term(&self) -> Term {
        Term(self.from.iter().map(|(term, _)| term.0).max().unwrap_or(0) + 1)
    }

    /// Not lower than any there was.
    pub(crate) fn commit_number(&self) -> u64 {
        self.from.iter().map(|(_, number)| *number).max().unwrap_or(0)
    }
}
