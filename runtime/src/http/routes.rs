//! Which path does what.

use super::error::ApiError;
use super::parameters::{Parameters, PathText};
use super::views::{DeadLetterView, DeadPage, StatusView};
use super::{Face, guard, publish, tail};
use crate::handler::HandlerName;
use crate::log::{DeadFilter, DeadOrder, DeadQuery};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What there is, as a 404 lists it.
const KNOWN: &[&str] = &[
    "POST /v1/topics/{topic}",
    "GET /v1/topics/{pattern}/tail",
    "GET /v1/dead",
    "GET /v1/dead/{number}",
    "GET /v1/status",
    "GET /metrics",
    "GET /livez",
    "GET /readyz",
];
/// `/readyz` answers within this, whatever the log does.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
const DEAD_DEFAULT: usize = 100;
const DEAD_MAX: usize = 1000;

pub(super) fn router(face: Arc<Face>) -> Router {
    Router::new()
        .route("/v1/topics/{topic}", post(publish::publish))
        .route("/v1/topics/{topic}/tail", get(tail::tail))
        .route("/v1/dead", get(dead_list))
        .route("/v1/dead/{number}", get(dead_show))
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(face.clone(), guard::guard))
        .layer(middleware::from_fn(guard::finish))
        .with_state(face)
}

/// Whether a path is answered without a token: what orchestrators ask.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// The path as metrics name it: bounded in number, whatever clients ask for.
pub(super) fn route_of(path: &str) -> &'static str {
    match path {
        "/v1/dead" => "/v1/dead",
        "/v1/status" => "/v1/status",
        "/metrics" => "/metrics",
        "/livez" => "/livez",
        "/readyz" => "/readyz",
        _ if path.starts_with("/v1/dead/") => "/v1/dead/{number}",
        _ if path.starts_with("/v1/topics/") && path.ends_with("/tail") => "/v1/topics/{pattern}/tail",
        _ if path.starts_with("/v1/topics/") => "/v1/topics/{topic}",
        _ => "unknown",
    }
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {method} {path}")).with("known", json!(KNOWN))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let route = route_of(uri.path());
    let known = KNOWN.iter().find(|known| known.ends_with(route)).unwrap_or(&route);
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not possible here: use {known}"))
}

async fn metrics(State(face): State<Arc<Face>>) -> impl IntoResponse {
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

async fn status(State(face): State<Arc<Face>>) -> Result<Json<StatusView>, ApiError> {
    let not_ready = face.readiness.reason();
    let mut status = StatusView::of(&*face.log, Some(face.namespace.as_str()), not_ready).await?;
    if let Some(reader) = face.reader.get() {
        status.follow(|shard| reader.passed(shard));
    }
    Ok(Json(status))
}

async fn dead_list(State(face): State<Arc<Face>>, mut parameters: Parameters) -> Result<Json<DeadPage>, ApiError> {
    let handler = parameters.take("handler").map(|name| HandlerName::parse(&name));
    let query = DeadQuery {
        filter: DeadFilter { handler: handler.transpose().map_err(ApiError::bad_request)?, ..DeadFilter::default() },
        order: DeadOrder::Newest { below: parameters.number("below")? },
        bytes_max: usize::MAX,
        letters_max: parameters
            .number("limit")?
            .map_or(DEAD_DEFAULT, |limit| usize::try_from(limit).unwrap_or(DEAD_MAX).clamp(1, DEAD_MAX)),
    };
    parameters.finish()?;
    Ok(Json(DeadPage::of(&*face.log, query).await?))
}

async fn dead_show(
    State(face): State<Arc<Face>>,
    PathText(number): PathText,
) -> Result<Json<DeadLetterView>, ApiError> {
    let wanted: u64 = number.parse().map_err(|_| ApiError::bad_request(format!("`{number}` is not a number")))?;
    match DeadLetterView::find(&*face.log, wanted).await? {
        Some(letter) => Ok(Json(letter)),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no dead letter {wanted}"))),
    }
}

/// A small answer as JSON.
pub(super) fn answer(value: &Value) -> Response {
    let json = (HeaderName::from_static("content-type"), HeaderValue::from_static("application/json"));
    ([json], value.to_string()).into_response()
}
