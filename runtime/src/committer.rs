//! The committer of a host: merges the commits of many shards into one write of the log.
//!
//! No timer decides when: while one write is under way the next one fills up. A kind of log that can only write a merge
//! as a whole splits it by itself, since the contract demands an answer per shard; what a shard does with a refused
//! commit is the shard's ([`crate::shard::Caution`]).

use crate::commit::{CommitError, ShardCommit};
use crate::log::Log;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Most commits in one write. A shard has one in flight, so this bounds the queue too.
const MERGE_MAX: usize = 256;

/// Hands commits to the one task that writes them. Ends when the last handle is dropped.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    commit: ShardCommit,
    answer: oneshot::Sender<Result<(), CommitError>>,
}

impl Committer {
    /// Starts the task that writes to `log`.
    pub fn start(log: Arc<dyn Log>) -> Self {
        let (queue, waiting) = mpsc::channel(MERGE_MAX);
        tokio::spawn(write(log, waiting));
        Self { queue }
    }

    /// Writes a commit. Dropping the future does not take it back: its fate is unknown then.
    pub async fn commit(&self, commit: ShardCommit) -> Result<(), CommitError> {
        let shard = commit.shard.clone();
        let (answer, answered) = oneshot::channel();
        if self.queue.send(Waiting { commit, answer }).await.is_err() {
            return Err(CommitError::Unavailable { shard, reason: "the host is stopping".into() });
        }
        answered.await.unwrap_or_else(|_| Err(CommitError::Unknown { shard, reason: "the committer went away".into() }))
    }
}

async fn write(log: Arc<dyn Log>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::with_capacity(MERGE_MAX);
    while queue.recv_many(&mut waiting, MERGE_MAX).await > 0 {
        let (commits, answers): (Vec<_>, Vec<_>) =
            waiting.drain(..).map(|waiting| (waiting.commit, waiting.answer)).unzip();
        // DURABLE: everything these shards did becomes real here, and nowhere else.
        let results = log.commit(commits).await;
        for (answer, result) in answers.into_iter().zip(results) {
            // A shard that no longer listens was dropped; its next claim reads the truth.
            let _ = answer.send(result);
        }
    }
}
