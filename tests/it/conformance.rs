//! What every kind of log promises, as one suite that runs on each of them.
//!
//! A kind is a line in `on_every_kind!`, and in `harness/logs.rs` a function that makes a fresh log and an entry in
//! `KINDS`. Where kinds may differ the suite asks what the log says of itself in `Guarantees`, never what it is called.

/// Runs each claim on a fresh log of every kind.
macro_rules! on_every_kind {
    ($(async fn $claim:ident($log:ident) $body:block)*) => {$(
        pub mod $claim {
            use super::*;

            pub async fn holds($log: std::sync::Arc<dyn sluicebox::log::Log>) $body

            on_every_kind!(@on memory);
            on_every_kind!(@on embedded);
            on_every_kind!(@on nats);
            on_every_kind!(@on redis);
        }
    )*};
    (@on $kind:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $kind() {
            let fresh = $crate::harness::logs::$kind();
            let held = tokio::time::timeout($crate::harness::PATIENCE, holds(fresh.log.clone())).await;
            held.expect("it hangs");
        }
    };
}

use futures_util::future::join_all;
use sluicebox::commit::{CommitError, Committed, ShardCommit};
use sluicebox::log::Log;

/// Hands these commits over in this order before any of them is answered, so that a kind may merge them; the answers are
/// in the same order.
async fn commit_at_once(log: &dyn Log, commits: Vec<ShardCommit>) -> Vec<Result<Committed, CommitError>> {
    join_all(commits.into_iter().map(|commit| log.commit(commit))).await
}

pub mod append;
pub mod commit;
pub mod dead;
mod disk;
mod embedded;
pub mod forget;
mod full;
mod guarantees;
mod inspect;
mod kill;
mod members;
mod migration;
mod modules;
mod moved;
mod nats;
mod numbered;
mod power;
pub mod read;
pub mod record;
mod redated;
mod redis;
mod replicated;
pub mod reroute;
pub mod routings;
pub mod tail;
mod topics;
pub mod trim;
