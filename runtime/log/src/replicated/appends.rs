//! Appends: those that come while others are under way wait for these, and then go together, as one entry.
//!
//! What an entry costs the engine, and each host that reads it, depends little on how much is in it. So with many publishers
//! that send a message each, entries grow until all keep up. There is no timer: whoever comes alone goes at once, and
//! nobody waits for more than the entries that were on their way before him.

use super::engine::{Engine, Subject};
use super::entry::Entry;
use super::replica::Outcome;
use super::shared::Shared;
use crate::error::LogError;
use crate::frame::Frame;
use crate::limits::check_messages;
use sluicebox_core::message::{NewMessage, Offset};
use sluicebox_core::routing::reserved;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Messages in one entry of an append; more make readers slower than they make the writer faster.
const APPENDED_MAX: usize = 1000;
/// Entries on their way at a time before others wait for them: while one is written the next is on its way.
const UNDER_WAY: usize = 2;
/// Appends that wait; beyond them each goes alone, as those do that nearly fill an entry by themselves.
const WAITING_MAX: usize = 4096;
const ALONE_MESSAGES: usize = APPENDED_MAX / 4;
/// What a message takes in an entry beside its texts and its body, at most.
pub(super) const AROUND_BYTES: usize = 64;

pub(super) struct Appends<E> {
    shared: Arc<Shared<E>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    under_way: usize,
    waiting: VecDeque<Waiting>,
    /// Entries of several appends. They end with the log.
    joined: JoinSet<()>,
}

struct Waiting {
    messages: Vec<NewMessage>,
    bytes: usize,
    answer: oneshot::Sender<Result<Vec<Offset>, LogError>>,
}

/// What an append does next.
enum Next<E: Engine> {
    Go(Vec<NewMessage>, Option<Turn<E>>),
    Wait(oneshot::Receiver<Result<Vec<Offset>, LogError>>),
}

impl<E: Engine> Appends<E> {
    pub(super) fn new(shared: Arc<Shared<E>>) -> Arc<Self> {
        Arc::new(Self { shared, state: Mutex::default() })
    }

    pub(super) async fn append(self: &Arc<Self>, messages: Vec<NewMessage>) -> Result<Vec<Offset>, LogError> {
        check_messages(&messages)?;
        self.shared.engine.reachable()?;
        let bytes = messages.iter().map(bytes_in_entry).sum();
        // Commands pass where messages find no room any more, so they do not wait for any, nor share an entry with them.
        if reserved::are_commands(&messages) {
            return write(&self.shared, messages).await;
        }
        if messages.len() >= ALONE_MESSAGES || bytes >= self.shared.engine.payload_bytes_max() / 4 {
            return write(&self.shared, messages).await;
        }
        match self.take_turn(messages, bytes) {
            // Also when whoever asked goes away, others go on.
            Next::Go(messages, _turn) => write(&self.shared, messages).await,
            Next::Wait(answer) => answer.await.unwrap_or_else(|_| {
                Err(LogError::Unknown { reason: "whoever wrote it along with others ended".into() })
            }),
        }
    }

    fn take_turn(self: &Arc<Self>, messages: Vec<NewMessage>, bytes: usize) -> Next<E> {
        let mut state = self.state();
        if state.under_way < UNDER_WAY {
            state.under_way += 1;
            return Next::Go(messages, Some(Turn(Arc::downgrade(self))));
        }
        if state.waiting.len() >= WAITING_MAX {
            return Next::Go(messages, None);
        }
        let (answer, answered) = oneshot::channel();
        state.waiting.push_back(Waiting { messages, bytes, answer });
        Next::Wait(answered)
    }

    /// An entry was written, so those that wait may go, as many as fit one.
    fn go_on(self: &Arc<Self>) {
        let mut state = self.state();
        let joined = state.take_joined(self.shared.engine.payload_bytes_max());
        match Handle::try_current() {
            Ok(runtime) if !joined.is_empty() => {
                while state.joined.try_join_next().is_some() {}
                let (shared, appends) = (self.shared.clone(), Arc::downgrade(self));
                let write = async move {
                    // Here, so that a runtime that ends and drops this at once does not come back for the lock that is held.
                    let _turn = Turn(appends);
                    write_joined(&shared, joined).await;
                };
                state.joined.spawn_on(write, &runtime);
            }
            _ => state.under_way -= 1,
        }
    }
}

impl<E> Appends<E> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Those that fit one entry together, in their order; at least one.
    fn take_joined(&mut self, bytes_max: usize) -> Vec<Waiting> {
        let (mut joined, mut messages, mut bytes) = (vec![], 0, 0);
        while let Some(next) = self.waiting.pop_front() {
            // Nobody asks for it any more, and nobody was told that it is on its way.
            if next.answer.is_closed() {
                continue;
            }
            messages += next.messages.len();
            bytes += next.bytes;
            if !joined.is_empty() && (messages > APPENDED_MAX || bytes > bytes_max) {
                self.waiting.push_front(next);
                break;
            }
            joined.push(next);
        }
        joined
    }
}

/// An entry under way: when it ends, however it ends, the next may go.
struct Turn<E: Engine>(Weak<Appends<E>>);

impl<E: Engine> Drop for Turn<E> {
    fn drop(&mut self) {
        if let Some(appends) = self.0.upgrade() {
            appends.go_on();
        }
    }
}

async fn write_joined<E: Engine>(shared: &Shared<E>, joined: Vec<Waiting>) {
    let all = joined.iter().flat_map(|waiting| waiting.messages.iter().cloned()).collect();
    match write(shared, all).await {
        Ok(offsets) => {
            let mut offsets = offsets.into_iter();
            for Waiting { messages, answer, .. } in joined {
                // Whoever asked may be gone, here and below.
                drop(answer.send(Ok(offsets.by_ref().take(messages.len()).collect())));
            }
        }
        // Nothing was written, and a smaller one may have room.
        Err(LogError::Full { .. }) if joined.len() > 1 => {
            for Waiting { messages, answer, .. } in joined {
                drop(answer.send(write(shared, messages).await));
            }
        }
        Err(error) => joined.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(error.clone())))),
    }
}

/// In as many entries as it takes.
async fn write<E: Engine>(shared: &Shared<E>, messages: Vec<NewMessage>) -> Result<Vec<Offset>, LogError> {
    let bytes_max = shared.engine.payload_bytes_max();
    let mut offsets = Vec::with_capacity(messages.len());
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let (mut frame, mut bytes) = (vec![], 0);
        while let Some(next) = messages.next_if(|next| {
            bytes += bytes_in_entry(next);
            frame.is_empty() || (frame.len() < APPENDED_MAX && bytes <= bytes_max)
        }) {
            frame.push(next);
        }
        let entry = Entry::Frame(Frame::Messages(frame));
        let written = shared.write(Subject::Messages, entry, None).await;
        match written.map_err(LogError::from) {
            Ok(Outcome::Appended(appended)) => offsets.extend(appended),
            Ok(_) => return Err(LogError::Unknown { reason: "another entry came back".into() }),
            // Those before it are in the log.
            Err(error) if !offsets.is_empty() => {
                return Err(LogError::Unknown { reason: format!("part of the list was appended, then {error}") });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(offsets)
}

fn bytes_in_entry(message: &NewMessage) -> usize {
    let NewMessage { topic, key, id, headers, body, .. } = message;
    let texts = topic.as_str().len()
        + key.as_ref().map_or(0, |key| key.as_str().len())
        + id.as_ref().map_or(0, |id| id.len())
        + headers.bytes();
    // A header has two lengths of at most three bytes.
    AROUND_BYTES + texts + headers.iter().count() * 6 + body.len()
}
