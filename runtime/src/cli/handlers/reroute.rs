//! `sluicebox handlers reroute`: moves what a handler has along with a changed `key`, `id` or `shards`, while no host runs.

use crate::cli::ask::YesArgs;
use crate::cli::dead::parse_handler;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Output, grouped, note};
use crate::cli::settings::SettingsArgs;
use crate::config::LogSettings;
use crate::handler::HandlerName;
use crate::log::embedded::{EmbeddedLog, Options};
use crate::reroute::{self, Plan, Summary, Wanted};
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;
use std::path::Path;

/// Take a changed `key`, `id` or `shards` of a handler over into the log, with all that the handler has.
///
/// Works while no host runs on the data. Open and delayed messages, dead letters and the ids that are remembered move to the
/// shards where they belong now; all of it or, when something cannot be moved, nothing. State belongs to keys and stays.
#[derive(Debug, Args)]
pub struct RerouteArgs {
    /// The handler
    #[arg(value_parser = parse_handler)]
    name: HandlerName,
    /// Say what would move, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// With another key: leave the state under the old keys, where the handler no longer sees it
    #[arg(long)]
    keep_state: bool,
    #[command(flatten)]
    yes: YesArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

pub(super) fn run(args: &RerouteArgs, output: &mut Output) -> Result<Exit, Failure> {
    if args.name.is_reserved() {
        let error = format!("`{}` is the host's own handler: its routing is the same in every log", args.name);
        return Err(Failure::usage(error));
    }
    let loaded = args.settings.load()?;
    let LogSettings::Embedded { path, .. } = &loaded.settings.log else {
        return Err(Failure::usage(
            "handlers of a log on servers cannot be rerouted by this version: it must be of kind \"embedded\"",
        ));
    };
    let handler = loaded.settings.handlers.iter().find(|handler| handler.name == args.name).ok_or_else(|| {
        let file = args.settings.config.display();
        anyhow!("`{file}` has no handler `{}`: what it is to be routed by is said there", args.name)
    })?;
    let wanted = Wanted {
        handler: handler.name.clone(),
        key: handler.key.clone(),
        id: handler.id.clone(),
        shards: handler.shards,
        // Without dedup they are of no use now, and may be later.
        marks_max: handler.policy.dedup.clone().unwrap_or_default().marks_max,
        keep_state: args.keep_state,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let log = open(path)?;
    let Some(plan) = runtime.block_on(reroute::plan(&log, &wanted))? else {
        let name = &args.name;
        match output.json {
            true => output.json(&json!({ "handler": name.as_str(), "rerouted": false, "changes": [] }))?,
            false => output.line(format!("{name}: the log has its key, id and shards as the settings say"))?,
        }
        return Ok(Exit::Done);
    };
    let told = describe(&args.name, &plan.summary);
    if args.dry_run {
        return say(args, &plan.summary, false, &format!("{told}: nothing was done"), output);
    }
    if !output.json {
        note(&told);
    }
    if !args.yes.confirm(&format!("reroute {}", args.name))? {
        return Ok(Exit::Failed);
    }
    let Plan { summary, .. } = &plan;
    let summary = summary.clone();
    runtime.block_on(plan.execute(&log)).with_context(|| format!("failed to reroute handler `{}`", args.name))?;
    say(args, &summary, true, &format!("{} is rerouted", args.name), output)
}

/// Opens the log, if there is one that no host works on.
fn open(directory: &Path) -> Result<EmbeddedLog, Failure> {
    if !directory.join("lock").exists() {
        return Err(anyhow!("there is no log in `{}`, so nothing to reroute", directory.display()).into());
    }
    // Nothing of what is written is dated.
    Ok(EmbeddedLog::open(directory, Options::default())
        .context("handlers are rerouted while no host runs: stop it with Ctrl-C or SIGTERM first")?)
}

fn describe(name: &HandlerName, summary: &Summary) -> String {
    let changes: Vec<String> = summary
        .changes
        .iter()
        .map(|change| format!("{} from {} to {}", change.field, change.recorded, change.wanted))
        .collect();
    let Summary { open, delayed, letters, marks, .. } = summary;
    let [open, delayed, letters, marks] = [open, delayed, letters, marks].map(|number| grouped(*number as u64));
    let mut told = format!(
        "{name}: {}; open messages {open}, delayed {delayed}, dead letters {letters}, remembered ids {marks}",
        changes.join(", ")
    );
    if summary.marks_everywhere > 0 {
        told += &format!(
            "; {} ids of messages that are no longer in the log are remembered by each of the {} shards",
            grouped(summary.marks_everywhere as u64),
            summary.shards
        );
    }
    if summary.marks_lost > 0 {
        told += &format!(
            "; {} ids of messages that are no longer in the log are forgotten: sent again, they are handled again",
            grouped(summary.marks_lost as u64)
        );
    }
    if summary.state_keys > 0 {
        told += &format!("; the state {} stays behind", reroute::of_keys(summary.state_keys));
    }
    told
}

fn say(
    args: &RerouteArgs,
    summary: &Summary,
    rerouted: bool,
    told: &str,
    output: &mut Output,
) -> Result<Exit, Failure> {
    if !output.json {
        output.line(told)?;
        return Ok(Exit::Done);
    }
    let changes: Vec<_> = summary
        .changes
        .iter()
        .map(|change| json!({ "field": change.field, "from": change.recorded, "to": change.wanted }))
        .collect();
    output.json(&json!({
        "handler": args.name.as_str(),
        "rerouted": rerouted,
        "changes": changes,
        "open": summary.open,
        "delayed": summary.delayed,
        "dead": summary.letters,
        "ids": summary.marks,
        "ids_in_every_shard": summary.marks_everywhere,
        "ids_forgotten": summary.marks_lost,
        "state_keys_left": summary.state_keys,
    }))?;
    Ok(Exit::Done)
}
