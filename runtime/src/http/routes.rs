//! Which path does what: one table, from which the [router](super::router), the metrics' names and the list in a 404 are made.

use super::error::ApiError;
use super::face::Face;
use super::parameters::Parameters;
use super::views::StatusView;
use super::{commands, dead, handlers, hosts, module, publish, state, tail, waiting, waiting_metrics};
use axum::Json;
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use std::sync::Arc;
use std::time::Duration;

/// What one path does.
pub(super) struct Route {
    pub(super) method: Method,
    /// As the router, the metrics and people write it.
    pub(super) path: &'static str,
    pub(super) answer: Answer,
    pub(super) serve: fn() -> MethodRouter<Arc<Face>>,
}

/// How much memory an answer may take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Some lines, or it is bounded by itself.
    Small,
    /// As much as there are handlers, metrics or dead letters: only so many at a time.
    Large,
}

const fn reads(path: &'static str, serve: fn() -> MethodRouter<Arc<Face>>) -> Route {
    Route { method: Method::GET, path, answer: Answer::Small, serve }
}

const fn reads_many(path: &'static str, serve: fn() -> MethodRouter<Arc<Face>>) -> Route {
    Route { method: Method::GET, path, answer: Answer::Large, serve }
}

const fn writes(path: &'static str, serve: fn() -> MethodRouter<Arc<Face>>) -> Route {
    Route { method: Method::POST, path, answer: Answer::Small, serve }
}

const fn puts(path: &'static str, serve: fn() -> MethodRouter<Arc<Face>>) -> Route {
    Route { method: Method::PUT, path, answer: Answer::Small, serve }
}

/// Every path; of two that match, the first is meant.
pub(super) static ROUTES: [Route; 27] = [
    writes("/v1/topics/{topic}", || post(publish::publish)),
    reads("/v1/topics/{pattern}/tail", || get(tail::tail)),
    reads_many("/v1/handlers", || get(handlers::list)),
    reads_many("/v1/handlers/{name}", || get(handlers::show)),
    reads_many("/v1/handlers/{name}/waiting", || get(waiting::list)),
    reads_many("/v1/handlers/{name}/state", || get(state::list)),
    reads_many("/v1/handlers/{name}/state/{key}", || get(state::get)),
    writes("/v1/handlers/{name}/retry-now", || post(waiting::retry_now)),
    writes("/v1/handlers/{name}/cancel", || post(waiting::cancel)),
    writes("/v1/handlers/{name}/pause", || post(commands::pause)),
    writes("/v1/handlers/{name}/resume", || post(commands::resume)),
    writes("/v1/handlers/{name}/trip", || post(commands::trip)),
    writes("/v1/handlers/{name}/reset", || post(commands::reset)),
    writes("/v1/handlers/{name}/rollback", || post(commands::rollback)),
    writes("/v1/handlers/{name}/unpin", || post(commands::unpin)),
    writes("/v1/handlers/{name}/forget", || post(commands::forget)),
    puts("/v1/handlers/{name}/module", || put(module::put)),
    reads_many("/v1/dead", || get(dead::list)),
    reads("/v1/dead/count", || get(dead::count)),
    reads_many("/v1/dead/{number}", || get(dead::show)),
    writes("/v1/dead/retry", || post(dead::retry)),
    writes("/v1/dead/drop", || post(dead::drop)),
    reads_many("/v1/hosts", || get(hosts::list)),
    reads_many("/v1/status", || get(status)),
    reads_many("/metrics", || get(metrics)),
    reads("/livez", || get(async || "alive\n")),
    reads("/readyz", || get(ready)),
];
/// `/readyz` answers within this, whatever the log does.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a path is answered without a token: what orchestrators ask.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// The route of a path. Metrics are named for it: bounded in number, whatever clients ask for.
pub(super) fn route_of(path: &str) -> Option<&'static Route> {
    // A literal path comes before one with a variable part, as in the router.
    let exact = ROUTES.iter().find(|route| route.path == path);
    exact.or_else(|| ROUTES.iter().find(|route| matches(route.path, path)))
}

fn matches(route: &str, path: &str) -> bool {
    let mut given = path.split('/');
    let mut all = route.split('/').map(|wanted| match given.next() {
        Some(given) => wanted == given || (wanted.starts_with('{') && !given.is_empty()),
        None => false,
    });
    all.all(|same| same) && given.next().is_none()
}

async fn metrics(State(face): State<Arc<Face>>) -> impl IntoResponse {
    waiting_metrics::count(&face).await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], face.metrics.render())
}

async fn ready(State(face): State<Arc<Face>>) -> Result<&'static str, ApiError> {
    if let Some(reason) = face.readiness.reason() {
        return Err(ApiError::unavailable(format!("not ready: {reason}")));
    }
    match tokio::time::timeout(READY_TIMEOUT, face.log.end()).await {
        Ok(Ok(_)) => Ok("ready\n"),
        Ok(Err(error)) => Err(ApiError::unavailable(format!("not ready: {error}"))),
        Err(_) => Err(ApiError::unavailable(format!("not ready: the log did not answer within {READY_TIMEOUT:?}"))),
    }
}

async fn status(State(face): State<Arc<Face>>, parameters: Parameters) -> Result<Json<StatusView>, ApiError> {
    parameters.finish()?;
    let not_ready = face.readiness.reason();
    let running = face.running.get().map(|running| &**running);
    let mut status = StatusView::of(&*face.log, Some(face.namespace.as_str()), not_ready, running).await?;
    status.notices = face.readiness.notices();
    Ok(Json(status))
}
