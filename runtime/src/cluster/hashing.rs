//! The draw by which hosts agree on who works on a shard without asking each other: every host computes the same numbers.

use crate::handler::HandlerName;
use crate::log::HostId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A host's draws for the shards of one handler.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    host: HostId,
    seed: u64,
}

impl Draw {
    pub(super) fn of(host: HostId, handler: &HandlerName) -> Self {
        Self { host, seed: xxh3_64_with_seed(handler.as_str().as_bytes(), host.0) }
    }

    /// The highest one has the shard. That two are equal is as good as impossible, and then the id decides.
    pub(super) fn for_shard(self, index: u16) -> (u64, HostId) {
        (xxh3_64_with_seed(&index.to_le_bytes(), self.seed), self.host)
    }
}

/// A handler with its number of shards.
pub(super) fn of_handler(handler: &HandlerName, shards: u16) -> u64 {
    xxh3_64_with_seed(handler.as_str().as_bytes(), u64::from(shards))
}

/// Whether this host has the highest draw for something that has a name and is done once.
pub(super) fn draws_highest(me: HostId, others: impl IntoIterator<Item = HostId>, name: &str) -> bool {
    let draw = |host: HostId| (xxh3_64_with_seed(name.as_bytes(), host.0), host);
    others.into_iter().all(|other| draw(other) <= draw(me))
}
