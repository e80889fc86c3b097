//! What the writer is asked for, and how it answers once the fate of the transaction is known.

use super::failure::Failure;
use super::tables::{Tables, Unwritten};
use super::trim::Floor;
use crate::{LogError, Trim, Trimmed};
use sluicebox_core::commit::{CommitError, ShardCommit, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{NewMessage, Offset};
use sluicebox_core::routing::Routing;
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

/// What became of a request within its transaction.
pub(super) enum Written {
    Append(Result<Vec<Offset>, LogError>),
    Commit(Vec<Result<(), CommitError>>),
    Claim(Term),
    PutRoutings(Result<(), LogError>),
    Trim(Trimmed),
    Forget,
    Erase(bool),
}

/// Sends the answer to one request.
pub(super) type Reply = Box<dyn FnOnce()>;

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

    /// Whether it only brings something new, and so gives way to the work under way when room runs out.
    pub(super) fn is_append(&self) -> bool {
        matches!(self, Request::Append { .. })
    }

    /// Writes it within the transaction under way. On an error the transaction must be undone.
    pub(super) fn write(&self, tables: &mut Tables<'_>) -> Result<Written, Failure> {
        Ok(match self {
            Request::Append { messages, .. } => Written::Append(tables.append(messages)?),
            Request::Commit { commits, .. } => {
                Written::Commit(commits.iter().map(|commit| tables.commit(commit)).collect::<Result<_, _>>()?)
            }
            Request::Claim { shard, start, .. } => Written::Claim(tables.claim(shard, *start)?),
            Request::PutRoutings { version, routings, .. } => {
                Written::PutRoutings(tables.put_routings(*version, routings)?)
            }
            Request::Trim { trim, floor, .. } => Written::Trim(tables.trim(trim, floor)?),
            Request::Forget { handler, .. } => {
                tables.forget(handler)?;
                Written::Forget
            }
            Request::Erase { .. } => Written::Erase(tables.erase()?),
        })
    }

    /// Once its transaction is durable: hands over the messages that it brought into the log, and returns what answers
    /// it. An answer whose receiver is gone is dropped: the caller gave up waiting, the write stands.
    pub(super) fn done(self, written: Written, mut arrive: impl FnMut(NewMessage)) -> Reply {
        match (self, written) {
            (Request::Append { messages, answer }, Written::Append(result)) => {
                if result.is_ok() {
                    messages.into_iter().for_each(arrive);
                }
                Box::new(move || drop(answer.send(result)))
            }
            (Request::Commit { commits, answer }, Written::Commit(results)) => {
                let taken = commits.into_iter().zip(&results).filter(|(_, result)| result.is_ok());
                taken.flat_map(|(commit, _)| commit.outputs).for_each(&mut arrive);
                Box::new(move || drop(answer.send(results)))
            }
            (Request::Claim { answer, .. }, Written::Claim(term)) => Box::new(move || drop(answer.send(Ok(term)))),
            (Request::PutRoutings { answer, .. }, Written::PutRoutings(result)) => {
                Box::new(move || drop(answer.send(result)))
            }
            (Request::Trim { answer, .. }, Written::Trim(trimmed)) => Box::new(move || drop(answer.send(Ok(trimmed)))),
            (Request::Forget { answer, .. }, Written::Forget) => Box::new(move || drop(answer.send(Ok(())))),
            (Request::Erase { answer }, Written::Erase(is_done)) => Box::new(move || drop(answer.send(Ok(is_done)))),
            _ => unreachable!("`write` answers each kind of request with its own kind of result"),
        }
    }

    /// Commits of several shards as one request each, and what puts their answers together when all have one. `Err`: it
    /// is in one piece.
    pub(super) fn apart(self) -> Result<(Vec<Self>, Reply), Self> {
        match self {
            Request::Commit { commits, answer } if commits.len() > 1 => {
                let shards: Vec<ShardId> = commits.iter().map(|commit| commit.shard.clone()).collect();
                let (parts, answers): (Vec<_>, Vec<_>) = commits
                    .into_iter()
                    .map(|commit| {
                        let (answer, answered) = oneshot::channel();
                        (Request::Commit { commits: vec![commit], answer }, answered)
                    })
                    .unzip();
                let gather = move || {
                    let each = |(mut answered, shard): (oneshot::Receiver<Vec<_>>, ShardId)| {
                        let lost = || CommitError::Unknown { shard, reason: "its writer ended".into() };
                        answered.try_recv().ok().and_then(|mut answers| answers.pop()).unwrap_or_else(|| Err(lost()))
                    };
                    drop(answer.send(answers.into_iter().zip(shards).map(each).collect()));
                };
                Ok((parts, Box::new(gather)))
            }
            whole => Err(whole),
        }
    }

    /// Answers that its transaction was not written.
    pub(super) fn fail(self, unwritten: &Unwritten) {
        let error = || log_error(unwritten);
        match self {
            Request::Append { answer, .. } => drop(answer.send(Err(error()))),
            Request::Claim { answer, .. } => drop(answer.send(Err(error()))),
            Request::PutRoutings { answer, .. } => drop(answer.send(Err(error()))),
            Request::Trim { answer, .. } => drop(answer.send(Err(error()))),
            Request::Forget { answer, .. } => drop(answer.send(Err(error()))),
            Request::Erase { answer } => drop(answer.send(Err(error()))),
            Request::Commit { commits, answer } => {
                let each = |commit: ShardCommit| Err(commit_error(commit.shard, unwritten));
                drop(answer.send(commits.into_iter().map(each).collect()));
            }
        }
    }

    /// Answers without having tried to write anything.
    pub(super) fn refuse(self, failure: &Failure) {
        self.fail(&Unwritten::Nothing(failure.clone()));
    }
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
