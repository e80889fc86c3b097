//! The reader: fans the log out to the shards of this host.
//!
//! One *dispatcher* consumes the tail and hands each message, routed once per subscribed handler, to the inbox of its
//! shard. It never waits: a shard whose inbox is full drops off the tail and stays where it is until its handler's
//! *catch-up* task has brought it back from the log. So a slow shard costs no memory beyond its inbox, and delays neither
//! the other shards of its handler nor another handler.
//!
//! Guaranteed: a shard gets every message of its handler that belongs to it, once per join and in offset order, whatever
//! drops off, lags, fails to be read or is rerouted meanwhile. Left to others: what is durable (a shard joins after its
//! record's `read`), and who owns a shard.

mod batch;
mod catch_up;
mod cursor;
mod dispatcher;
mod inbox;
mod positions;
mod recent;
mod sorter;
mod subscribers;
mod subscription;
#[cfg(test)]
mod tests;

pub use self::inbox::{Delivery, Inbox};

use self::positions::Positions;
use crate::clock::Timestamp;
use crate::handler::{HandlerName, ShardId};
use crate::log::{Log, LogError};
use crate::memory::Budget;
use crate::message::Offset;
use crate::routing::Routing;
use crate::vital::Vital;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// The bounds of a reader. A bound of 0 means 1.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most messages in one shard's inbox.
    pub inbox_messages_max: usize,
    /// Most bytes in one shard's inbox; a single larger message is taken by an empty one.
    pub inbox_bytes_max: usize,
    /// What all inboxes, and the shards, may hold together.
    pub waiting: Arc<Budget>,
    /// Most messages in one read from the log. Not more than half an inbox, so that a chunk fits where there is room.
    pub chunk_messages_max: usize,
    /// Most bytes in one read from the log, but for its last message.
    pub chunk_bytes_max: usize,
    /// Most reads from the log at a time, over all handlers.
    pub reads_max: usize,
    /// Most messages of the tail that are kept for shards that dropped off a moment ago.
    pub recent_messages_max: usize,
    /// Most bytes of these messages; the newest batch is kept whatever its size.
    pub recent_bytes_max: usize,
    /// After about so many messages that were for others, a shard is told how far it is.
    pub foreign_messages_max: usize,
    /// Most topics whose subscribers are remembered.
    pub topics_max: usize,
    /// Upper bound of the first wait after a failed read; doubles with each failure.
    pub retry_min: Duration,
    /// No wait after a failed read is longer.
    pub retry_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            inbox_messages_max: 8192,
            inbox_bytes_max: 4 * 1024 * 1024,
            waiting: Budget::new(Budget::BYTES_DEFAULT),
            chunk_messages_max: 4096,
            chunk_bytes_max: 2 * 1024 * 1024,
            reads_max: 4,
            recent_messages_max: 4096,
            recent_bytes_max: 8 * 1024 * 1024,
            foreign_messages_max: 100_000,
            topics_max: 16 * 1024,
            retry_min: Duration::from_millis(50),
            retry_max: Duration::from_secs(5),
        }
    }
}

/// A handle of the reader; cheap to clone. When the last one is dropped the reader stops.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<State>,
    tasks: TaskTracker,
    _stop_on_drop: Arc<DropGuard>,
}

/// What the tasks, the handles and the inboxes share.
struct State {
    log: Arc<dyn Log>,
    options: Options,
    positions: Mutex<Positions>,
    reads: Semaphore,
    stop: CancellationToken,
    vital: Vital,
}

impl State {
    /// Never held across a read, a routed batch or an `await`.
    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().expect("nothing panics while it holds the positions")
    }
}

impl Reader {
    /// Opens the tail and starts the dispatcher.
    pub async fn start(log: Arc<dyn Log>, options: Options) -> Result<Self, LogError> {
        let tail = log.tail().await?;
        let stop = CancellationToken::new();
        let shared = Arc::new(State {
            positions: Mutex::new(Positions::new(tail.start(), options.clone())),
            reads: Semaphore::new(options.reads_max.max(1)),
            stop: stop.clone(),
            vital: Vital::default(),
            log,
            options,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(shared.vital.guard("the dispatcher", dispatcher::run(shared.clone(), tail)));
        Ok(Self { shared, tasks, _stop_on_drop: Arc::new(stop.drop_guard()) })
    }

    /// Takes up a handler, or replaces its routing; its joined shards go on where they are.
    ///
    /// A new routing counts for what is delivered from now on. So that no message is missed or routed in two ways, a
    /// span that begins below a shard's position needs the shard to join again after the span's beginning.
    /// A shard beyond the new number of shards leaves.
    pub fn route(&self, routing: Arc<Routing>) {
        let (wake, handler) = (Arc::new(Notify::new()), routing.handler.clone());
        if let Some(slot) = self.shared.positions().route(routing, &wake) {
            let name = format!("the catch-up of a handler ({handler})");
            self.tasks.spawn(self.shared.vital.guard(name, catch_up::run(self.shared.clone(), slot, wake)));
        }
    }

    /// What all inboxes, and the shards, may hold together.
    pub fn waiting(&self) -> Arc<Budget> {
        self.shared.options.waiting.clone()
    }

    /// Forgets a handler: its shards leave and its messages are no longer routed.
    pub fn unroute(&self, handler: &HandlerName) {
        self.shared.positions().unroute(handler);
    }

    /// (Re)starts delivery to a shard: every message of its handler that belongs to it with a greater offset than
    /// `after`, in order, each once. An earlier inbox of the same shard ends at once.
    ///
    /// The inbox of a shard that has no routing, or after a stop, has ended.
    pub fn join(&self, shard: &ShardId, after: Offset) -> Inbox {
        let queue = self.shared.positions().join(shard, after);
        Inbox::new(queue, shard.clone(), self.shared.clone())
    }

    /// Ends delivery to a shard: its inbox ends after what is in it and the position it reached.
    pub fn leave(&self, shard: &ShardId) {
        self.shared.positions().leave(shard);
    }

    /// Delivers the position a shard reached, if that is news to it, without waiting for its next message.
    pub fn tell(&self, shard: &ShardId) {
        self.shared.positions().tell(shard);
    }

    /// Up to where everything for the shard was delivered and taken out of its inbox; `None` while something is in it.
    /// What a record says of a shard that had nothing to do is older.
    pub fn passed(&self, shard: &ShardId) -> Option<Offset> {
        self.shared.positions().passed(shard)
    }

    /// As [`Reader::passed`] of a shard that is on the tail, with the time of the last message there; `None` while that is
    /// not known.
    pub fn passed_at(&self, shard: &ShardId) -> Option<(Offset, Timestamp)> {
        self.shared.positions().passed_at(shard)
    }

    /// Ends when one of its tasks panicked or the tail ended, with the reason: from then on messages may not be delivered.
    pub async fn failed(&self) -> String {
        self.shared.vital.failed().await
    }

    /// Ends all tasks, and all inboxes after what is in them and the positions reached.
    pub async fn stop(self) {
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
