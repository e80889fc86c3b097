//! `sluicebox backup`: a copy of the data, also while a host works on it.

use super::data;
use super::failure::{Exit, Failure};
use super::output::{Output, grouped};
use crate::clock;
use crate::config;
use crate::log::embedded::EmbeddedLog;
use crate::service::versions;
use clap::Args;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;

/// Copy the data to a directory, also while a host works on it.
///
/// The copy is the log as it was at one moment, with the state and position of every handler at that moment and the
/// earlier versions of their modules. Start a host on it (`sluicebox run --data TO`) and it goes on from there. It is a
/// whole copy or none; a directory TO.partial is one that was killed, and may be deleted.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The directory to make; it must not exist or be empty
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// The settings file, which says where the data is
    #[arg(long, short, value_name = "FILE", env = "SLUICEBOX_CONFIG", default_value = config::FILE_NAME)]
    config: PathBuf,
    /// The data directory, instead of the one in the settings file
    #[arg(long, value_name = "DIR", env = "SLUICEBOX_DATA")]
    data: Option<PathBuf>,
}

pub(super) fn run(args: &BackupArgs, output: &mut Output) -> Result<Exit, Failure> {
    let (directory, own) = data::of_settings(&args.config, args.data.as_deref())?;
    let started = clock::instant();
    let bar = bar();
    let copied = EmbeddedLog::backup(&directory, &versions(&own), &args.to, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    let took = started.elapsed();
    let (to, bytes, end) = (args.to.display(), copied.bytes, copied.end);
    match output.json {
        true => output.json(&json!({
            "from": directory,
            "to": args.to,
            "bytes": bytes,
            "end": end.0,
            "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }))?,
        false => {
            let seconds = took.as_secs_f64();
            output.line(format!("copied to {to} in {seconds:.1} s: {} bytes, up to message {end}", grouped(bytes)))?;
        }
    }
    Ok(Exit::Done)
}

/// Only a terminal sees it.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0).with_finish(ProgressFinish::AndClear);
    match ProgressStyle::with_template("{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        // Only a template with a mistake is refused; the progress then looks plain.
        Err(_) => bar,
    }
}
