//! The router, and what it does around every request: it checks who asks, counts, and limits large answers.

use super::body::check_encoding;
use super::body_guard::with_guard;
use super::connection_limit::Connection;
use super::error::ApiError;
use super::face::Face;
use super::routes::{Answer, ROUTES, is_open, route_of};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;

pub(super) fn router(face: Arc<Face>) -> Router {
    let empty = Router::new();
    let routes = ROUTES.iter().fold(empty, |router, route| router.route(route.path, (route.serve)()));
    routes
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(face.clone(), guard))
        .layer(middleware::from_fn(finish))
        .with_state(face)
}

/// Checks every request and counts it.
async fn guard(State(face): State<Arc<Face>>, request: Request, next: Next) -> Response {
    let (path, headers) = (request.uri().path(), request.headers());
    let route = route_of(path);
    let checked = face.guard.check(is_open(path), headers).and_then(|()| check_encoding(headers));
    let response = match checked {
        Ok(()) if route.is_some_and(|route| route.answer == Answer::Large) => large(&face, request, next).await,
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let route = route.map_or("unknown", |route| route.path);
    face.counts.requests.with_label_values(&[route, response.status().as_str()]).inc();
    response
}

/// Waits until the answer may be in memory; it is there until the client has it.
async fn large(face: &Face, request: Request, next: Next) -> Response {
    let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
        return next.run(request).await;
    };
    match tokio::time::timeout(face.limits.large_answer_wait, connection.large_answer(&face.large_answers)).await {
        Ok(guard) => next.run(request).await.map(|body| with_guard(body, guard)),
        Err(_) => ApiError::unavailable("too many clients look at once: try again").into_response(),
    }
}

/// What every answer says about itself.
async fn finish(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // Answers are data, never pages, whatever bytes a message holds.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    let known: Vec<String> = ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {method} {path}")).with("known", json!(known))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let right = route_of(uri.path()).map_or(String::new(), |route| format!(": use {} {}", route.method, route.path));
    let error = format!("{method} is not possible here{right}");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
