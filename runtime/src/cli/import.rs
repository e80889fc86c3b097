//! `sluicebox import`: restores an exported log where the settings say.

use super::export::{STANDARD, bar, counted, say_lease, told};
use super::failure::{Exit, Failure};
use super::output::{Output, grouped};
use super::settings::SettingsArgs;
use crate::clock;
use crate::log::portable::{End, Piece, file};
use crate::moving;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Restore an exported log into the place that the settings name, which must have no log.
///
/// Nothing is there before all of it is: a file that is damaged or cut short, or an import that is interrupted, leaves no
/// log, and the next import begins anew. Whatever kind of log it was, messages keep their offsets, and hosts go on where
/// the others stopped.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file that `sluicebox export` made, or - for standard input
    #[arg(value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(args: &ImportArgs, output: &mut Output) -> Result<Exit, Failure> {
    let loaded = args.settings.load()?;
    let named = || format!("failed to import `{}`", args.from.display());
    let (from, length): (Box<dyn Read>, u64) = match args.from == Path::new(STANDARD) {
        true => (Box::new(io::stdin().lock()), 0),
        false => {
            let file = File::open(&args.from).with_context(named)?;
            let length = file.metadata().with_context(named)?.len();
            (Box::new(BufReader::with_capacity(1 << 20, file)), length)
        }
    };
    // Before anything is made for what is no export.
    let mut reader = file::Reader::begin(from).with_context(named)?;
    let started = clock::instant();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    say_lease(&loaded.settings);
    let mut restore = runtime.block_on(moving::destination(&loaded.settings))?;
    let bar = bar(if length > 0 {
        "{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left"
    } else {
        "{bytes}, {bytes_per_sec}"
    });
    bar.set_length(length);
    let end: End = loop {
        match reader.read().with_context(named)? {
            Some(Piece::End(end)) => break end,
            Some(piece) => runtime.block_on(restore.take(piece)).with_context(named)?,
            None => return Err(anyhow!("the file has no end").context(named()).into()),
        }
        bar.set_position(reader.bytes());
    };
    runtime.block_on(restore.finish(end)).with_context(named)?;
    bar.finish_and_clear();
    let took = started.elapsed();
    match output.json {
        true => output.json(&json!({
            "file": args.from,
            "bytes": reader.bytes(),
            "end": end.end.0,
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "counts": counted(&end.counts),
        }))?,
        false => {
            let (seconds, bytes, told) = (took.as_secs_f64(), grouped(reader.bytes()), told(&end));
            output.line(format!("imported in {seconds:.1} s, {bytes} bytes: {told}"))?;
        }
    }
    Ok(Exit::Done)
}
