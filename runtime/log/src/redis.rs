//! The log on Redis: entries are those of one stream, and what is looked up by name is in hashes. What they add up to is the
//! business of [`crate::replicated`].
//!
//! Redis runs one function at a time, so a library of functions (`redis/functions.lua`) is the fence: each checks everything
//! and then writes. Sequences are a counter, so the ids of the stream's entries are numbers without gaps. All keys of a log
//! begin with `sb:{NAMESPACE}` and are in one slot.
//!
//! What a host has seen may be lost: a server that syncs once a second, or a replica that takes over, may be without the
//! last entries. Writing on as if nothing had been would give their sequences again. So every write names the life of the
//! server that it was made for, and after each new connection the last entry that this host has must be there, or the host
//! stops and says so.
//!
//! Sentinels say which server is the master; they are asked for each connection, so a host follows a failover with what the
//! new master has.
//!
//! Rejected: a transaction with WATCH (two round trips, and writers that hinder each other); ids made by Redis (they are
//! times, and do not fit beside the place in an entry); WAIT (it says how many replicas have a write, and promises nothing
//! of which one takes over).

mod check;
pub mod edges;
mod engine;
mod failure;
mod following;
mod link;
mod locator;
mod members;
mod modules;
mod options;
mod server;
mod snapshots;
mod values;

pub use self::options::{Login, Options, check_url};
pub use self::server::Server;

use crate::error::LogError;
use crate::portable::Restore;
use crate::replicated::{Bounds, Replicated};

/// The log on Redis, as this host has it.
pub type RedisLog = Replicated<Server>;

impl RedisLog {
    /// Connects, begins the log if it is not there, and returns when all that is in it was applied.
    pub async fn open(options: Options) -> Result<Self, LogError> {
        let server = Server::connect(&options).await?;
        let Options { flush_bytes, snapshot_bytes, .. } = options;
        Self::open_on(server, Bounds { flush_bytes, snapshot_bytes, ..Bounds::default() }).await
    }

    /// Connects, and restores a log into this one, which must be empty or the place of an import that was interrupted.
    pub async fn restore(options: Options) -> Result<Box<dyn Restore>, LogError> {
        let server = Server::connect(&options).await?;
        let Options { flush_bytes, snapshot_bytes, .. } = options;
        Self::restore_on(server, Bounds { flush_bytes, snapshot_bytes, ..Bounds::default() }).await
    }
}
