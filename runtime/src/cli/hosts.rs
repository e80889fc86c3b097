//! `sluicebox hosts`: who works on the log.

use super::client::{Client, HostArgs};
use super::failure::{Exit, Failure};
use super::output::{Output, printable};
use crate::http::views::{HostPage, HostView};
use clap::Args;
use std::time::Duration;

/// Show the hosts that work on the log, as one of them hears them.
#[derive(Debug, Args)]
#[command(after_help = COLUMNS)]
pub struct HostsArgs {
    #[command(flatten)]
    host: HostArgs,
}

const COLUMNS: &str = "\
Columns:
  ID       of the host's process; * is the host that was asked
  STATE    live; joining: it listens before it takes any shard; leaving; silent: it was not heard for
           a lease, and others have its shards
  SHARDS   how many it holds, of all handlers
  HEARD    how long ago it was heard
  SINCE    when its process started, by its own clock";

pub(super) fn run(args: &HostsArgs, output: &mut Output) -> Result<Exit, Failure> {
    let page: HostPage = Client::new(&args.host)?.get_json("/v1/hosts")?;
    if output.json {
        output.json(&page)?;
        return Ok(Exit::Done);
    }
    if page.hosts.is_empty() {
        output.line("one host: its log can have no other")?;
        return Ok(Exit::Done);
    }
    let heading = ["NAME", "ID", "STATE", "SHARDS", "ADDRESS", "VERSION", "HEARD", "SINCE"];
    output.table(&heading, &page.hosts.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Done)
}

fn row(host: &HostView) -> Vec<String> {
    let mark = if host.is_this { "*" } else { "" };
    let heard = Duration::from_millis(host.silent_ms);
    vec![
        printable(&host.name),
        format!("{}{mark}", printable(&host.id)),
        printable(&host.state),
        host.held().to_string(),
        printable(&host.address),
        printable(&host.version),
        format!("{:.1}s ago", heard.as_secs_f64()),
        printable(&host.since),
    ]
}
