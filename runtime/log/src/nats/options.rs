//! Where the server is, and what is checked before anything is done there.

use super::told::{self, Told};
use crate::error::LogError;
use crate::login;
use crate::replicated::{FLUSH_BYTES, SNAPSHOT_BYTES};
use async_nats::client::Client;
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, Event, ServerError};
use sluicebox_core::message::BODY_BYTES_MAX;
use sluicebox_core::topic::Pattern;
use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

/// The oldest server that is known to keep what is asked of it: it answers many gets at once since then.
const VERSION_MIN: (u64, u64) = (2, 11);
/// A message at the limits, and what is around it, fit into one message of the server.
pub(super) const PAYLOAD_BYTES_MIN: usize = BODY_BYTES_MAX + 64 * 1024;
/// How often a server that says nothing is asked whether it is there; the third time without an answer it is left.
const PING: Duration = Duration::from_secs(3);
/// After a subscription was not permitted.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(5);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// One or more `nats://host:port`, with commas between them.
    pub url: String,
    /// The name of the log: `[a-z][a-z0-9_-]{0,62}`.
    pub namespace: String,
    pub login: Login,
    /// Certificates of those who may vouch for the servers, instead of those that the machine trusts. With it nothing is said
    /// to a server that does not encrypt.
    pub ca_file: Option<PathBuf>,
    /// How many servers keep a copy, when the streams are made.
    pub replicas: usize,
    /// What plain clients send in and get with this login, for the word of what it must be permitted.
    pub ingress: Vec<Pattern>,
    pub egress: Vec<Pattern>,
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
        login::show(self, f)
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
            ingress: vec![],
            egress: vec![],
            flush_bytes: FLUSH_BYTES,
            snapshot_bytes: SNAPSHOT_BYTES,
        }
    }

    pub(super) async fn connect(&self) -> Result<Connection, LogError> {
        self.connect_with(|options| options).await
    }

    /// A connection with subscriptions that hold one message until it is read.
    pub(super) async fn connect_unread(&self) -> Result<Connection, LogError> {
        self.connect_with(|options| options.subscription_capacity(1)).await
    }

    async fn connect_with(&self, with: impl FnOnce(ConnectOptions) -> ConnectOptions) -> Result<Connection, LogError> {
        let refused = |reason: String| LogError::Refused { reason };
        let options = with(ConnectOptions::new()).name(format!("sluicebox {}", self.namespace)).ping_interval(PING);
        let options = match self.login.clone() {
            Login::None => options,
            Login::User { user, password } => options.user_and_password(user, password),
            Login::Token(token) => options.token(token),
            Login::Nkey(seed) => options.nkey(seed),
            // The parser wants the end of the last line, which a file need not have; what it says may quote the text, so it is
            // not repeated.
            Login::Credentials(text) => options.credentials(&(text + "\n")).map_err(|_| {
                refused("the credentials are not those of a user: name the file that `nsc generate creds` wrote".into())
            })?,
        };
        let options = match self.ca_file.clone() {
            Some(path) => options.add_root_certificates(path).require_tls(true),
            None => options,
        };
        let (teller, told) = told::channel();
        let options = options.event_callback(move |event| {
            teller.hear(&event);
            match &event {
                Event::ServerError(ServerError::Other(reason)) if told::is_denied(reason) => {
                    tracing::error!(reason, "the log's server does not permit it");
                }
                // While it tries to connect it says so each time, and echoes are told so.
                Event::ClientError(_) | Event::SlowConsumer(_) => tracing::debug!(%event, "the connection to the log"),
                _ => tracing::info!(%event, "the connection to the log"),
            }
            std::future::ready(())
        });
        let servers: Vec<String> = self.url.split(',').map(|url| url.trim().to_owned()).collect();
        let client = options.connect(servers).await.map_err(|error| self.not_connected(&error))?;
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
        let again = AbortOnDropHandle::new(tokio::spawn(subscribe_again(client.clone(), told.clone())));
        Ok(Connection { client, told, _again: Arc::new(again) })
    }

    /// Why there is no connection, and what mends it. What the library says holds no secret.
    fn not_connected(&self, error: &ConnectError) -> LogError {
        let url = &self.url;
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let encryption = "set `ca_file` to the certificate of who vouches for the server, and name the server as its own \
                          certificate does";
        let reason = match error.kind() {
            ConnectErrorKind::AuthorizationViolation => format!(
                "authorization violation: the server at {url} does not know who connects: set `login` as the server asks"
            ),
            ConnectErrorKind::Authentication => {
                format!("the login for the server at {url} cannot be used: {cause}: check the file that `login` names")
            }
            ConnectErrorKind::Tls => format!("no encrypted connection to the server at {url}: {cause}: {encryption}"),
            // So the library says what it found in a certificate, or in something else where TLS should be.
            ConnectErrorKind::Io
                if ["certificate", "TLS", "InvalidContentType"].iter().any(|word| cause.contains(word)) =>
            {
                format!("no encrypted connection to the server at {url}: {cause}: {encryption}")
            }
            _ => return LogError::Unavailable { reason: format!("no connection to the server at {url}: {error}") },
        };
        // Waiting does not mend it.
        LogError::Refused { reason }
    }
}

/// A connection, and what becomes of it.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) told: Told,
    _again: Arc<AbortOnDropHandle<()>>,
}

/// A subscription that the server did not permit, or ended, is asked for again only over another connection: when it is
/// permitted again, whoever waits for answers gets them.
async fn subscribe_again(client: Client, mut told: Told) {
    while told.subscriptions.changed().await.is_ok() {
        tokio::time::sleep(SUBSCRIBE_AGAIN).await;
        told.subscriptions.mark_unchanged();
        if let Err(error) = client.force_reconnect().await {
            tracing::debug!(%error, "the connection to the log ended");
            return;
        }
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
