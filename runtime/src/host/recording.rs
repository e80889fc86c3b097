//! Records the routings of the handlers, and is certain of what the log says before anything runs by it.

use super::{Handler, Host, StartError};
use crate::chance;
use crate::config::Start;
use crate::handler::HandlerName;
use crate::log::LogError;
use crate::message::Offset;
use crate::routing::Routing;
use crate::routing::reconcile::{Wanted, reconcile};
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
        self.wanted_routings(handlers).await.map(drop)
    }

    /// Brings the routings in the log in line with the handlers and returns them.
    ///
    /// [`LogError::Unknown`]: something was perhaps recorded. After any other error the log says what it said before.
    pub(super) async fn record_routings(
        &self,
        handlers: &[Handler],
    ) -> Result<HashMap<HandlerName, Arc<Routing>>, StartError> {
        // From the first answer that leaves it open until the log has said what is recorded: a shard that goes on under
        // the old routing meanwhile passes over messages which the log says are its own.
        let mut doubt = None;
        let mut pause = PAUSE_MIN;
        for _ in 0..TRIES {
            let error = match self.try_to_record(handlers).await {
                Ok(routings) => return Ok(by_handler(routings)),
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

    /// Asks what is recorded and records what is wanted. With `Ok` it is certain that this is what the log says: it was
    /// written over what was there, or it was there. So a write of unknown fate that arrives late is refused.
    async fn try_to_record(&self, handlers: &[Handler]) -> Result<Vec<Routing>, StartError> {
        let (version, changed, routings) = self.wanted_routings(handlers).await?;
        if changed {
            self.works.log.put_routings(version, routings.clone()).await?;
        }
        Ok(routings)
    }

    /// The version of the recorded routings, whether anything of them changes, and what they are to be.
    async fn wanted_routings(&self, handlers: &[Handler]) -> Result<(u64, bool, Vec<Routing>), StartError> {
        let log = &self.works.log;
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
        Ok((recorded.version, routings != recorded.routings, routings))
    }
}

fn by_handler(routings: Vec<Routing>) -> HashMap<HandlerName, Arc<Routing>> {
    routings.into_iter().map(|routing| (routing.handler.clone(), Arc::new(routing))).collect()
}
