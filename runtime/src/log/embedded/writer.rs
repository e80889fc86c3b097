//! The one thread that writes: it takes everything that waits into one transaction, so that one fsync serves them all.

use super::checkpoint::{self, Checkpoints};
use super::crash::CrashPoint;
use super::failure::Failure;
use super::lock::Lock;
use super::requests::{Reply, Request};
use super::shared::Shared;
use super::tables::{Tables, Unwritten};
use crate::clock::Timestamp;
use crate::log::{Batch, LogError};
use rusqlite::Connection;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the writer. Whoever comes later waits to send.
const QUEUE_MAX: usize = 1024;
/// A transaction takes no further request at this weight, which bounds how long it takes and what a tail gets at once.
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
pub(super) struct Parts {
    pub(super) connection: Connection,
    /// For the checkpointer.
    pub(super) second_connection: Connection,
    pub(super) shared: Arc<Shared>,
    /// Let go of when the thread has closed the database.
    pub(super) lock: Lock,
    pub(super) clock: fn() -> Timestamp,
    /// Appends are refused when the database has this many pages.
    pub(super) pages_max: Option<u64>,
}

impl Writer {
    pub(super) fn start(parts: Parts) -> Result<Self, LogError> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new().name("log writer".into()).spawn(move || run(parts, queue));
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

fn run(parts: Parts, mut queue: mpsc::Receiver<Request>) {
    let shared = parts.shared.clone();
    let _stop_on_panic = StopOnPanic(&shared);
    match write(parts, &mut queue) {
        Ok(()) => shared.live.close(),
        Err(failure) => {
            shared.stop(failure.to_string());
            let stopped = shared.check().err().unwrap_or(failure);
            queue.close();
            while let Some(request) = queue.blocking_recv() {
                request.refuse(&stopped);
            }
        }
    }
}

/// A panic of the writer must not leave tails and callers waiting.
struct StopOnPanic<'s>(&'s Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("its writer panicked".into());
        }
    }
}

/// Serves the queue until it is closed, or until the log must stop.
fn write(parts: Parts, queue: &mut mpsc::Receiver<Request>) -> Result<(), Failure> {
    // Dropped in reverse order: the lock is the last to go.
    let Parts { lock: _lock, mut connection, second_connection, shared, clock, pages_max } = parts;
    connection.busy_timeout(BUSY)?;
    let mut checkpoints = Checkpoints::start(&mut connection, second_connection, shared.clone())?;
    let mut tables = Tables::open(&connection, pages_max)?;
    let mut crash = CrashPoint::from_environment();
    // What came while a group was put together and has a transaction to itself.
    let mut next = None;
    while let Some(first) = next.take().or_else(|| queue.blocking_recv()) {
        let group;
        (group, next) = waiting(first, queue);
        if let Err(stopped) = shared.check() {
            group.into_iter().chain(next).for_each(|request| request.refuse(&stopped));
            return Err(stopped);
        }
        let (replies, written) = write_group(&mut tables, group, clock(), &mut crash);
        let stop = match written {
            Ok(batch) => {
                crash.reach("after-commit");
                // Before the answers: whoever was answered finds the messages at the end of the log.
                shared.live.announce(batch);
                replies.into_iter().for_each(|reply| reply(Ok(())));
                checkpoints.after_commit(&connection)
            }
            Err(unwritten) => {
                let undone = tables.undo();
                replies.into_iter().for_each(|reply| reply(Err(&unwritten)));
                match unwritten {
                    Unwritten::Nothing(Failure::Full(_)) => undone,
                    Unwritten::Nothing(failure) | Unwritten::Unknown(failure) => Err(failure),
                }
            }
        };
        if let Err(failure) = stop {
            let stopped = Failure::Broken(format!("it stopped: {failure}"));
            next.into_iter().for_each(|request: Request| request.refuse(&stopped));
            return Err(failure);
        }
    }
    drop(tables);
    drop(checkpoints);
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
        if next.stands_alone() {
            return (group, Some(next));
        }
        weight += next.weight();
        group.push(next);
    }
    (group, None)
}

fn write_group(
    tables: &mut Tables<'_>,
    group: Vec<Request>,
    now: Timestamp,
    crash: &mut CrashPoint,
) -> (Vec<Reply>, Result<Batch, Unwritten>) {
    let mut replies = Vec::with_capacity(group.len());
    let mut failed = tables.begin(now).err();
    for request in group {
        match &failed {
            None => {
                let (reply, written) = request.write(tables);
                replies.push(reply);
                failed = written.err();
            }
            Some(failure) => request.refuse(failure),
        }
    }
    if let Some(failure) = failed {
        return (replies, Err(Unwritten::Nothing(failure)));
    }
    crash.reach("before-commit");
    (replies, tables.finish())
}
