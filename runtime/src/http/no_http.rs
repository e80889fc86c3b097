//! What a client is told whose request cannot be read as HTTP.
//!
//! hyper answers such a request by itself, by a status alone, and nothing of the host is asked. What it writes is
//! recognised here on its way out, since every other answer with these statuses has a body, and gets its reason.

use crate::message::{HEADERS_BYTES_MAX, HEADERS_MAX};
use serde_json::json;

/// Headers of one request: those of a message, and room for what clients and proxies add of their own.
pub(super) const REQUEST_HEADERS_MAX: usize = HEADERS_MAX + 64;

/// The answer with a reason, if `head` is one without.
pub(super) fn with_reason(head: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(head).ok()?;
    let reason = match text.strip_prefix("HTTP/1.")?.get(2..5)? {
        "400" => {
            "this is not a request of HTTP/1.1: look at its first line, at the names and values of its headers, and at \
             Content-Length and Transfer-Encoding"
                .to_owned()
        }
        "414" => "the path and its parameters are too long: what is long belongs into the body".to_owned(),
        "431" => format!(
            "the request's headers are too many or too large: a message may have {HEADERS_MAX} headers with \
             {HEADERS_BYTES_MAX} bytes, and all headers together at most {REQUEST_HEADERS_MAX}; what is larger belongs \
             into the body"
        ),
        _ => return None,
    };
    let (before, after) = text.split_once("content-length: 0\r\n")?;
    if !after.ends_with("\r\n\r\n") {
        return None;
    }
    let body = json!({ "error": reason }).to_string();
    Some(
        format!("{before}content-type: application/json\r\ncontent-length: {}\r\n{after}{body}", body.len())
            .into_bytes(),
    )
}
