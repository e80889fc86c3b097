//! The record of one shard, and where its journal is.

use crate::records::ShardRecord;
use sluicebox_core::commit::{Record, Term};

#[derive(Clone, Debug)]
pub(in crate::replicated) struct Shard {
    pub(in crate::replicated) record: ShardRecord,
    /// The sequence of the last entry on its journal: what the next commit is fenced by.
    pub(in crate::replicated) last: u64,
}

impl Shard {
    pub(in crate::replicated) fn new(term: Term, last: u64, record: Record) -> Self {
        Self { record: ShardRecord::from_record(term, record), last }
    }

    /// Whether a commit of this term and number is the next one.
    pub(in crate::replicated) fn takes(&self, term: Term, number: u64) -> bool {
        self.record.term == term && number == self.record.commit_number + 1
    }
}
