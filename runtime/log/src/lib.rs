//! The log: one contract, several kinds.
//!
//! A log is the totally ordered, durable sequence of messages of one namespace, together with what the shards have made
//! durable. Every kind keeps the same promises; `tests/it/conformance.rs` runs one suite against all of them.

mod contract;
pub mod edges;
pub mod embedded;
mod error;
pub mod frame;
mod inspect;
mod limits;
mod live;
#[cfg(any(feature = "nats", feature = "redis"))]
mod login;
mod members;
pub mod memory;
mod modules;
#[cfg(feature = "nats")]
pub mod nats;
pub mod portable;
mod records;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "nats", feature = "redis"))]
pub mod replicated;
mod rerouting;
mod routings;

pub use contract::{Batch, DeadUsage, Guarantees, Held, Lagged, Log, ReadRequest, Routings, ShardStatus};
pub use contract::{Tail, Trim, Trimmed, Usage, Why};
pub use error::LogError;
pub use inspect::{
    DelayedFacts, DelayedFilter, DelayedPlace, DelayedQuery, HeadFilter, HeadQuery, MessageFacts, OpenHead, StateKey,
    StateQuery,
};
pub use members::{FORGOTTEN_AFTER, Heartbeat, HostId, MEMBERS_MAX, Member, Members, Runs, ShardSet};
pub use modules::{MODULES_MAX, Modules, StoredModule};
pub use rerouting::{MovedLetter, Rerouting};
