//! The log on NATS JetStream: entries are messages of one stream, and what is looked up by name is in a second one, of each
//! subject the last message. What they add up to is the business of [`crate::replicated`].
//!
//! Rejected: atomic batches of single messages (slower at every size, and others see messages of a batch that is refused
//! later).

pub mod edges;
mod engine;
mod following;
mod members;
mod modules;
mod names;
mod options;
mod permissions;
mod refusal;
mod server;
mod setup;
mod snapshots;
mod told;
mod values;

pub use self::options::{Login, Options};

use self::server::Server;
use crate::error::LogError;
use crate::portable::Restore;
use crate::replicated::{Bounds, Replicated};

/// The log on NATS JetStream, as this host has it.
pub type NatsLog = Replicated<Server>;

impl NatsLog {
    /// Connects, makes the streams if they are not there, and returns when all that is in the log was applied.
    pub async fn open(options: Options) -> Result<Self, LogError> {
        let server = Box::pin(Server::connect(&options)).await?;
        let Options { flush_bytes, snapshot_bytes, .. } = options;
        Self::open_on(server, Bounds { flush_bytes, snapshot_bytes, ..Bounds::default() }).await
    }

    /// Connects, and restores a log into this one, which must be empty or the place of an import that was interrupted.
    pub async fn restore(options: Options) -> Result<Box<dyn Restore>, LogError> {
        let server = Box::pin(Server::connect(&options)).await?;
        let Options { flush_bytes, snapshot_bytes, .. } = options;
        Self::restore_on(server, Bounds { flush_bytes, snapshot_bytes, ..Bounds::default() }).await
    }
}
