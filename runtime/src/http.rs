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
//! Clients cannot exhaust the host: connections, open tails, bodies, headers and the time a client may take to send
//! them are bounded. What is left to others: TLS and anything finer than one token (put a proxy in front).
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
mod dead;
mod error;
mod guard;
mod handlers;
mod ndjson;
mod parameters;
mod publish;
mod routes;
pub mod running;
mod tail;
#[cfg(test)]
pub(crate) mod tests;
pub mod views;

use crate::config::{HttpSettings, Namespace};
use crate::log::Log;
use crate::telemetry::{HttpMetrics, Metrics};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use running::Running;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What clients may take.
struct Bounds {
    /// More wait in the kernel's queue until one ends.
    connections_max: usize,
    /// Open tails; each holds a connection for as long as its client likes, so publishers must keep some.
    tails_max: usize,
    /// A client that has not sent a whole head by then, or has been idle as long, is hung up on.
    head_timeout: Duration,
    /// A client that sends nothing of its body for this long is hung up on.
    body_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let (head_timeout, body_timeout) = (Duration::from_secs(30), Duration::from_secs(30));
        Self { connections_max: 512, tails_max: 128, head_timeout, body_timeout }
    }
}

/// Bytes of one connection's read buffer, and so of a request's head. Room for the headers of a message.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// At stop, requests under way get this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the listener rests when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        let tails = Arc::new(Semaphore::new(bounds.tails_max));
        Self { log, metrics, counts, readiness, namespace, guard, bounds, tails, running: OnceLock::new(), stop }
    }

    /// From now on handlers can be commanded, and looks at them show how they fare. The first one counts.
    pub fn attach(&self, running: Arc<dyn Running>) {
        let _ = self.running.set(running);
    }
}

/// Serves until the face's `stop` is cancelled; then finishes what is under way, within five seconds.
pub async fn serve(listener: TcpListener, face: Arc<Face>) {
    let stop = face.stop.clone();
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(face.bounds.connections_max));
    let open = face.counts.connections.clone();
    let head_timeout = face.bounds.head_timeout;
    let router = routes::router(face);
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            // Safe to cancel: a connection is handed out whole or stays in the queue.
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "failed to accept an HTTP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (service, stop, open) = (TowerToHyperService::new(router.clone()), stop.clone(), open.clone());
        connections.spawn(async move {
            open.inc();
            serve_connection(stream, service, head_timeout, stop).await;
            open.dec();
            drop(permit);
        });
    }
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "left HTTP connections unfinished");
    }
}

async fn serve_connection(
    stream: TcpStream,
    service: TowerToHyperService<axum::Router>,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        // Safe to cancel: it is polled on below.
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(result) => result,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        // The client's doing: it hung up, or sent what is not HTTP.
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
