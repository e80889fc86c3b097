//! The committer of a host: the one place that hands commits to the log.
//!
//! A shard has one commit in flight, and every shard sends its own. Merging those that wait into one write belongs to
//! the kind of log, which knows what a write costs it and what to do when a merge does not fit; what a shard does with a
//! refused commit is the shard's ([`crate::shard::Caution`]). So nothing is kept here, and no task stands between.

use crate::commit::{CommitError, Committed, ShardCommit};
use crate::log::Log;
use std::sync::Arc;

/// Hands commits to a log.
#[derive(Clone)]
pub struct Committer {
    log: Arc<dyn Log>,
}

impl Committer {
    /// Commits to `log`.
    pub fn new(log: Arc<dyn Log>) -> Self {
        Self { log }
    }

    /// Writes a commit. Dropping the future does not take it back: its fate is unknown then.
    pub async fn commit(&self, commit: ShardCommit) -> Result<Committed, CommitError> {
        // DURABLE: everything the shard did becomes real here, and nowhere else.
        self.log.commit(commit).await
    }
}
