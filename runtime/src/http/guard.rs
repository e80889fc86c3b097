//! Who may ask: the machine itself, or who bears the token.

use super::error::ApiError;
use super::held::held;
use super::places::Visit;
use super::routes::Answer;
use super::{Face, HttpSettings, body, routes};
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// The rules of one listener.
pub(super) struct Guard {
    /// Only requests meant for this very machine.
    local_only: bool,
    /// The hash of the token.
    token: Option<[u8; 32]>,
}

impl Guard {
    pub(super) fn new(settings: &HttpSettings) -> Self {
        let token = settings.token.as_ref().map(|token| Sha256::digest(token.expose()).into());
        Self { local_only: settings.listen.ip().is_loopback(), token }
    }

    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.local_only {
            check_local(headers)?;
        }
        if let Some(token) = self.token.as_ref().filter(|_| !routes::is_open(path)) {
            check_token(token, headers)?;
        }
        body::check_encoding(headers)
    }
}

/// Checks every request and counts it.
pub(super) async fn guard(State(face): State<Arc<Face>>, request: Request, next: Next) -> Response {
    let route = routes::route_of(request.uri().path());
    let response = match face.guard.check(request.uri().path(), request.headers()) {
        Ok(()) if route.is_some_and(|route| route.answer == Answer::Large) => look(&face, request, next).await,
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    let route = route.map_or("unknown", |route| route.path);
    face.counts.requests.with_label_values(&[route, response.status().as_str()]).inc();
    response
}

/// Lets a look have its turn; it is over when the client has its answer.
async fn look(face: &Face, request: Request, next: Next) -> Response {
    let Some(visit) = request.extensions().get::<Visit>().cloned() else { return next.run(request).await };
    match tokio::time::timeout(face.bounds.look_wait, visit.places.turn(&face.looks)).await {
        Ok(turn) => {
            let look = visit.watch.look(turn);
            next.run(request).await.map(|body| held(body, look))
        }
        Err(_) => ApiError::unavailable("too many clients look at once: try again").into_response(),
    }
}

/// Refuses what a browser may send for a foreign page: a name that resolves to this machine is still not this machine.
fn check_local(headers: &HeaderMap) -> Result<(), ApiError> {
    let forbidden = |error: String| Err(ApiError::new(StatusCode::FORBIDDEN, error));
    let hosts: Vec<_> = headers.get_all(header::HOST).iter().collect();
    let host = match hosts[..] {
        [host] => host.to_str().unwrap_or_default(),
        _ => return forbidden("a request needs one Host header".into()),
    };
    if !is_loopback(host) {
        let shown: String = host.chars().take(100).collect();
        return forbidden(format!(
            "this host listens on loopback only and does not answer for `{shown}`: use localhost, or set http.listen and http.token_file"
        ));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let authority = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        if authority != Some(host) {
            return forbidden("requests of other origins are refused on loopback".into());
        }
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn check_token(token: &[u8; 32], headers: &HeaderMap) -> Result<(), ApiError> {
    let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    match given {
        // The hashes compare in constant time; how long hashing takes tells nothing about the right token.
        Some(given) if same(&Sha256::digest(given).into(), token) => Ok(()),
        Some(_) => Err(ApiError::new(StatusCode::UNAUTHORIZED, "the token is not the one of http.token_file")),
        None => {
            let error = "a token is needed: send `Authorization: Bearer TOKEN` with the token of http.token_file";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, error))
        }
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// What every answer says about itself.
pub(super) async fn finish(request: Request, next: Next) -> Response {
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
