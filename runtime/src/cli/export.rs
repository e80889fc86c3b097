//! `sluicebox export`: a whole log into a file, to be imported elsewhere.

use super::failure::{Exit, Failure};
use super::output::{Output, grouped, note};
use super::settings::SettingsArgs;
use crate::clock;
use crate::config::{LogSettings, Settings};
use crate::log::portable::{Counts, End, file};
use crate::message::Offset;
use crate::moving::Source;
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// For what goes through a pipe.
pub(super) const STANDARD: &str = "-";

/// Write the whole log to a file, while no host runs, to move it to another place or another kind of log.
///
/// Messages, subscriptions, deployed modules, and of every handler its place, its open and delayed messages, the ids that
/// it remembers, its state and its dead letters. `sluicebox import` restores it where other settings say, and a host goes
/// on there. Start none on the old log afterwards: both would do the same work.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to make, or - for standard output
    #[arg(value_name = "FILE")]
    to: PathBuf,
    /// Leave out messages before this offset that no handler needs any more
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(args: &ExportArgs, output: &mut Output) -> Result<Exit, Failure> {
    let loaded = args.settings.load()?;
    let is_pipe = args.to == Path::new(STANDARD);
    if is_pipe && output.json {
        return Err(Failure::usage("standard output is the file here, so it cannot be JSON: name a file"));
    }
    if !is_pipe && args.to.exists() {
        return Err(Failure::usage(format!("`{}` exists: name a file that does not", args.to.display())));
    }
    let started = clock::instant();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    say_lease(&loaded.settings);
    let source = runtime.block_on(Source::open(&loaded.settings))?;
    let write = |to: &mut (dyn Write + Send)| -> Result<(u64, End), Failure> {
        let mut writer = file::Writer::begin(to).context("failed to write the file")?;
        let bar = bar("{bytes}, {bytes_per_sec}");
        let end = runtime.block_on(source.export(Offset(args.from), &mut |piece| {
            writer.write(&piece)?;
            bar.set_position(writer.bytes());
            Ok(())
        }))?;
        let (_, end, bytes) = writer.finish(end).context("failed to write the file")?;
        bar.finish_and_clear();
        Ok((bytes, end))
    };
    let (bytes, end) = match is_pipe {
        true => write(&mut BufWriter::with_capacity(1 << 20, io::stdout()))?,
        false => whole(&args.to, write)?,
    };
    // What the log still has to write.
    drop(source);
    let took = started.elapsed();
    if output.json {
        output.json(&json!({
            "file": args.to,
            "bytes": bytes,
            "end": end.end.0,
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "counts": counted(&end.counts),
        }))?;
        return Ok(Exit::Done);
    }
    let (seconds, told) = (took.as_secs_f64(), told(&end));
    let line = format!("exported in {seconds:.1} s, {} bytes: {told}", grouped(bytes));
    match is_pipe {
        true => note(line),
        false => output.line(line)?,
    }
    note("start no host on this log any more: what it did from here on would not be in the file");
    Ok(Exit::Done)
}

/// Why nothing is seen to happen for a while.
pub(super) fn say_lease(settings: &Settings) {
    if !matches!(settings.log, LogSettings::Embedded { .. }) {
        note(format!("listening for {:?} whether a host works on the log", settings.host.lease));
    }
}

/// A file of this name is a whole one: it is written under another, and goes with a failure.
fn whole<T>(to: &Path, write: impl FnOnce(&mut (dyn Write + Send)) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut partial: OsString = to.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |what: &str| format!("failed to {what} `{}`", partial.display());
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial).with_context(|| failed("make"))?);
    let done = write(&mut file).and_then(|written| {
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(|| failed("write"))?;
        file.sync_all().with_context(|| failed("sync"))?;
        fs::rename(&partial, to).with_context(|| failed("rename"))?;
        Ok(written)
    });
    if done.is_err() {
        // The error is what matters.
        let _ = fs::remove_file(&partial);
    }
    done
}

/// What is in it, for people.
pub(super) fn told(end: &End) -> String {
    let Counts { messages, shards, heads, marks, delayed, keys, letters, modules, .. } = end.counts;
    let [messages, shards, heads, marks, delayed, keys, letters, modules] =
        [messages, shards, heads, marks, delayed, keys, letters, modules].map(grouped);
    format!(
        "messages {messages} (up to {}), shards {shards}, open {heads}, delayed {delayed}, remembered ids {marks}, keys with \
         state {keys}, dead letters {letters}, modules {modules}",
        end.end
    )
}

/// What is in it, for programs.
pub(super) fn counted(counts: &Counts) -> Value {
    let Counts { routings, modules, shards, heads, marks, delayed, keys, letters, messages } = *counts;
    json!({
        "messages": messages,
        "handlers": routings,
        "shards": shards,
        "open": heads,
        "delayed": delayed,
        "ids": marks,
        "keys": keys,
        "dead": letters,
        "modules": modules,
    })
}

/// Only a terminal sees it.
pub(super) fn bar(template: &str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_finish(ProgressFinish::AndClear);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // Only a template with a mistake is refused; the progress then looks plain.
        Err(_) => bar,
    }
}
