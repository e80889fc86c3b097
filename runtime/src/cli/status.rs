//! `sluicebox status`: the log and every handler's place in it.

use super::client::HostArgs;
use super::data::{DataArgs, look};
use super::failure::{Exit, Failure};
use super::handlers::{COLUMNS, Source, failures, oldest_cell, problems, state_of, waiting_cell};
use super::output::{Output, printable};
use crate::clock::{self, Timestamp};
use crate::http::views::{HandlerView, StatusView};
use clap::Args;

/// Show the log and every handler's place in it.
#[derive(Debug, Args)]
#[command(after_help = COLUMNS)]
pub struct StatusArgs {
    /// Show every shard
    #[arg(long)]
    shards: bool,
    /// Say in full what the log guarantees, and why
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &StatusArgs, output: &mut Output) -> Result<Exit, Failure> {
    let (source, status): (Source, StatusView) = look(
        &args.host,
        &args.data,
        |client| Ok((Source::Host, client.get_json("/v1/status")?)),
        async |data| {
            let not_ready = Some(data.not_asked.clone());
            Ok((Source::Data, StatusView::of(&data.log, data.namespace.as_deref(), not_ready, None).await?))
        },
    )?;
    if output.json {
        output.json(&status)?;
        return Ok(Exit::Done);
    }
    let StatusView { version, namespace, log, not_ready, notices, handlers } = &status;
    let ready = not_ready.as_ref().map_or("ready".into(), |reason| format!("not ready: {}", printable(reason)));
    let namespace = namespace.as_ref().map_or(String::new(), |namespace| format!("namespace {namespace}, "));
    output.line(format!("sluicebox {version}, {namespace}{ready}"))?;
    let bytes = match (log.bytes, log.bytes_max) {
        (Some(bytes), Some(max)) => format!(", {} of at most {}", size(bytes), size(max)),
        (Some(bytes), None) => format!(", {}", size(bytes)),
        (None, _) => String::new(),
    };
    output.line(format!("log: {}, last offset {}{bytes}", log.kind, log.end))?;
    if let Some(full) = &log.full {
        output.line(format!("log is full: {}", printable(full)))?;
    }
    // A host of an earlier version has no short one.
    let guarantee = match args.verbose || log.guarantee_short.is_empty() {
        true => &log.guarantee,
        false => &log.guarantee_short,
    };
    output.line(format!("guarantee: {}", printable(guarantee)))?;
    notices.iter().try_for_each(|notice| output.line(format!("look: {}", printable(notice))))?;
    if handlers.is_empty() {
        output.line("no handlers")?;
        return Ok(Exit::Done);
    }
    output.line("")?;
    let now = clock::now();
    let heading =
        ["HANDLER", "STATE", "WAITING", "OLDEST", "READ", "OPEN", "DELAYED", "DEAD", "MARKS", "SHARDS", "SUBSCRIBES"];
    let rows: Vec<Vec<String>> = handlers.iter().flat_map(|handler| rows(handler, source, args.shards, now)).collect();
    output.table(&heading, &rows)?;
    failures(handlers).try_for_each(|failure| output.line(failure))?;
    problems(handlers).try_for_each(|problem| output.line(problem))?;
    Ok(Exit::Done)
}

fn rows(handler: &HandlerView, source: Source, with_shards: bool, now: Timestamp) -> Vec<Vec<String>> {
    let row = |first: [String; 4], read: Option<u64>, numbers: [u64; 4], last: [String; 2]| {
        let read = read.map_or("-".into(), |read| read.to_string());
        let numbers = numbers.iter().map(u64::to_string);
        first.into_iter().chain([read]).chain(numbers).chain(last).collect::<Vec<_>>()
    };
    let HandlerView { waiting, open, delayed, dead, marks, .. } = handler;
    // The place of the handler is that of its slowest shard.
    let slowest = handler.shards.iter().map(|shard| shard.read).min();
    let waits = (waiting_cell(waiting.as_ref()), oldest_cell(waiting.as_ref(), now));
    let mut rows = vec![row(
        [handler.name.clone(), state_of(handler, source), waits.0, waits.1],
        slowest,
        [*open, *delayed, *dead, *marks],
        [handler.shards.len().to_string(), handler.subscribe.join(" ")],
    )];
    if with_shards {
        rows.extend(handler.shards.iter().map(|shard| {
            let paused = if shard.control.paused { "paused" } else { "" };
            let first = [format!("  /{}", shard.index), paused.into(), String::new(), String::new()];
            let numbers = [shard.open, shard.delayed, shard.dead, shard.marks];
            // Where there is one host only nobody asks who works on it.
            let last = shard.host.as_ref().map(|host| {
                [format!("term {}", shard.term), format!("on {} ({})", printable(&host.name), printable(&host.id))]
            });
            row(first, Some(shard.read), numbers, last.unwrap_or_default())
        }));
    }
    rows
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..10_737_418_240 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}
