//! Hosts that work on one log, as one of them knows them.

use serde::{Deserialize, Serialize};

/// The state of a host that was not heard for a lease.
pub const SILENT: &str = "silent";

/// All hosts that were heard lately, by id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPage {
    pub hosts: Vec<HostView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// Of its process: one that starts again has another.
    pub id: String,
    pub name: String,
    /// The host that was asked.
    pub is_this: bool,
    /// `live`; `joining`, it listens before it takes any shard; `leaving`; or `silent`, it was not heard for a lease, so others
    /// take its shards.
    pub state: String,
    /// Of its HTTP face.
    pub address: String,
    pub version: String,
    /// What it understands: the lowest number of the live hosts is in force.
    pub features: u32,
    /// When its process started, by its own clock.
    pub since: String,
    /// By the clock of the host that was asked.
    pub silent_ms: u64,
    /// By handler what it can run and holds.
    pub handlers: Vec<HostHandlerView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostHandlerView {
    pub name: String,
    /// How many shards the handler has; 0: the host cannot run it.
    pub shards: u16,
    /// The shards that the host holds.
    pub held: Vec<u16>,
}

impl HostView {
    /// How many shards it holds.
    pub fn held(&self) -> usize {
        self.handlers.iter().map(|handler| handler.held.len()).sum()
    }

    pub(super) fn holds(&self, handler: &str, index: u16) -> bool {
        let mut of_name = self.handlers.iter().filter(|found| found.name == handler);
        of_name.any(|found| found.held.contains(&index))
    }
}
