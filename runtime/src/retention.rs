//! Lets go of old messages: a task of the host that trims the log in small steps, as the settings say, while everything
//! else goes on.
//!
//! What a running handler has not settled stays, whatever its age; the task says which shard keeps it. It does not decide
//! what is needed: the log does, from what the shards made durable. A shard that hears nothing seldom writes how far it
//! is; when it is in the way it is asked to, or a log that is full would wait for messages that it does not take.

use crate::clock;
use crate::config::Retain;
use crate::handler::{HandlerName, ShardId};
use crate::log::{Log, LogError, Trim, Trimmed};
use crate::telemetry::{Metrics, RetentionMetrics, events};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Between two looks when nothing went. Ages are counted in days; under a bound of bytes this is how long a flood may
/// last before room is made for it.
const IDLE: Duration = Duration::from_secs(1);
/// Between two looks when something went: a bound of bytes is not reached in between.
const BUSY: Duration = Duration::from_millis(100);
/// Most messages deleted in a step: commits wait for a few milliseconds.
const MESSAGES_PER_STEP: usize = 4096;

/// What became of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Bytes it takes; 0 where the kind cannot say, and before the first look.
    pub bytes: u64,
    /// Messages deleted since the start.
    pub deleted: u64,
    /// The shard that keeps messages which should go.
    pub held_by: Option<ShardId>,
}

/// The task that trims; it ends by `stop`, and a step that was begun is completed.
pub struct Retention {
    task: JoinHandle<()>,
    retained: watch::Receiver<Retained>,
}

impl Retention {
    /// `holders` are the handlers whose shards run or are about to. `hurry` makes the shards of the handler of one write
    /// down how far they are, and returns at once.
    pub fn start(
        log: Arc<dyn Log>,
        retain: Retain,
        holders: watch::Receiver<Vec<HandlerName>>,
        metrics: &Metrics,
        hurry: impl Fn(&ShardId) + Send + 'static,
        stop: CancellationToken,
    ) -> Self {
        let (tell, retained) = watch::channel(Retained::default());
        let hurry = Box::new(hurry);
        let trimmer = Trimmer { log, retain, holders, metrics: metrics.retention(), hurry, tell, failing: false };
        Self { task: tokio::spawn(trimmer.run(stop)), retained }
    }

    /// What became of the log, as it changes.
    pub fn retained(&self) -> watch::Receiver<Retained> {
        self.retained.clone()
    }

    /// Waits for the end after a stop.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that trims the log ended badly");
        }
    }
}

struct Trimmer {
    log: Arc<dyn Log>,
    retain: Retain,
    holders: watch::Receiver<Vec<HandlerName>>,
    metrics: RetentionMetrics,
    hurry: Box<dyn Fn(&ShardId) + Send>,
    tell: watch::Sender<Retained>,
    /// The last step failed, which was said.
    failing: bool,
}

impl Trimmer {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let went = self.look(&stop).await;
            tokio::select! {
                // Safe to cancel: it only waits.
                () = stop.cancelled() => return,
                // Safe to cancel: as above.
                () = tokio::time::sleep(if went { BUSY } else { IDLE }) => {}
            }
        }
    }

    /// Steps until nothing more can go; true if that may change soon.
    async fn look(&mut self, stop: &CancellationToken) -> bool {
        let mut went = false;
        while !stop.is_cancelled() {
            match self.log.trim(self.trim()).await {
                Ok(trimmed) => {
                    self.failing = false;
                    went |= trimmed.deleted > 0;
                    let more = trimmed.more;
                    if let Some(shard) = trimmed.held_by.as_ref().filter(|_| !more) {
                        (self.hurry)(shard);
                        // The next one in the way is known when this one is out of it.
                        went |= Some(shard) != self.tell.borrow().held_by.as_ref();
                    }
                    self.note(trimmed);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    self.note_failure(&error);
                    break;
                }
            }
        }
        went
    }

    /// What goes now. Each step asks anew: ages and holders move on meanwhile.
    fn trim(&self) -> Trim {
        Trim {
            older_than: self.retain.age.map(|age| clock::steady().before(age)),
            // Appends are refused at the bound itself, so some room is made before.
            bytes_max: self.retain.bytes_max.map(|bytes| bytes / 10 * 9),
            holders: self.holders.borrow().clone(),
            messages_max: MESSAGES_PER_STEP,
        }
    }

    fn note(&self, trimmed: Trimmed) {
        let Trimmed { deleted, bytes, held_by, .. } = trimmed;
        self.metrics.trimmed(bytes, deleted);
        // A step that was cut short does not know who stands in the way of the next one.
        let is_held_known = !trimmed.more;
        self.tell.send_if_modified(|retained| {
            let before = retained.clone();
            retained.bytes = bytes;
            retained.deleted += deleted;
            if is_held_known && held_by != retained.held_by {
                events::retention_held(&self.metrics, held_by.as_ref());
                retained.held_by = held_by;
            }
            *retained != before
        });
    }

    fn note_failure(&mut self, error: &LogError) {
        if !self.failing {
            tracing::warn!(%error, "failed to delete old messages: trying again");
        }
        self.failing = true;
    }
}
