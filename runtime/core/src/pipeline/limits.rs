//! Limits of a handler that a message can break before it runs.

use crate::handler::Policy;
use crate::message::{HEADERS_BYTES_MAX, HEADERS_MAX, Message};

/// Whether the handler takes a message of this size; the error says what is too large.
pub fn check(message: &Message, policy: &Policy) -> Result<(), String> {
    let (body_bytes, headers_bytes) = (message.body.len(), message.headers.bytes());
    if body_bytes > policy.body_bytes_max {
        return Err(format!("the body has {body_bytes} bytes, the handler takes {}", policy.body_bytes_max));
    }
    let headers = message.headers.iter().count();
    if headers > HEADERS_MAX {
        return Err(format!("the message has {headers} headers, at most {HEADERS_MAX} are allowed"));
    }
    if headers_bytes > HEADERS_BYTES_MAX {
        return Err(format!("the headers have {headers_bytes} bytes, at most {HEADERS_BYTES_MAX} are allowed"));
    }
    Ok(())
}
