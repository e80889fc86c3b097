//! Where the server is, and who connects.

use super::locator::{Locator, Sentinel, Sentinels};
use crate::error::LogError;
use crate::login;
use crate::replicated::{FLUSH_BYTES, SNAPSHOT_BYTES};
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What begins an address of sentinels, and that of each of them.
const SENTINELS: [(&str, &str); 2] = [("redis+sentinel://", "redis://"), ("rediss+sentinel://", "rediss://")];
const SENTINEL_PORT: u16 = 26379;

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// `redis://host:port/database`, `rediss://` for encryption, or `unix:///path/of/the/socket`; or of sentinels
    /// `redis+sentinel://host:port,host:port/master/database`, or `rediss+sentinel://`.
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

    /// What finds the server, and the address for people, without a name or a password.
    pub(super) fn locator(&self) -> Result<(Locator, String), LogError> {
        match SentinelUrl::parse(&self.url).map_err(|reason| LogError::Refused { reason })? {
            None => self
                .client(&self.url, &self.login)
                .map(|(client, address)| (Locator::Server(Arc::new(client)), address)),
            Some(url) => {
                let address = url.to_string();
                Ok((Locator::Sentinels(Arc::new(self.sentinels(url)?)), address))
            }
        }
    }

    fn sentinels(&self, url: SentinelUrl) -> Result<Sentinels, LogError> {
        let SentinelUrl { scheme, hosts, service, database, .. } = url;
        let asked = hosts.iter().map(|host| {
            let of = format!("{scheme}{host}");
            let (client, address) = self.client(&of, &Login::None)?;
            let with_login = match self.login {
                Login::None => None,
                _ => Some(self.client(&of, &self.login)?.0),
            };
            Ok(Sentinel { address, client, with_login })
        });
        let asked = asked.collect::<Result<_, LogError>>()?;
        let options = self.clone();
        let make = move |host: &str, port| {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            let url = format!("{scheme}{host}:{port}/{database}");
            options.client(&url, &options.login).map(|(client, _)| client)
        };
        Ok(Sentinels { asked, service, make: Box::new(make) })
    }

    fn client(&self, url: &str, login: &Login) -> Result<(Client, String), LogError> {
        let refused = |reason: String| LogError::Refused { reason };
        // The error of the library may hold what was typed.
        let info = url.into_connection_info();
        let info = info.map_err(|_| refused("the address of the server is not like redis://host:port".into()))?;
        let address = address(&info);
        let settings = info.redis_settings().clone();
        let settings = match login.clone() {
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

/// Where sentinels are, and what they call the master.
#[derive(Debug, PartialEq, Eq)]
struct SentinelUrl<'u> {
    /// As it was typed.
    begin: &'u str,
    scheme: &'static str,
    /// Each with its port.
    hosts: Vec<String>,
    service: String,
    database: u32,
}

/// What is wrong with an address of sentinels, if it is one.
pub fn check_url(url: &str) -> Result<(), String> {
    SentinelUrl::parse(url).map(drop)
}

impl<'u> SentinelUrl<'u> {
    /// `None`: it is the address of a server.
    fn parse(url: &'u str) -> Result<Option<Self>, String> {
        let found = SENTINELS.into_iter().find_map(|(begin, scheme)| Some((begin, scheme, url.strip_prefix(begin)?)));
        let Some((begin, scheme, rest)) = found else { return Ok(None) };
        let wrong = |what: &str| Err(format!("{what}: write {begin}a.example:26379,b.example:26379/mymaster"));
        let mut parts = rest.split('/');
        let (hosts, service, database) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let service = match service {
            Some(service) if !service.is_empty() => service.to_owned(),
            _ => return wrong("the address of sentinels does not name a master"),
        };
        let database = match database.map(str::parse) {
            None => 0,
            Some(Ok(number)) if parts.next().is_none() => number,
            Some(_) => return wrong("what comes after the master is not the number of a database"),
        };
        let mut with_ports = vec![];
        for host in hosts.split(',').map(str::trim) {
            if host.is_empty() {
                return wrong("one of the sentinels has no name");
            }
            // Colons in brackets are of an address, those before an @ of a login.
            let has_port = host.rsplit(['@', ']']).next().is_some_and(|end| end.contains(':'));
            with_ports.push(if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") });
        }
        Ok(Some(Self { begin, scheme, hosts: with_ports, service, database }))
    }
}

impl fmt::Display for SentinelUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What may be a name and a password is not shown.
        let hosts: Vec<&str> = self.hosts.iter().map(|host| host.rsplit('@').next().unwrap_or_default()).collect();
        write!(f, "{}{}/{}", self.begin, hosts.join(","), self.service)?;
        match self.database {
            0 => Ok(()),
            number => write!(f, "/{number}"),
        }
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
            ("redis+sentinel://me:secret@a,b:7/mine", "redis+sentinel://a:26379,b:7/mine"),
            ("rediss+sentinel://a/mine/2", "rediss+sentinel://a:26379/mine/2"),
        ] {
            let login = Login::User { user: "me".into(), password: "secret".into() };
            let options = Options { login, ..Options::new(url, "t") };
            assert_eq!(options.locator().unwrap().1, shown);
            assert!(!format!("{:?}", options.login).contains("secret"));
        }
        let wrong = Options::new("http://me:secret@host", "t").locator().err().unwrap().to_string();
        assert!(wrong.contains("redis://host:port") && !wrong.contains("secret"), "{wrong}");
    }

    #[test]
    fn an_address_of_sentinels_says_whom_to_ask_for_which_master() {
        let read = |url: &'static str| SentinelUrl::parse(url).unwrap().unwrap();
        let url = read("redis+sentinel://a.example, [::1]:7,[::2]/mine/3");
        assert_eq!(url.hosts, ["a.example:26379", "[::1]:7", "[::2]:26379"]);
        assert_eq!((url.scheme, url.service.as_str(), url.database), ("redis://", "mine", 3));
        assert_eq!(SentinelUrl::parse("redis://a"), Ok(None));
        for (url, said) in [
            ("redis+sentinel://a,b", "does not name a master: write redis+sentinel://a.example:26379"),
            ("redis+sentinel://a,b/", "does not name a master"),
            ("rediss+sentinel://a,,b/mine", "no name: write rediss+sentinel://"),
            ("redis+sentinel://a/mine/two", "the number of a database"),
            ("redis+sentinel://a/mine/2/3", "the number of a database"),
        ] {
            let told = check_url(url).unwrap_err();
            assert!(told.contains(said), "{told}");
        }
    }
}
