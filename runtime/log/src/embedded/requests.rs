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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use sluicebox_core::clock::Timestamp;
    use sluicebox_core::commit::{DeadLetter, Deaths, Delayed, Head, HeadScope, KeyWrites, Mark};
    use sluicebox_core::effects::StateWrite;
    use sluicebox_core::handler::Digest;
    use sluicebox_core::message::{IdHash, Key, Message};
    use sluicebox_core::topic::Topic;
    use std::sync::Arc;
    use std::time::Duration;

    const LARGE: usize = 1_000_000;

    fn handler() -> HandlerName {
        HandlerName::parse("h").unwrap()
    }

    fn message(topic: &str, bytes: usize) -> NewMessage {
        NewMessage::new(Topic::parse(topic).unwrap(), vec![0; bytes])
    }

    fn letter(bytes: usize, error_bytes: usize) -> DeadLetter {
        DeadLetter {
            shard: ShardId { handler: handler(), index: 0 },
            message: Arc::new(Message::from_new(message("in", bytes), Offset(1), Timestamp(1))),
            key: None,
            attempts: 1,
            kind: "rejected".into(),
            error: "x".repeat(error_bytes),
            digest: None,
            time: Timestamp(1),
            identity: None,
            deaths: Deaths::first(Offset(1), Timestamp(1)),
        }
    }

    fn head(error_bytes: usize) -> Head {
        Head {
            offset: Offset(1),
            key: None,
            attempt: 1,
            due: Timestamp(1),
            error: "x".repeat(error_bytes).into(),
            digest: None,
            scope: HeadScope::Message,
        }
    }

    fn writes(value_bytes: Option<usize>) -> KeyWrites {
        let value = value_bytes.map(|bytes| vec![0; bytes].into());
        KeyWrites { key: Key::parse("k").unwrap().unwrap(), writes: vec![StateWrite { entry: "e".into(), value }] }
    }

    /// An empty commit with something put into it.
    fn commit(put: impl FnOnce(&mut ShardCommit)) -> usize {
        let mut commit = ShardCommit {
            shard: ShardId { handler: handler(), index: 0 },
            term: Term(1),
            number: 1,
            read: Offset(1),
            open_put: vec![],
            open_drop: vec![],
            marks: vec![],
            marks_since: Timestamp(0),
            marks_max: usize::MAX,
            state: vec![],
            outputs: vec![],
            delayed_put: vec![],
            delayed_drop: vec![],
            dead: vec![],
            dead_window: Duration::ZERO,
            dead_max: u64::MAX,
            dead_drop: vec![],
            controlled: Offset::START,
            control: None,
        };
        put(&mut commit);
        commit_weight(&commit)
    }

    #[test]
    fn whatever_a_commit_carries_weighs_in_its_transaction() {
        let empty = commit(|_| {});
        assert!((1..1024).contains(&empty), "{empty}");
        let due = Timestamp(1);
        let mark = Mark { id: IdHash::of_id_alone(b"id"), time: due };
        let large: [(&str, usize); 8] = [
            ("an output", commit(|commit| commit.outputs.push(message("out", LARGE)))),
            ("a delayed message", {
                commit(|commit| commit.delayed_put.push(Delayed { number: 1, due, message: message("out", LARGE) }))
            }),
            ("a dead letter", commit(|commit| commit.dead.push(letter(LARGE, 0)))),
            ("its error", commit(|commit| commit.dead.push(letter(0, LARGE)))),
            ("a state", commit(|commit| commit.state.push(writes(Some(LARGE))))),
            ("the error of a head", commit(|commit| commit.open_put.push(head(LARGE)))),
            ("many heads", commit(|commit| commit.open_put = vec![head(0); LARGE / 128])),
            ("many marks", commit(|commit| commit.marks = vec![mark; LARGE / size_of::<Mark>() + 1])),
        ];
        for (what, weight) in large {
            assert!((LARGE..LARGE + 2048).contains(&weight), "{what}: {weight}");
        }
        let deleted = commit(|commit| commit.state = vec![writes(None); 100]);
        assert!(deleted >= empty + 100 * 64, "{deleted}");
        let both = commit(|commit| {
            commit.outputs.push(message("out", LARGE));
            commit.dead.push(letter(LARGE, LARGE));
            commit.open_put.push(head(LARGE));
        });
        assert!((4 * LARGE..4 * LARGE + 2048).contains(&both), "{both}");
    }

    fn append(messages: Vec<NewMessage>) -> Request {
        Request::Append { messages, answer: oneshot::channel().0 }
    }

    fn module(write: ModuleWrite) -> Request {
        Request::Module { write, answer: oneshot::channel().0 }
    }

    fn piece() -> ModuleWrite {
        ModuleWrite::Piece { handler: handler(), digest: Digest::of(b""), index: 0, bytes: Bytes::from(vec![0; LARGE]) }
    }

    #[test]
    fn what_only_brings_something_new_gives_way_and_commands_and_work_under_way_do_not() {
        assert!(append(vec![message("in", 1)]).is_append());
        assert!(module(piece()).is_append());
        let command = NewMessage::new(reserved::control_topic(&handler()), "");
        assert!(!append(vec![command]).is_append());
        assert!(!module(ModuleWrite::Undo { handler: handler(), digest: Digest::of(b"") }).is_append());
        assert!(!Request::Erase { answer: oneshot::channel().0 }.is_append());
    }

    #[test]
    fn what_takes_long_and_can_wait_has_a_transaction_to_itself() {
        assert!(Request::Erase { answer: oneshot::channel().0 }.stands_alone());
        assert!(Request::Forget { handler: handler(), answer: oneshot::channel().0 }.stands_alone());
        assert!(!append(vec![message("in", 1)]).stands_alone());
    }

    #[test]
    fn a_piece_of_a_module_weighs_what_it_has_bytes() {
        let weight = module(piece()).weight();
        assert!((LARGE..LARGE + 1024).contains(&weight), "{weight}");
        let undo = module(ModuleWrite::Undo { handler: handler(), digest: Digest::of(b"") }).weight();
        assert!((2..LARGE / 10).contains(&undo), "{undo}");
    }

    #[test]
    fn who_is_refused_hears_that_nothing_was_written() {
        let (answer, mut answered) = oneshot::channel();
        Request::Forget { handler: handler(), answer }.refuse(&Failure::Broken("no disk".into()));
        let told = answered.try_recv().unwrap().unwrap_err();
        assert!(!matches!(told, LogError::Unknown { .. }) && told.to_string().contains("no disk"), "{told}");
    }
}
