//! `sluicebox state`: what handlers remember of their keys. Looks only.

use super::client::{HostArgs, encoded};
use super::data::{Data, DataArgs, look};
use super::dead::{parse_handler, parse_key};
use super::failure::{Exit, Failure};
use super::output::{Output, grouped, printable};
use crate::config::ShowState;
use crate::handler::HandlerName;
use crate::http::named;
use crate::http::views::{EntryView, StatePage, StateView, shown};
use crate::log::StateQuery;
use crate::message::Key;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// List the keys of a handler that have state
    List(ListArgs),
    /// Show the state of one key, as of the last commit
    Get(GetArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The handler
    #[arg(value_parser = parse_handler)]
    handler: HandlerName,
    /// Only keys that begin with this
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only keys after this one: the next page
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    after: Option<Key>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// The handler
    #[arg(value_parser = parse_handler)]
    handler: HandlerName,
    /// The key
    #[arg(value_parser = parse_key)]
    key: Key,
    /// Only this entry
    entry: Option<String>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(command: &StateCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        StateCommand::List(args) => list(args, output),
        StateCommand::Get(args) => get(args, output),
    }
}

fn list(args: &ListArgs, output: &mut Output) -> Result<Exit, Failure> {
    let ListArgs { handler, prefix, limit, after, .. } = args;
    let mut path = format!("{}?limit={limit}&prefix={}", path_of(handler), encoded(prefix));
    if let Some(after) = after {
        path += &format!("&after={}", encoded(after.as_str()));
    }
    let page: StatePage = look(
        &args.host,
        &args.data,
        |client| client.get_json(&path),
        async |data| {
            shown_of(data, handler).await?;
            let (handler, prefix, after) = (handler.clone(), prefix.clone(), after.clone());
            let query = StateQuery { handler, prefix, after, keys_max: usize::from(*limit) };
            Ok(StatePage::of(&data.log, query).await?)
        },
    )?;
    if output.json {
        output.json(&page)?;
        return Ok(Exit::Done);
    }
    if page.keys.is_empty() {
        output.line("no key has state")?;
        return Ok(Exit::Done);
    }
    let row = |found: &crate::http::views::StateKeyView| {
        vec![grouped(found.entries), grouped(found.bytes), printable(&found.key)]
    };
    output.table(&["ENTRIES", "BYTES", "KEY"], &page.keys.iter().map(row).collect::<Vec<_>>())?;
    if let Some(after) = &page.next_after {
        output.line(format!("more with --after {}", printable(after)))?;
    }
    Ok(Exit::Done)
}

fn get(args: &GetArgs, output: &mut Output) -> Result<Exit, Failure> {
    let GetArgs { handler, key, entry, .. } = args;
    let path = format!("{}/{}", path_of(handler), encoded(key.as_str()));
    let mut state: StateView = look(
        &args.host,
        &args.data,
        |client| client.get_json(&path),
        async |data| {
            let shown = shown_of(data, handler).await?;
            let found = StateView::of(&data.log, handler, key, shown).await?;
            Ok(found.ok_or_else(|| anyhow::anyhow!("key `{key}` of handler `{handler}` has no state"))?)
        },
    )?;
    if let Some(wanted) = entry {
        let names: Vec<String> = state.entries.iter().map(|found| printable(&found.entry)).collect();
        state.entries.retain(|found| found.entry == *wanted);
        if state.entries.is_empty() {
            let error = format!("key `{key}` has no entry `{wanted}`, there is {}", names.join(", "));
            return Err(anyhow::anyhow!(error).into());
        }
    }
    if output.json {
        output.json(&state)?;
        return Ok(Exit::Done);
    }
    if state.shown == ShowState::Sizes {
        output.line("values are not shown (`show_state`, or no settings name the handler)")?;
    }
    match (&state.entries[..], entry) {
        ([found], Some(_)) if state.shown == ShowState::Values => output.line(value_of(found))?,
        (entries, _) => {
            let row = |found: &EntryView| vec![printable(&found.entry), grouped(found.bytes), value_of(found)];
            output.table(&["ENTRY", "BYTES", "VALUE"], &entries.iter().map(row).collect::<Vec<_>>())?;
        }
    }
    Ok(Exit::Done)
}

fn path_of(handler: &HandlerName) -> String {
    format!("/v1/handlers/{}/state", encoded(handler.as_str()))
}

/// A value on one line; bytes that are not text as base64.
fn value_of(found: &EntryView) -> String {
    match (&found.value, &found.value_base64) {
        (Some(text), _) => printable(text),
        (None, Some(base64)) => format!("base64:{base64}"),
        (None, None) => "-".into(),
    }
}

/// What may be shown of a handler that the data knows.
async fn shown_of(data: &Data, handler: &HandlerName) -> Result<ShowState, Failure> {
    let shown = shown(handler, data.show_state(handler)).map_err(anyhow::Error::new)?;
    named::check_handler(&data.log, handler).await?;
    Ok(shown)
}
