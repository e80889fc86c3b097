//! Where the server is, and what is checked before anything is done there.

use crate::error::LogError;
use crate::replicated::{FLUSH_BYTES, SNAPSHOT_BYTES};
use async_nats::client::Client;
use async_nats::{ConnectErrorKind, ConnectOptions, Event};
use sluicebox_core::message::BODY_BYTES_MAX;
use std::fmt;
use std::path::PathBuf;
use tokio::sync::watch;

/// The oldest server that is known to keep what is asked of it: it answers many gets at once since then.
const VERSION_MIN: (u64, u64) = (2, 11);
/// A message at the limits, and what is around it, fit into one message of the server.
const PAYLOAD_BYTES_MIN: usize = BODY_BYTES_MAX + 64 * 1024;
/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// One or more `nats://host:port`, with commas between them.
    pub url: String,
    /// The name of the log: `[a-z][a-z0-9_-]{0,62}`.
    pub namespace: String,
    pub login: Login,
    /// Certificates of those who may vouch for the servers, beside those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// How many servers keep a copy, when the streams are made.
    pub replicas: usize,
    /// Bytes of state in memory at which they go into the stream of state.
    pub flush_bytes: usize,
    /// Bytes of entries after which a snapshot is taken.
    pub snapshot_bytes: u64,
}

/// Who connects.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    #[default]
    None,
    User {
        user: String,
        password: String,
    },
    Token(String),
    /// The seed of an nkey.
    Nkey(String),
    /// The text of a file of credentials.
    Credentials(String),
}

/// No word of a secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Login::None { "nobody" } else { "(redacted)" })
    }
}

impl Options {
    pub fn new(url: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            namespace: namespace.into(),
            login: Login::None,
            ca_file: None,
            replicas: 1,
            flush_bytes: FLUSH_BYTES,
            snapshot_bytes: SNAPSHOT_BYTES,
        }
    }

    /// The connection, and how often it was made.
    pub(super) async fn connect(&self) -> Result<(Client, watch::Receiver<u64>), LogError> {
        let refused = |reason: String| LogError::Refused { reason };
        let options = ConnectOptions::new().name(format!("sluicebox {}", self.namespace));
        let options = match self.login.clone() {
            Login::None => options,
            Login::User { user, password } => options.user_and_password(user, password),
            Login::Token(token) => options.token(token),
            Login::Nkey(seed) => options.nkey(seed),
            Login::Credentials(text) => options
                .credentials(&text)
                .map_err(|error| refused(format!("the credentials cannot be read: {error}")))?,
        };
        let options = match self.ca_file.clone() {
            Some(path) => options.add_root_certificates(path),
            None => options,
        };
        let (connected, connections) = watch::channel(0);
        let options = options.event_callback(move |event| {
            tracing::debug!(%event, "the connection to the log");
            if matches!(event, Event::Connected) {
                connected.send_modify(|connections| *connections += 1);
            }
            std::future::ready(())
        });
        let servers: Vec<String> = self.url.split(',').map(|url| url.trim().to_owned()).collect();
        let client = options.connect(servers).await.map_err(|error| {
            let reason = format!("no connection to the server at {}: {error}", self.url);
            match error.kind() {
                // Waiting does not mend it.
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => refused(reason),
                _ => LogError::Unavailable { reason },
            }
        })?;
        let info = client.server_info();
        if version(&info.version).is_none_or(|version| version < VERSION_MIN) {
            return Err(refused(format!(
                "the server at {} has version {}, {}.{} or newer is needed: update it",
                self.url, info.version, VERSION_MIN.0, VERSION_MIN.1
            )));
        }
        if info.max_payload < PAYLOAD_BYTES_MIN {
            return Err(refused(format!(
                "the server at {} takes messages of {} bytes, {PAYLOAD_BYTES_MIN} are needed: raise `max_payload`",
                self.url, info.max_payload
            )));
        }
        if !info.jetstream {
            return Err(refused(format!("the server at {} has no JetStream: start it with `-js`", self.url)));
        }
        Ok((client, connections))
    }
}

fn version(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.trim_start_matches('v').split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("2.9.25").unwrap() < VERSION_MIN);
        assert!(version("v2.11.0-beta.1").unwrap() >= VERSION_MIN);
        assert!(version("2.15.1").unwrap() >= VERSION_MIN);
        assert_eq!(version("two"), None);
    }
}
