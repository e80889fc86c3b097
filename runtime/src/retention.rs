//! Lets go of old messages: a task of the host that trims the log in small steps, as the settings say, while everything
//! else goes on.
//!
//! What a running handler has not settled stays, whatever its age; the task says which shard keeps it. It does not decide
//! what is needed: the log does, from what the shards made durable. A shard that hears nothing seldom writes how far it
//! is; when it is in the way it is asked to, or a log that is full would wait for messages that it does not take.
//!
//! Where several hosts work on the log each looks, so that its own shards are asked, and one of them deletes.

use crate::clock;
use crate::cluster::Hosts;
use crate::config::Retain;
use crate::handler::{HandlerName, ShardId};
use crate::log::{Held, Log, LogError, Trim, Trimmed, Usage};
use crate::telemetry::{Metrics, RetentionMetrics, events};
use crate::vital::Vital;
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
/// A shard that is in the way for so many looks is said to be.
const HELD_LOOKS: u32 = 3;
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
    pub held: Option<Held>,
    /// Looks in a row that found it in the way, up to as many as make it worth saying.
    held_looks: u32,
    /// How full the log is.
    pub usage: Usage,
}

impl Retained {
    /// The shard that keeps messages which should go.
    pub fn held_by(&self) -> Option<&ShardId> {
        self.held.as_ref().map(|held| &held.shard)
    }

    /// What it keeps them for and what can be done, once it has had the time to write down how far it is: a shard that has
    /// nothing to do writes that when it is asked to, and is in nobody's way.
    pub fn in_the_way(&self) -> Option<&Held> {
        self.held.as_ref().filter(|_| self.held_looks >= HELD_LOOKS)
    }
}

/// The task that trims; it ends by `stop`, and a step that was begun is completed.
pub struct Retention {
    task: JoinHandle<()>,
    vital: Vital,
    retained: watch::Receiver<Retained>,
}

impl Retention {
    /// `holders` are the handlers whose shards run or are about to. `hurry` makes the shards of the handler of one write
    /// down how far they are, and returns at once. `others` knows the hosts that work on the log too.
    pub fn start(
        log: Arc<dyn Log>,
        retain: Retain,
        holders: watch::Receiver<Vec<HandlerName>>,
        metrics: &Metrics,
        hurry: impl Fn(&ShardId) + Send + 'static,
        others: Option<Hosts>,
        stop: CancellationToken,
    ) -> Self {
        let (tell, retained) = watch::channel(Retained::default());
        let hurry = Box::new(hurry);
        let trimmer =
            Trimmer { log, retain, holders, others, metrics: metrics.retention(), hurry, tell, failing: false };
        let vital = Vital::default();
        Self { task: tokio::spawn(vital.guard("retention", trimmer.run(stop))), vital, retained }
    }

    /// What became of the log, as it changes.
    pub fn retained(&self) -> watch::Receiver<Retained> {
        self.retained.clone()
    }

    /// Tells if its task panicked: then nothing is deleted any more.
    pub fn vital(&self) -> Vital {
        self.vital.clone()
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
    others: Option<Hosts>,
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
            self.look_at_room().await;
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
                    if let Some(shard) = trimmed.held_by().filter(|_| !more) {
                        (self.hurry)(shard);
                        // The next one in the way is known when this one is out of it.
                        went |= Some(shard) != self.tell.borrow().held_by();
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

    async fn look_at_room(&mut self) {
        // A log that does not answer says so to whoever wants something of it.
        let Ok(usage) = self.log.usage().await else { return };
        self.metrics.room(&usage);
        self.tell.send_if_modified(|retained| {
            let changed = retained.usage != usage;
            retained.usage = usage;
            changed
        });
    }

    /// What goes now. Each step asks anew: ages and holders move on meanwhile.
    /// The handlers of all hosts, also of one that was heard a while ago: it may come back.
    fn holders(&self) -> Vec<HandlerName> {
        let mut holders = self.holders.borrow().clone();
        for host in self.others.iter().flat_map(Hosts::list) {
            holders.extend(host.beat.runs.iter().map(|runs| runs.handler.clone()));
        }
        holders.sort();
        holders.dedup();
        holders
    }

    fn trim(&self) -> Trim {
        // Twice does no harm: the log takes the first one.
        let deletes = self.others.as_ref().is_none_or(|hosts| hosts.is_chosen_for("retain"));
        Trim {
            older_than: self.retain.age.map(|age| clock::steady().before(age)),
            // Appends are refused at the bound itself, so some room is made before.
            bytes_max: self.retain.bytes_max.map(|bytes| bytes / 10 * 9),
            holders: self.holders(),
            messages_max: if deletes { MESSAGES_PER_STEP } else { 0 },
        }
    }

    fn note(&mut self, trimmed: Trimmed) {
        self.metrics.trimmed(trimmed.bytes, trimmed.deleted);
        self.tell.send_if_modified(|retained| {
            let before = retained.clone();
            retained.bytes = trimmed.bytes;
            retained.deleted += trimmed.deleted;
            // A step that was cut short does not know who stands in the way of the next one.
            if !trimmed.more {
                let same = trimmed.held.is_some() && trimmed.held_by() == retained.held_by();
                retained.held_looks = if same { (retained.held_looks + 1).min(HELD_LOOKS) } else { 0 };
                self.metrics.show_held(trimmed.held_by());
                retained.held = trimmed.held;
                if retained.in_the_way() != before.in_the_way() {
                    events::retention_held(retained.in_the_way().map(ToString::to_string).as_deref());
                }
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
