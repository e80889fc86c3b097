//! What the writer is asked for, and how it answers once the fate of the transaction is known.

use super::failure::Failure;
use super::tables::{Tables, Unwritten};
use super::trim::Floor;
use crate::commit::{CommitError, ShardCommit, Term};
use crate::handler::{HandlerName, ShardId};
use crate::log::{LogError, Trim, Trimmed};
use crate::message::{NewMessage, Offset};
use crate::routing::Routing;
use tokio::sync::oneshot;

/// Something to write. `Erase` deletes some of what forgotten handlers left, and is answered with true when nothing is
/// left.
pub(super) enum Request {
    Append { messages: Vec<NewMessage>, answer: oneshot::Sender<Result<Vec<Offset>, LogError>> },
    Commit { commits: Vec<ShardCommit>, answer: oneshot::Sender<Vec<Result<(), CommitError>>> },
    Claim { shard: ShardId, start: Offset, answer: oneshot::Sender<Result<Term, LogError>> },
    PutRoutings { version: u64, routings: Vec<Routing>, answer: oneshot::Sender<Result<(), LogError>> },
    Trim { trim: Trim, floor: Floor, answer: oneshot::Sender<Result<Trimmed, LogError>> },
    Forget { handler: HandlerName, answer: oneshot::Sender<Result<(), LogError>> },
    Erase { answer: oneshot::Sender<Result<bool, LogError>> },
}

/// Sends the answer to one request; `Err` when its transaction was not written.
pub(super) type Reply = Box<dyn FnOnce(Result<(), &Unwritten>)>;

impl Request {
    /// How much of a transaction it fills, roughly in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Request::Append { messages, .. } => messages.iter().map(NewMessage::bytes).sum(),
            Request::Commit { commits, .. } => commits.iter().map(commit_weight).sum(),
            Request::Claim { .. } | Request::PutRoutings { .. } => 1024,
            Request::Trim { .. } | Request::Forget { .. } | Request::Erase { .. } => 0,
        }
    }

    /// Whether it has a transaction to itself: what can wait and takes long must not delay what cannot.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self, Request::Trim { .. } | Request::Forget { .. } | Request::Erase { .. })
    }

    /// Writes it within the transaction under way. On an error the transaction must be undone.
    pub(super) fn write(self, tables: &mut Tables<'_>) -> (Reply, Result<(), Failure>) {
        match self {
            Request::Append { messages, answer } => reply(answer, tables.append(messages)),
            Request::Claim { shard, start, answer } => reply(answer, tables.claim(&shard, start).map(Ok)),
            Request::PutRoutings { version, routings, answer } => {
                reply(answer, tables.put_routings(version, &routings))
            }
            Request::Trim { trim, floor, answer } => reply(answer, tables.trim(&trim, &floor).map(Ok)),
            Request::Forget { handler, answer } => reply(answer, tables.forget(&handler).map(Ok)),
            Request::Erase { answer } => reply(answer, tables.erase().map(Ok)),
            Request::Commit { commits, answer } => {
                let mut answers = Vec::with_capacity(commits.len());
                let mut written = Ok(());
                for commit in commits {
                    let shard = commit.shard.clone();
                    let result = match &written {
                        Ok(()) => tables.commit(commit).unwrap_or_else(|failure| {
                            written = Err(failure);
                            Ok(())
                        }),
                        Err(_) => Ok(()),
                    };
                    answers.push((shard, result));
                }
                (reply_commits(answer, answers), written)
            }
        }
    }

    /// Answers without writing anything.
    pub(super) fn refuse(self, failure: &Failure) {
        let error = || LogError::from(failure.clone());
        match self {
            Request::Append { answer, .. } => drop(answer.send(Err(error()))),
            Request::Claim { answer, .. } => drop(answer.send(Err(error()))),
            Request::PutRoutings { answer, .. } => drop(answer.send(Err(error()))),
            Request::Trim { answer, .. } => drop(answer.send(Err(error()))),
            Request::Forget { answer, .. } => drop(answer.send(Err(error()))),
            Request::Erase { answer } => drop(answer.send(Err(error()))),
            Request::Commit { commits, answer } => {
                let shards = commits.into_iter().map(|commit| (commit.shard, Ok(()))).collect();
                reply_commits(answer, shards)(Err(&Unwritten::Nothing(failure.clone())));
            }
        }
    }
}

/// An answer whose receiver is gone is dropped: the caller gave up waiting, the write stands.
fn reply<T: 'static>(
    answer: oneshot::Sender<Result<T, LogError>>,
    written: Result<Result<T, LogError>, Failure>,
) -> (Reply, Result<(), Failure>) {
    match written {
        Ok(result) => {
            let reply = move |fate: Result<(), &Unwritten>| {
                drop(answer.send(fate.map_err(log_error).and(result)));
            };
            (Box::new(reply), Ok(()))
        }
        Err(failure) => {
            let error = LogError::from(failure.clone());
            (Box::new(move |_| drop(answer.send(Err(error)))), Err(failure))
        }
    }
}

fn reply_commits(
    answer: oneshot::Sender<Vec<Result<(), CommitError>>>,
    answers: Vec<(ShardId, Result<(), CommitError>)>,
) -> Reply {
    Box::new(move |fate| {
        let each = |(shard, result): (ShardId, Result<(), CommitError>)| {
            result.and_then(|()| fate.map_err(|unwritten| commit_error(shard, unwritten)))
        };
        drop(answer.send(answers.into_iter().map(each).collect()));
    })
}

fn log_error(unwritten: &Unwritten) -> LogError {
    match unwritten {
        Unwritten::Nothing(failure) => failure.clone().into(),
        Unwritten::Unknown(failure) => LogError::Unknown { reason: failure.to_string() },
    }
}

fn commit_error(shard: ShardId, unwritten: &Unwritten) -> CommitError {
    match unwritten {
        Unwritten::Nothing(failure) => CommitError::Unavailable { shard, reason: failure.to_string() },
        Unwritten::Unknown(failure) => CommitError::Unknown { shard, reason: failure.to_string() },
    }
}

fn commit_weight(commit: &ShardCommit) -> usize {
    let outputs: usize = commit.outputs.iter().map(NewMessage::bytes).sum();
    let delayed: usize = commit.delayed_put.iter().map(|delayed| delayed.message.bytes()).sum();
    let dead: usize = commit.dead.iter().map(|letter| letter.message.bytes()).sum();
    let values = commit.state.iter().flat_map(|key| &key.writes).map(|write| write.value.as_ref());
    let state: usize = values.map(|value| 128 + value.map_or(0, |value| value.len())).sum();
    256 + outputs + delayed + dead + state + 128 * commit.open_put.len()
}
