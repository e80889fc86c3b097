//! Where the server is, and who connects.

use crate::error::LogError;
use crate::login;
use crate::replicated::{FLUSH_BYTES, SNAPSHOT_BYTES};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates};
use std::fmt;
use std::path::PathBuf;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// `redis://host:port/database`, `rediss://` for encryption, or `unix:///path/of/the/socket`.
    pub url: String,
    /// The name of the log: `[a-z][a-z0-9_-]{0,62}`.
    pub namespace: String,
    pub login: Login,
    /// Certificates of those who may vouch for the server, instead of those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Bytes of state in memory at which they go to the server.
    pub flush_bytes: usize,
    /// Bytes of entries after which a snapshot is taken.
    pub snapshot_bytes: u64,
}

/// Who connects.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    #[default]
    None,
    /// Of the user `default`.
    Password(String),
    User {
        user: String,
        password: String,
    },
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
            flush_bytes: FLUSH_BYTES,
            snapshot_bytes: SNAPSHOT_BYTES,
        }
    }

    /// What makes connections, and the address for people, without a name or a password.
    pub(super) fn client(&self) -> Result<(Client, String), LogError> {
        let refused = |reason: String| LogError::Refused { reason };
        // The error of the library may hold what was typed.
        let info = self.url.as_str().into_connection_info();
        let info = info.map_err(|_| refused("the address of the server is not like redis://host:port".into()))?;
        let address = address(&info);
        let settings = info.redis_settings().clone();
        let settings = match self.login.clone() {
            Login::None => settings,
            Login::Password(password) => settings.set_password(password),
            Login::User { user, password } => settings.set_username(user).set_password(password),
        };
        let info = info.set_redis_settings(settings);
        let client = match &self.ca_file {
            Some(path) => {
                let root_cert = std::fs::read(path).map_err(|error| {
                    refused(format!("failed to read the certificates in `{}`: {error}", path.display()))
                })?;
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(root_cert) })
            }
            None => Client::open(info),
        };
        let client = client.map_err(|error| refused(format!("no connection to the server at {address}: {error}")))?;
        Ok((client, address))
    }
}

fn address(info: &ConnectionInfo) -> String {
    let database = match info.redis_settings().db() {
        0 => String::new(),
        number => format!("/{number}"),
    };
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => format!("redis://{host}:{port}{database}"),
        ConnectionAddr::TcpTls { host, port, .. } => format!("rediss://{host}:{port}{database}"),
        ConnectionAddr::Unix(path) => format!("unix://{}", path.display()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_that_is_shown_has_a_secret_in_it() {
        for (url, shown) in [
            ("redis://me:secret@host:7000/3", "redis://host:7000/3"),
            ("redis://:secret@host", "redis://host:6379"),
            ("rediss://me:secret@host", "rediss://host:6379"),
            ("unix:///run/redis.sock?pass=secret", "unix:///run/redis.sock"),
        ] {
            let login = Login::User { user: "me".into(), password: "secret".into() };
            let options = Options { login, ..Options::new(url, "t") };
            assert_eq!(options.client().unwrap().1, shown);
            assert!(!format!("{:?}", options.login).contains("secret"));
        }
        let wrong = Options::new("http://me:secret@host", "t").client().err().unwrap().to_string();
        assert!(wrong.contains("redis://host:port") && !wrong.contains("secret"), "{wrong}");
    }
}
