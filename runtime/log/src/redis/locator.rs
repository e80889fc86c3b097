//! Which server is connected to: the one that is named, or the master of which sentinels know, who are asked anew for each
//! connection. Of what they say the newest counts, so one that was cut off while others chose another master is not believed.

use crate::error::LogError;
use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to be made.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// How long a sentinel may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) enum Locator {
    Server(Arc<Client>),
    Sentinels(Arc<Sentinels>),
}

/// Makes what connects to the server at a host and a port.
pub(super) type Make = Box<dyn Fn(&str, u16) -> Result<Client, LogError> + Send + Sync>;

pub(super) struct Sentinels {
    pub(super) asked: Vec<Sentinel>,
    /// What they call the master.
    pub(super) service: String,
    pub(super) make: Make,
}

pub(super) struct Sentinel {
    /// For people.
    pub(super) address: String,
    pub(super) client: Client,
    /// The same with the login, for one that asks for it.
    pub(super) with_login: Option<Client>,
}

impl fmt::Debug for Locator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(_) => f.write_str("a server"),
            Self::Sentinels(sentinels) => write!(f, "the master {} of sentinels", sentinels.service),
        }
    }
}

impl Locator {
    /// What connects to the server that is the one now.
    pub(super) async fn client(&self) -> Result<Client, LogError> {
        match self {
            Self::Server(client) => Ok(Client::clone(client)),
            Self::Sentinels(sentinels) => sentinels.master().await,
        }
    }

    /// Which server that is may change.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Sentinels(_))
    }
}

/// Where a master is, and how new that is.
struct Named {
    epoch: u64,
    host: String,
    port: u16,
}

/// Why a sentinel names none.
struct Silent {
    reason: String,
    /// It answers, and knows no such master.
    knows_none: bool,
}

impl Sentinels {
    async fn master(&self) -> Result<Client, LogError> {
        let answers = join_all(self.asked.iter().map(|sentinel| sentinel.ask(&self.service))).await;
        let newest = answers.iter().filter_map(|answer| answer.as_ref().ok()).max_by_key(|named| named.epoch);
        if let Some(Named { host, port, .. }) = newest {
            return (self.make)(host, *port);
        }
        let silent: Vec<&Silent> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        let service = &self.service;
        if silent.iter().all(|silent| silent.knows_none) {
            return Err(LogError::Refused {
                reason: format!(
                    "the sentinels know no master `{service}`: `redis-cli -p 26379 SENTINEL MASTERS` lists them"
                ),
            });
        }
        let reasons: Vec<&str> = silent.iter().map(|silent| silent.reason.as_str()).collect();
        Err(LogError::Unavailable { reason: format!("no sentinel says where `{service}` is: {}", reasons.join("; ")) })
    }
}

impl Sentinel {
    async fn ask(&self, service: &str) -> Result<Named, Silent> {
        let asked = async {
            match (ask(&self.client, service).await, &self.with_login) {
                (Err(error), Some(client)) if asks_for_login(&error) => ask(client, service).await,
                (answer, _) => answer,
            }
        };
        let address = &self.address;
        let silent = |reason: String, knows_none| Silent { reason: format!("{address}: {reason}"), knows_none };
        let answer = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let knows_none = error.to_string().contains("No such master");
                return Err(silent(error.to_string(), knows_none));
            }
            Err(_) => return Err(silent("it does not answer".into(), false)),
        };
        let named = || {
            let number = |name: &str| answer.get(name)?.parse::<u64>().ok();
            let port = u16::try_from(number("port")?).ok()?;
            Some(Named { epoch: number("config-epoch")?, host: answer.get("ip")?.clone(), port })
        };
        named().ok_or_else(|| silent("it answers something else".into(), false))
    }
}

async fn ask(client: &Client, service: &str) -> Result<HashMap<String, String>, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("SENTINEL").arg("MASTER").arg(service).query_async(&mut connection).await
}

fn asks_for_login(error: &RedisError) -> bool {
    error.code() == Some("NOAUTH") || error.kind() == ErrorKind::AuthenticationFailed
}
