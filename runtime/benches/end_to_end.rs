//! Question: how many messages per second go through a real handler on the embedded log with fsync, and how near is that
//! to the plain SQLite commit of the same rows? Expected on two cores: a hundred thousand fresh, more warm.
//!
//! `cargo bench --bench end_to_end [-- MESSAGES]`; builds `handlers/` for Wasm first.

use sluicebox::bench::suite::{Plan, measure};
use std::path::Path;
use std::process::Command;

/// As the program has.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let handlers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../handlers");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--package", "order"])
        .current_dir(&handlers)
        .status()?;
    anyhow::ensure!(built.success(), "the handlers in {} do not build", handlers.display());
    let messages = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(300_000);
    let folder = tempfile::tempdir()?;
    let module = handlers.join("target/wasm32-wasip2/release/order.wasm");
    let only = String::new();
    let plan = Plan { module, folder: folder.path().to_owned(), messages, only };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&plan, |line| println!("{line}")))
}
