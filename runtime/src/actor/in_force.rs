//! The routing of a handler as this host last read it in the log: one for all its shards here.
//!
//! Where several hosts work on the shards of a handler any of them may change its subscription. It says in the log that it
//! is about to, claims every shard, and only then records from where on the change holds. So a shard that asks what is
//! recorded after each claim never passes that place under the old subscription: what it did under an earlier claim is
//! fenced. A shard that has nothing to commit would never notice, so each host looks from time to time.

use crate::chance;
use crate::handler::HandlerName;
use crate::log::{Log, LogError, Routings};
use crate::reader::Reader;
use crate::routing::Routing;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Upper bound of the jittered wait between two looks at what is recorded.
const LOOK_AGAIN: Duration = Duration::from_secs(4);

/// What is recorded of a handler, as far as this host knows.
pub struct InForce {
    handler: HandlerName,
    log: Arc<dyn Log>,
    reader: Reader,
    /// Other hosts may work on shards of the handler.
    is_shared: AtomicBool,
    /// Of the routings in the log: the newest that was read, or one before it. `u64::MAX`: nothing is taken any more.
    version: Mutex<u64>,
    routing: watch::Sender<Arc<Routing>>,
    looks: OnceLock<AbortOnDropHandle<()>>,
}

impl InForce {
    /// From now on the reader delivers by this routing, which the log has had since this version or the next one.
    pub fn new(log: Arc<dyn Log>, reader: Reader, version: u64, routing: Arc<Routing>) -> Arc<Self> {
        reader.route(routing.clone());
        Arc::new(Self {
            handler: routing.handler.clone(),
            log,
            reader,
            is_shared: AtomicBool::new(false),
            version: Mutex::new(version),
            routing: watch::Sender::new(routing),
            looks: OnceLock::new(),
        })
    }

    /// Other hosts work on shards of the handler too, from now on.
    pub fn share(self: &Arc<Self>) {
        self.is_shared.store(true, Ordering::Release);
        let weak = Arc::downgrade(self);
        self.looks.get_or_init(|| {
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LOOK_AGAIN.mul_f64(chance::fraction())).await;
                    let Some(this) = weak.upgrade() else { return };
                    // One that fails is followed by the next.
                    let _ = this.look().await;
                }
            }))
        });
    }

    /// It stays as it is: another one of the handler is about to begin.
    pub fn close(&self) {
        *self.version() = u64::MAX;
    }

    pub fn routing(&self) -> Arc<Routing> {
        self.routing.borrow().clone()
    }

    /// Tells of another routing than the one that is known when this is called.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<Routing>> {
        self.routing.subscribe()
    }

    /// What a shard that was claimed just now has to go by. `None`: a change is under way, nothing may run.
    pub(super) async fn after_claim(&self) -> Result<Option<Arc<Routing>>, LogError> {
        if self.is_shared.load(Ordering::Acquire) { self.look().await } else { Ok(Some(self.routing())) }
    }

    async fn look(&self) -> Result<Option<Arc<Routing>>, LogError> {
        let Routings { version, routings } = self.log.routings().await?;
        let recorded = routings.into_iter().find(|routing| routing.handler == self.handler);
        match recorded {
            Some(recorded) if recorded.is_changing() => Ok(None),
            Some(recorded) => Ok(Some(self.take(version, recorded))),
            // It was forgotten, and its shards cannot commit any more.
            None => Ok(Some(self.routing())),
        }
    }

    /// Takes what was recorded at that version in force, unless something newer is known.
    fn take(&self, version: u64, recorded: Routing) -> Arc<Routing> {
        let mut known = self.version();
        let current = self.routing();
        if version <= *known {
            return current;
        }
        *known = version;
        // Earlier subscriptions only go, when no shard needs them any more.
        if recorded.spans.last() == current.spans.last() {
            return current;
        }
        tracing::info!(handler = %self.handler, "another host changed the subscription, taking it as it is in the log");
        let recorded = Arc::new(recorded);
        // Under the lock: who reads later routes later.
        self.reader.route(recorded.clone());
        self.routing.send_replace(recorded.clone());
        recorded
    }

    fn version(&self) -> MutexGuard<'_, u64> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
