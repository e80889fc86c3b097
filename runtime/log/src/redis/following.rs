//! The log's stream, read in its order by blocking reads on a connection of their own.

use super::failure::Failure;
use super::server::{Server, entry};
use crate::error::LogError;
use crate::replicated::engine::{self, Stored};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::sync::watch;

/// Most entries that come together. Only those that are there already: nobody waits for more.
const TOGETHER_MAX: usize = 64;
/// A read that nothing came for ends after so long, in ms; so a connection that is dead shows.
const BLOCK_MS: u64 = 2000;

pub struct Following {
    server: Server,
    connection: MultiplexedConnection,
    /// Changes when the connection for everything else is of no more use.
    broken: watch::Receiver<u64>,
    after: u64,
}

impl Following {
    pub(super) fn begin(
        server: Server,
        connection: MultiplexedConnection,
        broken: watch::Receiver<u64>,
        after: u64,
    ) -> Self {
        Self { server, connection, broken, after }
    }

    fn command(&self) -> Cmd {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(TOGETHER_MAX).arg("BLOCK").arg(BLOCK_MS);
        command.arg("STREAMS").arg(self.server.key("log")).arg(format!("{}-0", self.after));
        command
    }
}

impl engine::Following for Following {
    async fn next(&mut self) -> Result<Option<Vec<Stored>>, LogError> {
        loop {
            let command = self.command();
            let read = tokio::select! {
                // Safe to cancel, both: what was not taken is read again.
                read = command.query_async::<Value>(&mut self.connection) => {
                    // What is sent on the other connection would be lost with it.
                    read.map_err(Failure::from).inspect_err(|failure| self.server.link.lost_with(failure))?
                }
                // Whoever asked found that something is not as it was.
                _ = self.broken.changed() => return Ok(None),
            };
            let entries = entries(read)?;
            if let Some(last) = entries.last() {
                self.after = last.sequence;
                self.server.saw(&entries);
                return Ok(Some(entries));
            }
        }
    }
}

/// The answer has a list of streams, each with its name and its entries.
fn entries(read: Value) -> Result<Vec<Stored>, LogError> {
    let streams = match read {
        Value::Array(streams) => streams,
        Value::Map(streams) => streams.into_iter().map(|(name, entries)| Value::Array(vec![name, entries])).collect(),
        _ => return Ok(vec![]),
    };
    let Some(Value::Array(mut stream)) = streams.into_iter().next() else { return Ok(vec![]) };
    match stream.pop() {
        Some(Value::Array(entries)) => entries.into_iter().map(entry).collect(),
        _ => Ok(vec![]),
    }
}
