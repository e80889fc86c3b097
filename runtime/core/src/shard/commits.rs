//! The commits of a shard: numbered, one in flight at most.

use super::Report;
use crate::commit::Term;
use crate::message::WorkId;

#[derive(Debug)]
pub struct Commits {
    term: Term,
    /// The number of the last commit that is durable.
    durable: u64,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
pub struct InFlight {
    pub report: Report,
    /// The one message of a cautious commit.
    pub only: Option<WorkId>,
    /// Dead letters that it removes.
    pub removes: Vec<u64>,
}

impl Commits {
    pub fn new(term: Term, durable: u64) -> Self {
        Self { term, durable, in_flight: None }
    }

    pub fn term(&self) -> Term {
        self.term
    }

    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The number of the commit that is being staged.
    pub fn next_number(&self) -> u64 {
        self.durable + 1 + u64::from(self.in_flight.is_some())
    }

    pub fn in_flight(&self) -> Option<&InFlight> {
        self.in_flight.as_ref()
    }

    /// The commit with the next number is on its way.
    pub fn begin(&mut self, commit: InFlight) {
        debug_assert!(self.in_flight.is_none(), "at most one commit in flight");
        self.in_flight = Some(commit);
    }

    /// The commit in flight is durable.
    pub fn end(&mut self) -> Option<InFlight> {
        let commit = self.in_flight.take()?;
        self.durable += 1;
        Some(commit)
    }
}
