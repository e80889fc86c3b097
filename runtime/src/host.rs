//! Puts the parts together: log, reader, committer and the shards of every handler; and takes them apart again.

use crate::committer::Committer;
use crate::config::Start;
use crate::handler::{HandlerName, Policy, ShardId};
use crate::invoke::Invoke;
use crate::log::{Log, LogError};
use crate::message::Offset;
use crate::reader::{self, Reader};
use crate::routing::reconcile::{Fixed, Wanted, reconcile};
use crate::routing::{IdFrom, KeyFrom, Routing};
use crate::shard::actor;
use crate::telemetry::Metrics;
use crate::topic::Pattern;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tries to record a routing that someone else changed meanwhile.
const ROUTING_TRIES: usize = 5;

/// A handler ready to run.
#[derive(Clone)]
pub struct Handler {
    pub name: HandlerName,
    pub subscribe: Vec<Pattern>,
    pub key: KeyFrom,
    pub id: IdFrom,
    pub shards: u16,
    pub start: Start,
    pub policy: Policy,
    pub invoke: Arc<dyn Invoke>,
}

/// Why the host does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Routing(Vec<Fixed>),
}

/// The places for runs of one handler, shared by its shards.
#[derive(Clone)]
pub struct Places {
    permits: Arc<Semaphore>,
    all: usize,
}

impl Places {
    fn new(all: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(all)), all }
    }

    /// Runs at a time.
    pub fn all(&self) -> usize {
        self.all
    }

    /// Runs under way.
    pub fn taken(&self) -> usize {
        self.all.saturating_sub(self.permits.available_permits())
    }
}

/// The running shards of one host.
pub struct Host {
    places: HashMap<HandlerName, Places>,
    stop: CancellationToken,
    shards: TaskTracker,
    reader: Reader,
}

impl Host {
    /// Records the routings, claims every shard and starts working.
    pub async fn start(
        log: Arc<dyn Log>,
        handlers: Vec<Handler>,
        metrics: &Metrics,
        options: reader::Options,
    ) -> Result<Self, StartError> {
        let routings = record_routings(&log, &handlers).await?;
        let reader = Reader::start(log.clone(), options).await?;
        let committer = Committer::start(log.clone());
        let (stop, shards) = (CancellationToken::new(), TaskTracker::new());
        let mut all_places = HashMap::with_capacity(handlers.len());
        for handler in handlers {
            let Some(routing) = routings.get(&handler.name).cloned() else { continue };
            reader.route(routing.clone());
            let policy = Arc::new(handler.policy);
            let places = Places::new(policy.concurrency);
            for index in 0..routing.shards {
                shards.spawn(actor::run(actor::Parts {
                    id: ShardId { handler: handler.name.clone(), index },
                    routing: routing.clone(),
                    policy: policy.clone(),
                    log: log.clone(),
                    reader: reader.clone(),
                    committer: committer.clone(),
                    invoke: handler.invoke.clone(),
                    permits: places.permits.clone(),
                    metrics: metrics.handler(&handler.name),
                    commit_metrics: metrics.commits(),
                    stop: stop.clone(),
                }));
            }
            all_places.insert(handler.name, places);
        }
        shards.close();
        Ok(Self { places: all_places, stop, shards, reader })
    }

    /// Shows how far the shards are, also those that had nothing to write.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The places of every handler that was started.
    pub fn places(&self) -> &HashMap<HandlerName, Places> {
        &self.places
    }

    /// Takes nothing new, lets runs finish, commits and leaves.
    pub async fn stop(self) {
        self.stop.cancel();
        self.shards.wait().await;
        self.reader.stop().await;
    }
}

/// Brings the routings in the log in line with the handlers and returns them.
async fn record_routings(
    log: &Arc<dyn Log>,
    handlers: &[Handler],
) -> Result<HashMap<HandlerName, Arc<Routing>>, StartError> {
    for _ in 0..ROUTING_TRIES {
        let recorded = log.routings().await?;
        let now = log.end().await?;
        let mut wanted = Vec::with_capacity(handlers.len());
        for handler in handlers {
            let start = match handler.start {
                Start::Earliest => Offset::START,
                Start::Latest => now,
                Start::At(time) => log.offset_before(time).await?,
            };
            wanted.push(Wanted {
                handler: handler.name.clone(),
                subscribe: handler.subscribe.clone(),
                key: handler.key.clone(),
                id: handler.id.clone(),
                shards: handler.shards,
                start,
            });
        }
        let routings = reconcile(&recorded.routings, &wanted, now).map_err(StartError::Routing)?;
        if routings != recorded.routings {
            match log.put_routings(recorded.version, routings.clone()).await {
                Err(LogError::Conflict) => continue,
                put => put?,
            }
        }
        return Ok(routings.into_iter().map(|routing| (routing.handler.clone(), Arc::new(routing))).collect());
    }
    Err(LogError::Conflict.into())
}
