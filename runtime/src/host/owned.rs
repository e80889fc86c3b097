//! Which shards a host works on.

use crate::handler::{HandlerName, ShardId};
use std::collections::BTreeSet;

/// The shards that are a host's own. Several hosts on one log have sets without a common member; should two claim one
/// shard all the same, the log fences one of them out, and nothing is done twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Owned {
    /// Of every handler all: the only host.
    #[default]
    All,
    /// These; ones that no handler has count for nothing.
    Only(BTreeSet<ShardId>),
}

impl Owned {
    /// Not one.
    pub fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// The indices of the shards of one handler, which has `shards`.
    pub(super) fn of(&self, handler: &HandlerName, shards: u16) -> BTreeSet<u16> {
        match self {
            Self::All => (0..shards).collect(),
            Self::Only(set) => {
                let of_handler = set.iter().filter(|shard| shard.handler == *handler);
                of_handler.map(|shard| shard.index).filter(|index| *index < shards).collect()
            }
        }
    }
}
