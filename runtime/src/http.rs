//! The HTTP face: publish, follow and look, plus metrics and health.
//!
//! It knows the log and the metrics, asks the host through [`running`] what these cannot tell, and knows nothing of
//! shards. A publish or a command is answered after the append, so what a client was told is durable. Every error is
//! JSON, `{"error": "…"}`, and says what to do.
//!
//! On a loopback address it answers only requests whose `Host`, and `Origin` if there is one, are this very machine:
//! otherwise any web page could reach it through the browser. With a token every request but the health checks must bear
//! it.
//!
//! Clients cannot exhaust the host: connections, open tails, large answers, bodies, headers and the time a client may
//! take to send and to read them are bounded. What is left to others: TLS and anything finer than one token (put a proxy in front).
//!
//! # Headers of a published message
//!
//! | header | meaning |
//! |---|---|
//! | `Sluicebox-Key`, `Sluicebox-Id` | the message's key and id, UTF-8 |
//! | `Sluicebox-Header-NAME` | the message's header `NAME`, in lower case |
//! | `traceparent`, `tracestate` | kept as headers of the message |
//! | `ce-…` | a CloudEvent in binary mode, see [`cloudevents`] |
//! | `Content-Type` | `application/cloudevents+json` and `application/x-ndjson` ([`ndjson`]) mean what they say; any other: the body is one message as it is |

mod body;
mod cloudevents;
mod commands;
mod connections;
mod dead;
mod error;
mod guard;
mod handlers;
mod held;
mod ndjson;
mod paced;
mod parameters;
mod places;
mod publish;
mod routes;
pub mod running;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
pub mod views;

pub use connections::{listen, serve};

use crate::config::{HttpSettings, Namespace};
use crate::log::Log;
use crate::telemetry::{HttpMetrics, Metrics};
use running::Running;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What clients may take.
#[derive(Clone, Copy)]
struct Bounds {
    /// More find a place when one ends, or when a client was waited for too long, see [`places`].
    connections_max: usize,
    /// Nobody loses his place who was waited for less than this.
    wait_min: Duration,
    /// Open tails; each holds a connection for as long as its client likes, so publishers must keep some.
    tails_max: usize,
    /// Looks whose answers are in memory: those at many handlers or dead letters are large, and some clients read slowly.
    looks_max: usize,
    /// A look waits this long for others, then it is refused.
    look_wait: Duration,
    /// Room for bodies while they come, in KiB: as many as their clients announced, or as they may have at most.
    bodies_kib_max: usize,
    /// A client that has not sent a whole head by then, or has been idle as long, is hung up on.
    head_timeout: Duration,
    /// A client that sends hardly anything of its body for this long is hung up on.
    body_timeout: Duration,
    /// A client that reads hardly anything of its answer for this long is hung up on.
    read_timeout: Duration,
    /// A client that still sends after its last answer has this long to read it.
    linger: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let patience = Duration::from_secs(30);
        Self {
            connections_max: 512,
            wait_min: Duration::from_secs(1),
            tails_max: 128,
            looks_max: 16,
            look_wait: Duration::from_secs(5),
            bodies_kib_max: 128 * 1024,
            head_timeout: patience,
            body_timeout: patience,
            read_timeout: patience,
            linger: Duration::from_secs(1),
        }
    }
}

/// Bytes of one connection's read buffer at which a request's head is too large; the last read may go as far again. Room
/// for the headers of a message.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// At stop, requests under way get this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the host is ready for traffic, set by whoever starts it and shown by `/readyz`.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not ready, for this reason.
    pub fn starting(reason: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Some(reason.into()))))
    }

    pub fn set_ready(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn set_unready(&self, reason: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.into());
    }

    /// Why it is not ready; `None`: it is.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All that the face shows and reaches.
pub struct Face {
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    counts: HttpMetrics,
    readiness: Readiness,
    namespace: Namespace,
    guard: guard::Guard,
    bounds: Bounds,
    tails: Arc<Semaphore>,
    looks: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    running: OnceLock<Arc<dyn Running>>,
    stop: CancellationToken,
}

impl Face {
    /// `stop` ends tails and, through [`serve`], everything else.
    pub fn new(
        log: Arc<dyn Log>,
        metrics: Arc<Metrics>,
        readiness: Readiness,
        namespace: Namespace,
        settings: &HttpSettings,
        stop: CancellationToken,
    ) -> Self {
        let counts = metrics.http();
        let guard = guard::Guard::new(settings);
        let bounds = Bounds::default();
        let places = |count| Arc::new(Semaphore::new(count));
        let (tails, looks) = (places(bounds.tails_max), places(bounds.looks_max));
        let (bodies, running) = (places(bounds.bodies_kib_max), OnceLock::new());
        Self { log, metrics, counts, readiness, namespace, guard, bounds, tails, looks, bodies, running, stop }
    }

    /// From now on handlers can be commanded, and looks at them show how they fare. The first one counts.
    pub fn attach(&self, running: Arc<dyn Running>) {
        let _ = self.running.set(running);
    }
}
