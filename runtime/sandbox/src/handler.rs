//! A handler whose code is a component: what the shards call.

use super::bindings::GuestPre;
use super::counter_names::CounterNames;
use super::deadline;
use super::host::{Host, Profile, TimeBudget};
use super::idle::{Idle, Warm};
use super::instance::{Ended, Instance};
use super::scheduler::Group;
use super::settings::{Mode, Settings, WARM_RUNS};
use super::{Inner as Sandboxes, Module};
use futures_util::future::BoxFuture;
use rand::RngExt as _;
use sluicebox_core::effects::Effects;
use sluicebox_core::handler::Digest;
use sluicebox_core::invoke::{Call, Failure, Invoke};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::SemaphorePermit;

/// No run is longer, whatever the settings say: far beyond any use, and a time the clock can hold.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// One version of one handler, linked and ready. Cheap to clone.
#[derive(Clone)]
pub struct Handler(Arc<Version>);

struct Version {
    sandboxes: Arc<Sandboxes>,
    component: GuestPre<Host>,
    profile: Arc<Profile>,
    idle: Idle,
    /// Permits one sandbox takes.
    weight: u32,
    module: Module,
}

impl Handler {
    pub(super) fn new(
        sandboxes: Arc<Sandboxes>,
        module: &Module,
        component: GuestPre<Host>,
        settings: Settings,
    ) -> Self {
        let weight = module.memories();
        let group = Group::new(sandboxes.scheduler.clone(), settings.handler.clone());
        let profile =
            Arc::new(Profile { settings, sink: sandboxes.sink.clone(), group, counter_names: CounterNames::default() });
        let idle = Idle::new(sandboxes.idle.clone(), weight);
        Self(Arc::new(Version { sandboxes, component, profile, idle, weight, module: module.clone() }))
    }

    /// Makes one sandbox and drops it: the last step before a version is put in force. Needs a tokio runtime.
    pub async fn try_out(&self) -> Result<(), Failure> {
        self.0.by_deadline(|version, budget| async move { version.start(budget).await.map(drop) }).await
    }
}

impl Invoke for Handler {
    /// Needs a tokio runtime with a timer. A guest that neither waits nor computes for a tick completes at the first
    /// poll if a sandbox is free.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let version = self.0.clone();
        Box::pin(async move { version.by_deadline(|version, budget| version.run(call, budget)).await })
    }

    fn uses_state(&self) -> bool {
        self.0.module.uses_state()
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.0.module.digest())
    }
}

impl Version {
    /// Does something with a sandbox, once there is room for one, within the handler's time limit.
    async fn by_deadline<'v, T, F>(&'v self, work: impl FnOnce(&'v Self, TimeBudget) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>> + 'v,
    {
        let limit = self.profile.settings.timeout;
        // The wait for a sandbox is not the guest's: it neither uses up its time nor fails it. It ends, since whoever has
        // one is bound by a deadline. So is the wait for a turn where the handler's own runs crowd.
        let _permit = self.permit().await?;
        let turn = self.profile.group.turn().await;
        let started = turn.began();
        let deadline = started.checked_add(limit).unwrap_or(started + TIMEOUT_MAX);
        self.sandboxes.ticker.wake_if_asleep();
        self.module.runs();
        let work = pin!(work(self, TimeBudget { deadline, account: turn.account() }));
        let work = pin!(turn.run(work));
        deadline::by(deadline, work).await.unwrap_or(Err(Failure::Timeout { limit }))
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let permits = &self.sandboxes.permits;
        if let Ok(permit) = permits.try_acquire_many(self.weight) {
            return Ok(permit);
        }
        let permit = permits.acquire_many(self.weight).await;
        permit.map_err(|_| Failure::Host { reason: "the host is stopping".into() })
    }

    async fn start(&self, budget: TimeBudget) -> Result<Instance, Failure> {
        Instance::start(&self.component, &self.profile, budget).await
    }

    async fn run(&self, call: Call, budget: TimeBudget) -> Result<Effects, Failure> {
        match self.profile.settings.mode {
            Mode::Fresh => match self.start(budget.clone()).await?.run(call, budget).await {
                Ended::Returned(result) => result,
                Ended::Broken(failure) => Err(failure),
            },
            Mode::Warm => self.run_warm(call, budget).await,
        }
    }

    async fn run_warm(&self, call: Call, budget: TimeBudget) -> Result<Effects, Failure> {
        let mut warm = match self.idle.take() {
            Some(warm) => warm,
            None => Warm::new(self.start(budget.clone()).await?, runs()),
        };
        let ended = warm.run(call, budget).await;
        match ended {
            Ended::Returned(result) => {
                warm.runs_left -= 1;
                let watermark_bytes = self.profile.settings.memory_bytes / 2;
                if warm.runs_left > 0 && warm.instance.memory_bytes() as u64 <= watermark_bytes {
                    self.idle.keep(warm);
                }
                result
            }
            Ended::Broken(failure) => Err(failure),
        }
    }
}

/// How many messages a new warm sandbox handles.
fn runs() -> u32 {
    let spread = WARM_RUNS / 5;
    rand::rng().random_range(WARM_RUNS - spread..=WARM_RUNS + spread)
}
