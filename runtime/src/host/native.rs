//! The host's own handlers, which no settings name: what publishers delay, what goes out to plain clients, and what such
//! clients sent that no message can be. The one place that knows which there are.
//!
//! They have routings and records in the log and run like handlers of the settings, on the host that owns their shards.

use super::{Handler, Works};
use crate::config::Start;
use crate::delays::Delays;
use crate::egress::Egress;
use crate::handler::{DelayedBound, HandlerName, ShardId};
use crate::ingress::{Intake, Refusing};
use crate::invoke::Invoke;
use crate::log::edges::Sink;
use crate::routing::{IdFrom, KeyFrom, reserved};
use crate::topic::{Pattern, Topic};
use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Parts into which the keys of what goes out are divided.
const EGRESS_SHARDS: u16 = 8;

/// What the host does itself.
#[derive(Default)]
pub struct Natives {
    pub(super) delays: Delays,
    egress: Option<Handler>,
    intake: Option<Arc<Intake>>,
}

impl Natives {
    /// Publishers may delay so much.
    pub fn new(delayed: DelayedBound) -> Self {
        Self { delays: Delays::new(delayed), ..Self::default() }
    }

    /// Messages on these topics go to the sink.
    pub fn with_egress(self, subscribe: Vec<Pattern>, sink: Arc<dyn Sink>) -> Self {
        let invoke = Arc::new(Egress::new(sink));
        let egress = Handler {
            subscribe,
            shards: EGRESS_SHARDS,
            policy: Egress::policy(),
            ..own(HandlerName::egress(), invoke)
        };
        Self { egress: Some(egress), ..self }
    }

    /// What this takes up becomes messages.
    pub fn with_intake(self, intake: Arc<Intake>) -> Self {
        Self { intake: Some(intake), ..self }
    }

    /// Adds those that are to run and are not among `handlers`.
    pub(super) fn join(&self, handlers: &mut Vec<Handler>) {
        let delay = self.delays.is_on().then(|| Handler {
            subscribe: only(reserved::delayed_topic()),
            policy: self.delays.policy(),
            ..own(HandlerName::delay(), self.delays.relay())
        });
        let refusing = self.intake.as_ref().map(|_| Handler {
            subscribe: only(reserved::unfit_topic()),
            policy: Refusing::policy(),
            // There is nothing to tell two of them apart, nor to order them.
            key: KeyFrom::None,
            ..own(HandlerName::ingress(), Arc::new(Refusing))
        });
        for handler in [delay, self.egress.clone(), refusing].into_iter().flatten() {
            if !handlers.iter().any(|other| other.name == handler.name) {
                handlers.push(handler);
            }
        }
    }

    /// What is to be done beside this shard, by whoever owns it, until `stop`.
    pub(super) fn beside(&self, shard: &ShardId, works: &Works, stop: CancellationToken) -> BoxFuture<'static, ()> {
        match &self.intake {
            Some(intake) if shard.handler == HandlerName::ingress() && shard.index == 0 => {
                let (holding, shard) = (works.holding.clone(), shard.clone());
                let intake = intake.clone().run(works.log.clone(), works.committer.clone(), holding.clone(), stop);
                async move {
                    if let Some(loss) = intake.await {
                        holding.lose(&shard, loss);
                    }
                }
                .boxed()
            }
            _ => std::future::ready(()).boxed(),
        }
    }
}

/// One that keeps the order of the log over all keys.
fn own(name: HandlerName, invoke: Arc<dyn Invoke>) -> Handler {
    Handler {
        name,
        subscribe: vec![],
        key: KeyFrom::Message,
        id: IdFrom::Message,
        shards: 1,
        start: Start::Latest,
        policy: crate::handler::Policy::default(),
        invoke,
    }
}

fn only(topic: Topic) -> Vec<Pattern> {
    vec![Pattern::from(&topic)]
}
