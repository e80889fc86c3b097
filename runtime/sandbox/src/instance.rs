//! One sandbox: a store with one instance of a component in it.
//!
//! It ends with the first trap, timeout or dropped future: wasmtime leaves the guest in the middle of what it did, so
//! nothing may enter it again.

use super::bindings::sluicebox::handler::types;
use super::bindings::{self, GuestPre};
use super::host::{Host, Profile, TimeBudget};
use super::limits::{CALL_BYTES_MAX, RESOURCES_MAX};
use super::text::{REASON_BYTES_MAX, cut};
use super::trap;
use sluicebox_core::clock;
use sluicebox_core::effects::{DELAY_MAX, Effects};
use sluicebox_core::invoke::{Call, Failure};
use sluicebox_core::shard::DELAYED_FULL;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

/// Ticks before a run yields for the first time: a run shorter than a tick always completes at the first poll.
/// Never 0, which wasmtime takes for a deadline that has passed.
const FIRST_TICKS: u64 = 2;
/// Ticks between later yields.
const TICKS: u64 = 1;

pub(super) struct Instance {
    store: Store<Host>,
    exports: bindings::Guest,
    limit: Duration,
}

/// How a run ended.
pub(super) enum Ended {
    /// The guest returned; it may be entered again.
    Returned(Result<Effects, Failure>),
    /// The guest was stopped; the sandbox is of no more use.
    Broken(Failure),
}

impl Instance {
    /// Makes a sandbox. The guest's own start code runs under the deadline.
    pub(super) async fn start(
        component: &GuestPre<Host>,
        profile: &Arc<Profile>,
        budget: TimeBudget,
    ) -> Result<Self, Failure> {
        let limit = profile.settings.timeout;
        let mut store = Store::new(component.engine(), Host::new(profile.clone(), budget));
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(CALL_BYTES_MAX);
        store.set_max_component_handles(RESOURCES_MAX);
        store.epoch_deadline_callback(at_tick);
        store.set_epoch_deadline(FIRST_TICKS);
        match component.instantiate_async(&mut store).await {
            Ok(exports) => Ok(Self { store, exports, limit }),
            Err(error) => Err(trap::start_failure(&error, store.data_mut(), limit)),
        }
    }

    /// Handles one message.
    pub(super) async fn run(&mut self, call: Call, budget: TimeBudget) -> Ended {
        let Call { message, key, attempt, state, delayed_room } = call;
        let headers: Vec<(&str, &str)> = message.headers.iter().collect();
        let param = types::Message {
            id: message.id.as_deref(),
            topic: message.topic.as_str(),
            key: key.as_ref().map(|key| key.as_str()),
            headers: &headers,
            body: &message.body,
            time: message.time.0,
            attempt,
            offset: Some(message.offset.0),
        };
        self.store.data_mut().begin(message.offset, key.is_some(), state, delayed_room, budget);
        self.store.set_epoch_deadline(FIRST_TICKS);
        let returned = self.exports.sluicebox_handler_handler().call_handle(&mut self.store, param).await;
        match returned {
            Ok(Ok(())) => Ended::Returned(Ok(self.store.data_mut().end())),
            Ok(Err(failure)) => {
                let refused = self.store.data().delay_refused();
                self.store.data_mut().end();
                Ended::Returned(Err(blamed(failed(failure), refused)))
            }
            Err(error) => {
                let failure = trap::failure(&error, self.store.data_mut(), self.limit);
                Ended::Broken(blamed(failure, self.store.data().delay_refused()))
            }
        }
    }

    /// Bytes of its linear memories.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().limiter.memory_bytes()
    }
}

/// Called in the guest at its first loop or call after a tick: lets it go on, makes it wait for its turn, or stops it.
fn at_tick(store: StoreContextMut<'_, Host>) -> wasmtime::Result<UpdateDeadline> {
    let host = store.data();
    let (now, budget) = (clock::instant(), &host.budget);
    if now >= budget.deadline {
        return Ok(UpdateDeadline::Interrupt);
    }
    Ok(match host.group().at_tick(&budget.account, now) {
        None => UpdateDeadline::Continue(TICKS),
        Some(rest) => UpdateDeadline::YieldCustom(TICKS, rest),
    })
}

/// A run that was refused a message with a delay and then fails, whatever it says, fails for that: it would not have
/// without.
fn blamed(failure: Failure, delay_refused: bool) -> Failure {
    match failure {
        Failure::Retry { .. } | Failure::Reject { .. } | Failure::Trap { .. } if delay_refused => {
            let mut reason = format!("{failure} ({DELAYED_FULL})");
            cut(&mut reason, REASON_BYTES_MAX);
            Failure::Full { reason }
        }
        failure => failure,
    }
}

/// What the guest said went wrong, cut to the length that is kept.
fn failed(failure: types::Failure) -> Failure {
    match failure {
        types::Failure::Reject(mut reason) => {
            cut(&mut reason, REASON_BYTES_MAX);
            Failure::Reject { reason }
        }
        types::Failure::Retry(types::RetryLater { mut reason, delay_ms }) => {
            cut(&mut reason, REASON_BYTES_MAX);
            Failure::Retry { reason, after: delay_ms.map(|ms| Duration::from_millis(ms).min(DELAY_MAX)) }
        }
    }
}
