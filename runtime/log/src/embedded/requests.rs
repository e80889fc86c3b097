//! What the writer is asked for, and how it answers once the fate of the transaction is known.

use super::failure::Failure;
use super::modules::ModuleWrite;
use super::tables::{Tables, Unwritten};
use super::trim::Due;
use crate::contract::{Trim, Trimmed};
use crate::error::LogError;
use crate::rerouting::Rerouting;
use sluicebox_core::commit::{CommitError, Committed, ShardCommit, Term};
use sluicebox_core::handler::{HandlerName, ShardId};
use sluicebox_core::message::{NewMessage, Offset};
use sluicebox_core::routing::{Routing, reserved};
use tokio::sync::oneshot;

/// Something to write. `Erase` deletes some of what forgotten handlers left, and is answered with true when nothing is
/// left.
pub(super) enum Request {
    Append { messages: Vec<NewMessage>, answer: oneshot::Sender<Result<Vec<Offset>, LogError>> },
    Commit { commit: Box<ShardCommit>, answer: oneshot::Sender<Result<Committed, CommitError>> },
    Claim { shard: ShardId, start: Offset, answer: oneshot::Sender<Result<Term, LogError>> },
    PutRoutings { version: u64, routings: Vec<Routing>, answer: oneshot::Sender<Result<(), LogError>> },
    Reroute { rerouting: Box<Rerouting>, answer: oneshot::Sender<Result<(), LogError>> },
    Trim { trim: Trim, due: Box<Due>, answer: oneshot::Sender<Result<Trimmed, LogError>> },
    Forget { handler: HandlerName, answer: oneshot::Sender<Result<(), LogError>> },
    Erase { answer: oneshot::Sender<Result<bool, LogError>> },
    Module { write: ModuleWrite, answer: oneshot::Sender<Result<(), LogError>> },
}

/// What became of a request within its transaction.
pub(super) enum Written {
    Append(Result<Vec<Offset>, LogError>),
    Commit(Result<Committed, CommitError>),
    Claim(Term),
    PutRoutings(Result<(), LogError>),
    Reroute(Result<(), LogError>),
    Trim(Trimmed),
    Forget,
    Erase(bool),
    Module(Result<(), LogError>),
}

/// Sends the answer to one request.
pub(super) type Reply = Box<dyn FnOnce()>;

impl Request {
    /// How much of a transaction it fills, roughly in bytes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Request::Append { messages, .. } => 64 + messages.iter().map(NewMessage::bytes).sum::<usize>(),
            Request::Commit { commit, .. } => commit_weight(commit),
            Request::Module { write, .. } => write.weight(),
            Request::Claim { .. } | Request::PutRoutings { .. } => 1024,
            Request::Reroute { .. } | Request::Trim { .. } | Request::Forget { .. } | Request::Erase { .. } => 0,
        }
    }

    /// Whether it has a transaction to itself: what can wait and takes long must not delay what cannot.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self, Request::Reroute { .. } | Request::Trim { .. } | Request::Forget { .. } | Request::Erase { .. })
    }

    /// Whether it only brings something new, and so gives way to the work under way when room runs out.
    pub(super) fn is_append(&self) -> bool {
        match self {
            Request::Append { messages, .. } => !reserved::are_commands(messages),
            Request::Module { write, .. } => matches!(write, ModuleWrite::Piece { .. }),
            _ => false,
        }
    }

    /// Writes it within the transaction under way. On an error the transaction must be undone.
    pub(super) fn write(&self, tables: &mut Tables<'_>) -> Result<Written, Failure> {
        Ok(match self {
            Request::Append { messages, .. } => Written::Append(tables.append(messages)?),
            Request::Commit { commit, .. } => Written::Commit(tables.commit(commit)?),
            Request::Claim { shard, start, .. } => Written::Claim(tables.claim(shard, *start)?),
            Request::PutRoutings { version, routings, .. } => {
                Written::PutRoutings(tables.put_routings(*version, routings)?)
            }
            Request::Reroute { rerouting, .. } => Written::Reroute(tables.reroute(rerouting)?),
            Request::Trim { trim, due, .. } => Written::Trim(tables.trim(trim, due)?),
            Request::Forget { handler, .. } => {
                tables.forget(handler)?;
                Written::Forget
            }
            Request::Erase { .. } => Written::Erase(tables.erase()?),
            Request::Module { write, .. } => Written::Module(tables.write_module(write)?),
        })
    }

    /// Once its transaction is durable: hands over the messages that it brought into the log, and returns what answers
    /// it. An answer whose receiver is gone is dropped: the caller gave up waiting, the write stands.
    pub(super) fn done(self, written: Written, arrive: impl FnMut(NewMessage)) -> Reply {
        match (self, written) {
            (Request::Append { messages, answer }, Written::Append(result)) => {
                if result.is_ok() {
                    messages.into_iter().for_each(arrive);
                }
                Box::new(move || drop(answer.send(result)))
            }
            (Request::Commit { commit, answer }, Written::Commit(result)) => {
                if result.is_ok() {
                    commit.outputs.into_iter().for_each(arrive);
                }
                Box::new(move || drop(answer.send(result)))
            }
            (Request::Claim { answer, .. }, Written::Claim(term)) => Box::new(move || drop(answer.send(Ok(term)))),
            (Request::PutRoutings { answer, .. }, Written::PutRoutings(result)) => {
                Box::new(move || drop(answer.send(result)))
            }
            (Request::Reroute { answer, .. }, Written::Reroute(result)) => Box::new(move || drop(answer.send(result))),
            (Request::Trim { answer, .. }, Written::Trim(trimmed)) => Box::new(move || drop(answer.send(Ok(trimmed)))),
            (Request::Forget { answer, .. }, Written::Forget) => Box::new(move || drop(answer.send(Ok(())))),
            (Request::Erase { answer }, Written::Erase(is_done)) => Box::new(move || drop(answer.send(Ok(is_done)))),
            (Request::Module { answer, .. }, Written::Module(result)) => Box::new(move || drop(answer.send(result))),
            _ => unreachable!("`write` answers each kind of request with its own kind of result"),
        }
    }

    /// Answers that its transaction was not written.
    pub(super) fn fail(self, unwritten: &Unwritten) {
        let error = || log_error(unwritten);
        match self {
            Request::Append { answer, .. } => drop(answer.send(Err(error()))),
            Request::Claim { answer, .. } => drop(answer.send(Err(error()))),
            Request::PutRoutings { answer, .. } => drop(answer.send(Err(error()))),
            Request::Reroute { answer, .. } => drop(answer.send(Err(error()))),
            Request::Trim { answer, .. } => drop(answer.send(Err(error()))),
            Request::Forget { answer, .. } => drop(answer.send(Err(error()))),
            Request::Erase { answer } => drop(answer.send(Err(error()))),
            Request::Module { answer, .. } => drop(answer.send(Err(error()))),
            Request::Commit { commit, answer } => drop(answer.send(Err(commit_error(commit.shard, unwritten)))),
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
    let dead: usize = commit.dead.iter().map(|letter| letter.message.bytes() + letter.error.len()).sum();
    let values = commit.state.iter().flat_map(|key| &key.writes).map(|write| write.value.as_ref());
    let state: usize = values.map(|value| 128 + value.map_or(0, |value| value.len())).sum();
    let open: usize = commit.open_put.iter().map(|head| 128 + head.error.len()).sum();
    256 + outputs + delayed + dead + state + open + size_of_val(&*commit.marks)
}
