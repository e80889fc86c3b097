//! What the server answers when it does not do what was asked, told apart by what is known of it then.

use crate::error::LogError;
use crate::replicated::engine::PublishError;
use redis::{ErrorKind, RedisError};

/// Why the server did not do it, or may not have done it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The fence.
    Stale,
    /// The log, or its end, is lost.
    Gone(String),
    /// Another life of the server, or one without our functions: connect anew.
    Anew(String),
    Full(String),
    /// Who connects may not do that.
    Denied(String),
    /// Not now. Nothing was written.
    Unavailable(String),
    /// Nobody knows: it was sent, and no answer came.
    Lost(String),
}

impl Failure {
    /// Whether the connection is of no more use.
    pub(super) fn ends_connection(&self) -> bool {
        matches!(self, Failure::Gone(_) | Failure::Anew(_) | Failure::Lost(_))
    }

    pub(super) fn reason(self) -> String {
        match self {
            Failure::Stale => "something else is the last entry".into(),
            Failure::Gone(reason)
            | Failure::Anew(reason)
            | Failure::Full(reason)
            | Failure::Denied(reason)
            | Failure::Unavailable(reason)
            | Failure::Lost(reason) => reason,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            return Failure::Lost(text);
        }
        let detail = error.detail().map_or_else(|| text.clone(), str::to_owned);
        match error.code().unwrap_or_default() {
            "SBSTALE" => Failure::Stale,
            "SBGONE" => Failure::Gone(detail),
            "SBEPOCH" => Failure::Anew(detail),
            // Of memory, or of the disk that the server writes to.
            "OOM" => Failure::Full(format!("the server has no memory left: {detail}")),
            "MISCONF" => Failure::Full(format!("the server cannot write to its disk: {detail}")),
            "NOAUTH" | "WRONGPASS" | "NOPERM" => Failure::Denied(text),
            "READONLY" | "MASTERDOWN" => Failure::Anew(format!("the server is a replica now: {detail}")),
            "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" => {
                Failure::Unavailable(format!("the server is part of a cluster, which is not supported: {detail}"))
            }
            // Inside a function, where the server has no word of its own for it.
            _ if text.contains("executing the script can't run") => {
                Failure::Denied(format!("a function of the log may not do all that it does: {text}"))
            }
            _ if text.contains("Function not found") => Failure::Anew("the functions of the log are not there".into()),
            _ if error.kind() == ErrorKind::AuthenticationFailed => Failure::Denied(text),
            _ => Failure::Unavailable(text),
        }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Stale => PublishError::Stale,
            Failure::Full(reason) => PublishError::Full(reason),
            Failure::Lost(reason) => PublishError::Unknown(reason),
            other => PublishError::Unavailable(other.reason()),
        }
    }
}

/// Of what may be asked again without harm.
impl From<Failure> for LogError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full(reason) => LogError::Full { reason },
            other => LogError::Unavailable { reason: other.reason() },
        }
    }
}
