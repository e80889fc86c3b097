//! Who may ask: the machine itself, or who bears the token.

use super::error::ApiError;
use crate::config::HttpSettings;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;

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

    /// `is_open`: the path is answered without a token.
    pub(super) fn check(&self, is_open: bool, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.local_only {
            check_local(headers)?;
        }
        match &self.token {
            Some(token) if !is_open => check_token(token, headers),
            _ => Ok(()),
        }
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
