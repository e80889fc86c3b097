//! `sluicebox dead`: messages that were given up.
//!
//! Looks read the data when no host runs; orders need a host.

mod filter;
mod order;

pub(super) use filter::{parse_handler, parse_key, parse_pattern};

use super::client::HostArgs;
use super::data::{DataArgs, look};
use super::failure::{Exit, Failure};
use super::output::{Output, grouped, printable};
use super::tail::line_of;
use crate::http::named;
use crate::http::views::{DeadCountView, DeadLetterView, DeadPage};
use crate::log::Log as _;
use clap::{Args, Subcommand};
use filter::{FilterArgs, parse_number, query_of};

/// Characters of an error that the list shows.
const ERROR_CHARS_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List dead letters, newest first
    List(ListArgs),
    /// Show one dead letter and its message
    Show(ShowArgs),
    /// Count dead letters
    Count(CountArgs),
    /// Hand dead letters back to their handler, at the end of their keys' queues, attempts reset
    Retry(order::RetryArgs),
    /// Delete dead letters
    Drop(order::OrderArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those numbered below this one: the next page
    #[arg(long, value_name = "NUMBER")]
    below: Option<u64>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Its number in the list
    #[arg(value_parser = parse_number)]
    number: u64,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct CountArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(command: &DeadCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        DeadCommand::List(args) => list(args, output),
        DeadCommand::Show(args) => show(args, output),
        DeadCommand::Count(args) => count(args, output),
        DeadCommand::Retry(args) => order::retry(args, output),
        DeadCommand::Drop(args) => order::drop(args, output),
    }
}

fn list(args: &ListArgs, output: &mut Output) -> Result<Exit, Failure> {
    let filter = args.filter.filter();
    let mut path = format!("/v1/dead?limit={}&{}", args.limit, query_of(&filter));
    if let Some(below) = args.below {
        path += &format!("&below={below}");
    }
    let page: DeadPage = look(
        &args.host,
        &args.data,
        |client| client.get_json(&path),
        async |data| {
            named::check(&data.log, &filter).await?;
            Ok(DeadPage::of(&data.log, filter.clone(), args.below, usize::from(args.limit)).await?)
        },
    )?;
    if output.json {
        output.json(&page)?;
    } else {
        show_page(&page, output)?;
    }
    Ok(Exit::Done)
}

fn show_page(page: &DeadPage, output: &mut Output) -> Result<(), Failure> {
    if page.letters.is_empty() {
        output.line("no dead letters")?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = page
        .letters
        .iter()
        .map(|letter| {
            let error: String = printable(&letter.error).chars().take(ERROR_CHARS_MAX).collect();
            let DeadLetterView { number, time, handler, kind, attempts, deaths, message, .. } = letter;
            let numbers = [number.to_string(), time.clone(), handler.clone(), message.topic.clone()];
            let rest = [message.offset.to_string(), kind.clone(), attempts.to_string(), deaths.to_string(), error];
            numbers.into_iter().chain(rest).collect()
        })
        .collect();
    output.table(&["NUMBER", "TIME", "HANDLER", "TOPIC", "OFFSET", "KIND", "ATTEMPTS", "DEATHS", "ERROR"], &rows)?;
    if let Some(below) = page.next_below {
        output.line(format!("more with --below {below}"))?;
    }
    Ok(())
}

fn show(args: &ShowArgs, output: &mut Output) -> Result<Exit, Failure> {
    let letter: DeadLetterView = look(
        &args.host,
        &args.data,
        |client| client.get_json(&format!("/v1/dead/{}", args.number)),
        async |data| match DeadLetterView::find(&data.log, args.number).await? {
            Some(letter) => Ok(letter),
            None => Err(anyhow::anyhow!("there is no dead letter {}", args.number).into()),
        },
    )?;
    if output.json {
        output.json(&letter)?;
        return Ok(Exit::Done);
    }
    let DeadLetterView { number, handler, shard, kind, error, attempts, time, key, digest, message, .. } = &letter;
    let DeadLetterView { deaths, first_offset, first_time, returns, .. } = &letter;
    output.line(format!("dead letter {number} of {handler}, shard {shard}"))?;
    output.line(format!("given up  {time} after {attempts} attempts"))?;
    output.line(format!("error     {kind}: {}", printable(error)))?;
    if *deaths > 1 {
        output.line(format!("deaths    {deaths} in all, the first {first_time} at offset {first_offset}"))?;
        output.line(format!("returns   {returns}"))?;
    }
    if let Some(key) = key {
        output.line(format!("key       {}", printable(key)))?;
    }
    if let Some(digest) = digest {
        output.line(format!("module    {digest}"))?;
    }
    output.line(format!("message   {}", line_of(message)))?;
    Ok(Exit::Done)
}

fn count(args: &CountArgs, output: &mut Output) -> Result<Exit, Failure> {
    let filter = args.filter.filter();
    let count: DeadCountView = look(
        &args.host,
        &args.data,
        |client| client.get_json(&format!("/v1/dead/count?{}", query_of(&filter))),
        async |data| {
            named::check(&data.log, &filter).await?;
            Ok(data.log.dead_count(filter.clone()).await?.into())
        },
    )?;
    match output.json {
        true => output.json(&count)?,
        false => output.line(grouped(count.letters))?,
    }
    Ok(Exit::Done)
}
