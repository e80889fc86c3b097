//! `sluicebox bench`: what this machine does, measured end to end.

use super::failure::{Exit, Failure};
use super::output::{Output, note};
use crate::bench::suite::{Plan, measure};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Measure this machine: sandbox calls, throughput and latency on the embedded log with fsync.
///
/// Takes a few minutes. Every throughput stands beside its parts, measured right before and after it.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The compiled `order` handler (`sluicebox build handlers` makes it)
    #[arg(long, value_name = "FILE", default_value = "handlers/order.wasm")]
    module: PathBuf,
    /// Messages in each measurement of throughput
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    messages: u32,
    /// Where to make the logs; they are deleted afterwards. Measure the disk you will use
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Make only the measurements whose name contains this text, such as `warm` or `8 shard(s)`
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

pub(super) fn run(args: &BenchArgs, output: &mut Output) -> Result<Exit, Failure> {
    // Its own folder, so that whatever happens only what was made here is deleted.
    let folder = args.folder.join(format!("sluicebox-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let plan = Plan {
        module: args.module.clone(),
        folder: folder.clone(),
        messages: args.messages as usize,
        only: args.only.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut broken = None;
    let measured = runtime.block_on(measure(&plan, |line| {
        let shown = if output.json { output.json(&json!({ "line": line })) } else { output.line(line) };
        broken = broken.take().or(shown.err());
    }));
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        note(format!("failed to remove {}: {error}", folder.display()));
    }
    measured?;
    match broken {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}
