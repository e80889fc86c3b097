//! `sluicebox status`: the log and every handler's place in it.

use super::client::HostArgs;
use super::data::{DataArgs, look};
use super::failure::{Exit, Failure};
use super::handlers::{Source, problems, state_of};
use super::output::{Output, printable};
use crate::http::views::{HandlerView, StatusView};
use clap::Args;

/// Show the log and every handler's place in it.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show every shard
    #[arg(long)]
    shards: bool,
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
            Ok((Source::Data, StatusView::of(&data.log, data.namespace.as_deref(), not_ready).await?))
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
    output.line(format!("log: {}, last offset {}", log.kind, log.end))?;
    output.line(format!("guarantee: {}", printable(&log.guarantee)))?;
    notices.iter().try_for_each(|notice| output.line(format!("look: {}", printable(notice))))?;
    if handlers.is_empty() {
        output.line("no handlers")?;
        return Ok(Exit::Done);
    }
    output.line("")?;
    let heading = ["HANDLER", "STATE", "READ", "BEHIND", "OPEN", "DELAYED", "DEAD", "MARKS", "SHARDS", "SUBSCRIBES"];
    let rows: Vec<Vec<String>> = handlers.iter().flat_map(|handler| rows(handler, source, args.shards)).collect();
    output.table(&heading, &rows)?;
    problems(handlers).try_for_each(|problem| output.line(problem))?;
    Ok(Exit::Done)
}

fn rows(handler: &HandlerView, source: Source, with_shards: bool) -> Vec<Vec<String>> {
    let row = |name: [String; 2], read: Option<u64>, numbers: [u64; 5], shards: String, subscribes: String| {
        let read = read.map_or("-".into(), |read| read.to_string());
        let numbers = numbers.iter().map(u64::to_string);
        let [name, state] = name;
        [name, state, read].into_iter().chain(numbers).chain([shards, subscribes]).collect::<Vec<_>>()
    };
    let subscribes = handler.subscribe.join(" ");
    let HandlerView { behind, open, delayed, dead, marks, .. } = *handler;
    // The place of the handler is that of its slowest shard.
    let slowest = handler.shards.iter().map(|shard| shard.read).min();
    let numbers = [behind, open, delayed, dead, marks];
    let mut rows = vec![row(
        [handler.name.clone(), state_of(handler, source)],
        slowest,
        numbers,
        handler.shards.len().to_string(),
        subscribes,
    )];
    if with_shards {
        rows.extend(handler.shards.iter().map(|shard| {
            let numbers = [shard.behind, shard.open, shard.delayed, shard.dead, shard.marks];
            let paused = if shard.control.paused { "paused" } else { "" };
            row([format!("  /{}", shard.index), paused.into()], Some(shard.read), numbers, String::new(), String::new())
        }));
    }
    rows
}
