//! What every kind of log promises, as one suite that runs on each of them.
//!
//! A kind is a line in `on_every_kind!` and a function in `harness/logs.rs` that makes a fresh log.

/// Runs each claim on a fresh log of every kind.
macro_rules! on_every_kind {
    ($(async fn $claim:ident($log:ident) $body:block)*) => {$(
        mod $claim {
            use super::*;

            async fn holds($log: std::sync::Arc<dyn sluicebox::log::Log>) $body

            on_every_kind!(@on memory);
            on_every_kind!(@on embedded);
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

mod append;
mod commit;
mod dead;
mod disk;
mod embedded;
mod forget;
mod kill;
mod migration;
mod read;
mod record;
mod routings;
mod tail;
mod trim;
