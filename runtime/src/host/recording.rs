//! Records the routings of the handlers, and is certain of what the log says before anything runs by it.

use super::{Handler, Host, Owned, StartError};
use crate::chance;
use crate::config::Start;
use crate::handler::{HandlerName, ShardId};
use crate::log::{LogError, Routings};
use crate::message::Offset;
use crate::routing::reconcile::{Wanted, reconcile};
use crate::routing::{Routing, Span};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Tries to record routings while it is not certain what is recorded: about half a minute.
const TRIES: usize = 64;
/// Bounds of the jittered waits between two of them.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Host {
    /// Refuses handlers whose routing the log has otherwise.
    pub(super) async fn check_routings(&self, handlers: &[Handler]) -> Result<(), StartError> {
        self.look(handlers).await.map(drop)
    }

    /// Brings the routings in the log in line with the handlers; returns them, and a version since which the log has them.
    ///
    /// [`LogError::Unknown`]: something was perhaps recorded. After any other error the log says what it said before.
    pub(super) async fn record_routings(
        &self,
        handlers: &[Handler],
        owned: &Owned,
    ) -> Result<(u64, HashMap<HandlerName, Arc<Routing>>), StartError> {
        // From the first answer that leaves it open until the log has said what is recorded: a shard that goes on under
        // the old routing meanwhile passes over messages which the log says are its own.
        let mut doubt = None;
        let mut pause = PAUSE_MIN;
        for _ in 0..TRIES {
            let error = match self.try_to_record(handlers, owned).await {
                Ok(Some((version, routings))) => return Ok((version, by_handler(routings))),
                Ok(None) => {
                    doubt = Some("a change of a subscription was begun and not ended".to_owned());
                    continue;
                }
                Err(error) => error,
            };
            let leaves_it_open = matches!(error, StartError::Log(LogError::Unknown { .. } | LogError::Conflict));
            if doubt.is_none() && !leaves_it_open {
                return Err(error);
            }
            tracing::warn!(%error, "it is not known whether changed handlers were recorded, asking the log");
            let is_refused = matches!(error, StartError::Routing(_));
            doubt = Some(error.to_string());
            if is_refused {
                // Someone else recorded what these handlers cannot be.
                break;
            }
            tokio::time::sleep(pause.mul_f64(chance::fraction())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(LogError::Unknown { reason: doubt.unwrap_or_default() }.into())
    }

    /// Asks what is recorded and records what is wanted. With `Some` it is certain that this is what the log says: it was
    /// written over what was there, or it was there. So a write of unknown fate that arrives late is refused.
    ///
    /// `None`: it is recorded that subscriptions are about to change, and to be done again. Other hosts may work on shards
    /// of these handlers, so that it is not certain how far they are until they are fenced.
    async fn try_to_record(
        &self,
        handlers: &[Handler],
        owned: &Owned,
    ) -> Result<Option<(u64, Vec<Routing>)>, StartError> {
        let log = &self.works.log;
        let Look { version, recorded, mut routings, moving } = self.look(handlers).await?;
        if *owned != Owned::All && !moving.is_empty() {
            let mut begun = routings.clone();
            spans_of(&mut begun, &moving).for_each(|span| span.after = Offset::END);
            let is_begun = |name: &HandlerName| find(&recorded, name) == find(&begun, name);
            if !moving.iter().all(is_begun) {
                log.put_routings(version, begun).await?;
                return Ok(None);
            }
            // From here on whoever claims one of them waits, and what was claimed before cannot commit any more.
            for routing in routings.iter().filter(|routing| moving.contains(&routing.handler)) {
                for index in 0..routing.shards {
                    log.claim(ShardId { handler: routing.handler.clone(), index }, routing.start()).await?;
                }
            }
            let now = log.end().await?;
            spans_of(&mut routings, &moving).for_each(|span| span.after = now);
        }
        if routings != recorded {
            log.put_routings(version, routings.clone()).await?;
        }
        Ok(Some((version, routings)))
    }

    async fn look(&self, handlers: &[Handler]) -> Result<Look, StartError> {
        let log = &self.works.log;
        // Another host may have forgotten a handler a moment ago: then its routing is to be written again.
        log.catch_up().await?;
        let Routings { version, routings: recorded } = log.routings().await?;
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
        // Whatever was begun, these handlers say what is to be.
        let mut settled = recorded.clone();
        let ours = |routing: &&mut Routing| handlers.iter().any(|handler| handler.name == routing.handler);
        settled.iter_mut().filter(ours).filter(|routing| routing.is_changing()).for_each(|routing| {
            routing.spans.pop();
        });
        // What goes on here as it was says nothing about its subscription: another host may have changed it since.
        for wanted in wanted.iter_mut().filter(|wanted| self.read().contains_key(&wanted.handler)) {
            if let Some(newest) = find(&settled, &wanted.handler).and_then(|routing| routing.spans.last()) {
                wanted.subscribe.clone_from(&newest.subscribe);
            }
        }
        let routings = reconcile(&settled, &wanted, now).map_err(StartError::Routing)?;
        let moves = |routing: &&Routing| {
            let before = find(&settled, &routing.handler);
            before.is_some_and(|before| before.spans.len() < routing.spans.len())
        };
        let moving = routings.iter().filter(moves).map(|routing| routing.handler.clone()).collect();
        Ok(Look { version, recorded, routings, moving })
    }
}

/// What is recorded, and what is to be.
struct Look {
    version: u64,
    recorded: Vec<Routing>,
    routings: Vec<Routing>,
    /// The handlers of which the log has another subscription.
    moving: Vec<HandlerName>,
}

fn find<'r>(routings: &'r [Routing], name: &HandlerName) -> Option<&'r Routing> {
    routings.iter().find(|routing| routing.handler == *name)
}

/// The newest subscriptions of these handlers.
fn spans_of<'r>(routings: &'r mut [Routing], of: &'r [HandlerName]) -> impl Iterator<Item = &'r mut Span> {
    routings.iter_mut().filter(|routing| of.contains(&routing.handler)).filter_map(|routing| routing.spans.last_mut())
}

fn by_handler(routings: Vec<Routing>) -> HashMap<HandlerName, Arc<Routing>> {
    routings.into_iter().map(|routing| (routing.handler.clone(), Arc::new(routing))).collect()
}
