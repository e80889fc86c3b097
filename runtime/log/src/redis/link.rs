//! The connection on which a host asks: it is there or it is not, and nobody waits for it. Whoever follows the log makes it
//! anew, after it looked whether the log is still the one that this host has.

use super::failure::Failure;
use super::locator::{CONNECT, Locator};
use crate::error::LogError;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long the server may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The functions, and what they are called: the number rises with each change, so that hosts of two versions do not replace
/// each other's.
const LIBRARY: &str = include_str!("functions.lua");
const LIBRARY_NAME: &str = "sluicebox_2";

/// The functions of the library by name.
pub(super) fn function(name: &str) -> String {
    format!("{LIBRARY_NAME}_{name}")
}

pub(super) async fn connect(locator: &Locator, address: &str) -> Result<MultiplexedConnection, LogError> {
    let client = locator.client().await?;
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.map_err(|error| {
        let found = match locator.asks() {
            // The server is the one that they name.
            true => format!(", of which sentinels say that it is {}", client.get_connection_info().addr()),
            false => String::new(),
        };
        let reason = format!("no connection to the server at {address}{found}: {error}");
        match Failure::from(error) {
            // Waiting does not mend it.
            Failure::Denied(_) => LogError::Refused { reason },
            Failure::Lost(said) if said.contains("peer certificate") => LogError::Refused {
                reason: format!(
                    "{reason}: set `ca_file` in [log] to the certificates of who vouches for it, and name it in `url` as its \
                     certificate does"
                ),
            },
            _ => LogError::Unavailable { reason },
        }
    })
}

/// The functions are there, as they are in this program. They are replaced only where they are others: each time they are, the
/// server begins another life for all hosts.
pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<(), Failure> {
    let mut list = redis::cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(LIBRARY_NAME).arg("WITHCODE");
    let mut load = redis::cmd("FUNCTION");
    load.arg("LOAD").arg(LIBRARY);
    let found: Value = list.query_async(connection).await?;
    if holds(&found, LIBRARY) || (is_empty(&found) && load.exec_async(connection).await.is_ok()) {
        return Ok(());
    }
    // Another host may have loaded them meanwhile.
    let found: Value = list.query_async(connection).await?;
    if !holds(&found, LIBRARY) {
        redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(LIBRARY).exec_async(connection).await?;
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::Array(libraries) if libraries.is_empty())
}

fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == text.as_bytes(),
        Value::VerbatimString { text: found, .. } | Value::SimpleString(found) => found == text,
        Value::Array(values) | Value::Set(values) => values.iter().any(|value| holds(value, text)),
        Value::Map(pairs) => pairs.iter().any(|(_, value)| holds(value, text)),
        _ => false,
    }
}

/// The connection, shared by all who ask.
#[derive(Clone, Debug)]
pub(super) struct Link {
    current: Arc<Mutex<Current>>,
    /// Changes when the connection is of no more use.
    broken: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Current {
    established: Option<Established>,
    /// How many there were.
    number: u64,
}

#[derive(Clone)]
pub(super) struct Established {
    connection: MultiplexedConnection,
    /// The life of the server.
    pub(super) epoch: String,
    number: u64,
}

impl std::fmt::Debug for Established {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection {} in life {}", self.number, self.epoch)
    }
}

impl Link {
    pub(super) fn new() -> Self {
        Self { current: Arc::default(), broken: watch::Sender::default() }
    }

    pub(super) fn broken(&self) -> watch::Receiver<u64> {
        self.broken.subscribe()
    }

    /// The connection, or why nothing is sent now.
    pub(super) fn established(&self) -> Result<Established, Failure> {
        let none = || Failure::Unavailable("there is no connection to its server now".into());
        self.current().established.clone().ok_or_else(none)
    }

    pub(super) fn establish(&self, connection: MultiplexedConnection, epoch: String) {
        let mut current = self.current();
        current.number += 1;
        current.established = Some(Established { connection, epoch, number: current.number });
    }

    /// What is established in this life of the server stays.
    pub(super) fn is_in(&self, epoch: &str) -> bool {
        self.current().established.as_ref().is_some_and(|established| established.epoch == epoch)
    }

    pub(super) async fn ask(&self, established: &Established, command: &Cmd) -> Result<Value, Failure> {
        let mut connection = established.connection.clone();
        let answer = command.query_async(&mut connection).await;
        self.judged(established, answer.map_err(Failure::from))
    }

    pub(super) async fn ask_all(
        &self,
        established: &Established,
        commands: &redis::Pipeline,
    ) -> Result<Vec<Value>, Failure> {
        let mut connection = established.connection.clone();
        let answer = commands.query_async(&mut connection).await;
        self.judged(established, answer.map_err(Failure::from))
    }

    /// Another connection to the server failed.
    pub(super) fn lost_with(&self, failure: &Failure) {
        if matches!(failure, Failure::Lost(_)) {
            self.current().established = None;
        }
    }

    fn judged<T>(&self, established: &Established, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &answer
            && failure.ends_connection()
        {
            let mut current = self.current();
            if current.established.as_ref().is_some_and(|known| known.number == established.number) {
                tracing::debug!(?failure, "the connection to the log is made anew");
                current.established = None;
                self.broken.send_modify(|count| *count += 1);
            }
        }
        answer
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
