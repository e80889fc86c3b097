//! The one thread that writes: it takes everything that waits into one transaction, so that one fsync serves them all.

use super::checkpoint::{self, Checkpoints};
use super::crash::CrashPoint;
use super::failure::Failure;
use super::lock::Lock;
use super::log_state::{LogState, StopOnPanic};
use super::requests::{Reply, Request, Written};
use super::room::Room;
use super::tables::{Stamper, Tables, Unwritten};
use crate::contract::Batch;
use crate::error::LogError;
use rusqlite::Connection;
use sluicebox_core::clock::{Timestamp, instant};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the writer. Whoever comes later waits to send.
const QUEUE_MAX: usize = 1024;
/// Most that requests weigh which share a transaction, which bounds how long it takes and what a tail gets at once. One
/// that is heavier has a transaction to itself.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a commit may wait for a reader that keeps the write-ahead log from starting over.
const BUSY: Duration = Duration::from_millis(50);

/// Sends requests to the writer's thread. Dropping it waits until the thread has written what it took and ended.
pub(super) struct Writer {
    /// `None` only while being dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread owns.
pub(super) struct WriterResources {
    pub(super) connection: Connection,
    /// For the checkpointer.
    pub(super) second_connection: Connection,
    pub(super) state: Arc<LogState>,
    /// Let go of when the thread has closed the database.
    pub(super) lock: Lock,
    pub(super) clock: fn() -> Timestamp,
    pub(super) room: Room,
    /// The write-ahead log starts over at about this size.
    pub(super) wal_bytes_max: u64,
    /// How long a transaction waits for another process to let go of the database.
    pub(super) lock_wait: Duration,
}

impl Writer {
    pub(super) fn start(resources: WriterResources) -> Result<Self, LogError> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("log writer".into()).spawn(move || run(resources, queue));
        let thread =
            thread.map_err(|error| LogError::Unavailable { reason: format!("failed to start the writer: {error}") })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Hands a request over and waits for its answer; `Err` when there will be none.
    ///
    /// Dropping the future before the request is handed over takes it back; afterwards it is written all the same.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Unanswered> {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(Unanswered::NotTaken)?;
        requests.send(request(answer)).await.map_err(|_| Unanswered::NotTaken)?;
        answered.await.map_err(|_| Unanswered::Lost)
    }
}

/// Why the writer did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It ended before it took the request.
    NotTaken,
    /// It ended while it had the request: nobody knows what became of it.
    Lost,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }
}

fn run(resources: WriterResources, mut queue: mpsc::Receiver<Request>) {
    let state = resources.state.clone();
    let _stop_on_panic = StopOnPanic { state: &state, thread: "writer" };
    match write(resources, &mut queue) {
        Ok(()) => state.live.close(),
        Err(failure) => {
            let stopped = state.stop_for(failure);
            queue.close();
            while let Some(request) = queue.blocking_recv() {
                request.refuse(&stopped);
            }
        }
    }
}

/// Serves the queue until it is closed, or until the log must stop.
fn write(resources: WriterResources, queue: &mut mpsc::Receiver<Request>) -> Result<(), Failure> {
    // Dropped in reverse order: the lock is the last to go.
    let WriterResources { lock: _lock, mut connection, second_connection, state, clock, room, .. } = resources;
    let WriterResources { wal_bytes_max, lock_wait, .. } = resources;
    connection.busy_timeout(BUSY)?;
    let checkpoints = Checkpoints::start(wal_bytes_max, &mut connection, second_connection, state.clone())?;
    let tables = Tables::open(&connection, room)?;
    let crash = CrashPoint::from_environment();
    let mut transactions =
        Transactions { tables, connection: &connection, checkpoints, state, clock, lock_wait, crash };
    // What came while a group was put together and has a transaction to itself.
    let mut next = None;
    while let Some(first) = next.take().or_else(|| queue.blocking_recv()) {
        let group;
        (group, next) = waiting(first, queue);
        if let Err(failure) = transactions.write(group) {
            let stopped = transactions.state.stop_for(failure);
            next.into_iter().for_each(|request: Request| request.refuse(&stopped));
            return Err(stopped);
        }
    }
    drop(transactions);
    // A short start: nothing is left to recover.
    checkpoint::checkpoint(&connection, "TRUNCATE")?;
    Ok(())
}

/// The request and what waits behind it, up to the weight of one transaction; and the one that comes next if it was
/// taken already.
fn waiting(first: Request, queue: &mut mpsc::Receiver<Request>) -> (Vec<Request>, Option<Request>) {
    let alone = first.stands_alone();
    let mut weight = first.weight();
    let mut group = vec![first];
    while !alone
        && weight < GROUP_BYTES_MAX
        && let Ok(next) = queue.try_recv()
    {
        weight += next.weight();
        if next.stands_alone() || weight > GROUP_BYTES_MAX {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

/// Makes groups of requests durable, one transaction after the other.
struct Transactions<'c> {
    tables: Tables<'c>,
    connection: &'c Connection,
    checkpoints: Checkpoints,
    state: Arc<LogState>,
    clock: fn() -> Timestamp,
    lock_wait: Duration,
    crash: CrashPoint,
}

impl Transactions<'_> {
    /// Writes a group whole; when there is no room for that, in parts, so that whatever fits goes through. Everyone is
    /// answered. On an error the log must stop.
    fn write(&mut self, group: Vec<Request>) -> Result<(), Failure> {
        // At most the halves of halves of a group, and what was split off on the way.
        let mut groups = vec![group];
        while let Some(group) = groups.pop() {
            let written = match self.state.check().map_err(Unwritten::Nothing).and_then(|()| self.attempt(&group)) {
                Ok((stamper, written)) => self.answer(group, stamper, written),
                Err(unwritten) => {
                    let undone = self.tables.undo();
                    let group = match &unwritten {
                        Unwritten::Nothing(Failure::Full(_)) => match split(group) {
                            Ok((first, second)) => {
                                groups.extend([second, first]);
                                vec![]
                            }
                            Err(one) => vec![one],
                        },
                        _ => group,
                    };
                    group.into_iter().for_each(|request| request.fail(&unwritten));
                    match unwritten {
                        Unwritten::Nothing(Failure::Full(_) | Failure::Busy(_)) => undone,
                        Unwritten::Nothing(failure) | Unwritten::Unknown(failure) => Err(failure),
                    }
                }
            };
            if let Err(failure) = written {
                let stopped = self.state.stop_for(failure);
                groups.into_iter().flatten().for_each(|request| request.refuse(&stopped));
                return Err(stopped);
            }
        }
        Ok(())
    }

    /// One transaction.
    fn attempt(&mut self, group: &[Request]) -> Result<(Stamper, Vec<Written>), Unwritten> {
        self.begin().map_err(Unwritten::Nothing)?;
        let written = group.iter().map(|request| request.write(&mut self.tables));
        let written = written.collect::<Result<_, _>>().map_err(Unwritten::Nothing)?;
        self.crash.reach("before-commit");
        let stamper = self.tables.finish()?;
        self.crash.reach("after-commit");
        Ok((stamper, written))
    }

    /// Waits for whoever else holds the database, within a bound.
    fn begin(&mut self) -> Result<(), Failure> {
        let started = instant();
        let mut said = false;
        loop {
            match self.tables.begin((self.clock)()) {
                // Each try has waited for a moment by itself.
                Err(Failure::Busy(reason)) if started.elapsed() < self.lock_wait => {
                    if !said {
                        tracing::warn!(reason, "another process holds the log's database: writes wait for it");
                    }
                    said = true;
                }
                begun => {
                    if said && begun.is_ok() {
                        tracing::info!(waited = ?started.elapsed(), "the log's database is free again");
                    }
                    return begun;
                }
            }
        }
    }

    fn answer(&mut self, group: Vec<Request>, mut stamper: Stamper, written: Vec<Written>) -> Result<(), Failure> {
        let mut messages = vec![];
        let mut arrive = |message| messages.push(Arc::new(stamper.stamp(message)));
        let replies: Vec<Reply> =
            group.into_iter().zip(written).map(|(request, written)| request.done(written, &mut arrive)).collect();
        // Before the answers: whoever was answered finds the messages at the end of the log.
        self.state.live.announce(Batch { messages, upto: stamper.last });
        replies.into_iter().for_each(|reply| reply());
        self.checkpoints.after_commit(self.connection)
    }
}

/// The work under way before what is new; then halves. `Err`: nothing smaller can be made of it.
fn split(mut group: Vec<Request>) -> Result<(Vec<Request>, Vec<Request>), Request> {
    if group.iter().any(Request::is_append) && !group.iter().all(Request::is_append) {
        let (new, under_way) = group.into_iter().partition(Request::is_append);
        return Ok((under_way, new));
    }
    let second = group.split_off(group.len().div_ceil(2));
    match group.pop() {
        Some(one) if group.is_empty() && second.is_empty() => Err(one),
        last => {
            group.extend(last);
            Ok((group, second))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_core::message::NewMessage;
    use sluicebox_core::topic::Topic;

    #[test]
    fn a_group_is_never_heavier_than_its_bound_and_takes_every_request_in_turn() {
        let (requests, mut queue) = mpsc::channel(100);
        let sizes = [5, 2, 0, 3, 9, 9, 0, 1, 7, 1].map(|mebibytes| mebibytes * 1024 * 1024_usize);
        for bytes in sizes {
            let messages = vec![NewMessage::new(Topic::parse("a").unwrap(), vec![0; bytes])];
            requests.try_send(Request::Append { messages, answer: oneshot::channel().0 }).unwrap();
        }
        let (mut next, mut groups) = (None, vec![]);
        while let Some(first) = next.take().or_else(|| queue.try_recv().ok()) {
            let group;
            (group, next) = waiting(first, &mut queue);
            let weight: usize = group.iter().map(Request::weight).sum();
            assert!(weight <= GROUP_BYTES_MAX || group.len() == 1, "{} requests of {weight}", group.len());
            groups.push(group.len());
        }
        assert_eq!(groups, [3, 1, 1, 1, 2, 1, 1]);
    }
    #[test]
    fn what_stands_alone_is_in_no_group() {
        let append = || Request::Append {
            messages: vec![NewMessage::new(Topic::parse("a").unwrap(), "")],
            answer: oneshot::channel().0,
        };
        let erase = || Request::Erase { answer: oneshot::channel().0 };
        let (requests, mut queue) = mpsc::channel(100);
        let order = [append(), append(), erase(), append(), append(), append(), erase(), erase()];
        order.into_iter().for_each(|request| requests.try_send(request).unwrap());
        let (mut next, mut groups) = (None, vec![]);
        while let Some(first) = next.take().or_else(|| queue.try_recv().ok()) {
            let group;
            (group, next) = waiting(first, &mut queue);
            groups.push(group.len());
        }
        assert_eq!(groups, [2, 1, 3, 1, 1]);
    }
}
