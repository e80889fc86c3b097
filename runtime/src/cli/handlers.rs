//! `sluicebox handlers`: looks at handlers, and asks things of them.
//!
//! Looks read the data when no host runs; what is asked for needs a host, and is durable when the command returns. Only
//! `reroute` needs that none runs.

mod reroute;
mod show;
mod state;
mod waiting;

pub(super) use state::{Source, failures, oldest_cell, problems, state_of, waiting_cell};

use super::ask::YesArgs;
use super::client::{Client, HostArgs, encoded, needs_host};
use super::data::{DataArgs, look};
use super::dead::{parse_handler, parse_key};
use super::failure::{Exit, Failure};
use super::output::{Output, grouped};
use crate::clock;
use crate::handler::HandlerName;
use crate::http::views::{HandlerPage, HandlerView};
use crate::message::Key;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// What stands above the columns, for `--help`.
pub(super) const COLUMNS: &str = "\
Columns:
  WAITING  messages of the handler that are not settled: open, behind an open one of their key,
           or not taken up yet; >= where counting reached its bound, ? where it found none before
  OLDEST   for how long the oldest of them is in the log
  OPEN     messages that were taken up and are not settled, one for each key; `handlers waiting`
           lists them
  DELAYED  messages that runs published for later; the host's own handler, _delay, is listed while
           it has such of publishers
  DEAD     messages that were given up; `sluicebox dead list` shows them
  READ     the offset up to which messages were taken up; what is open is before it
  MARKS    ids that are remembered so that a message is not handled twice";

#[derive(Debug, Subcommand)]
pub enum HandlersCommand {
    /// List the handlers that the log knows
    #[command(after_help = COLUMNS)]
    List(ListArgs),
    /// Show one handler: routing, place, module versions, what was asked of it
    #[command(after_help = COLUMNS)]
    Show(show::ShowArgs),
    /// Show which messages of a handler wait, and why
    Waiting(waiting::WaitingArgs),
    /// Try at once what failed and waits for its retry; attempts stay as they are
    RetryNow(RetryNowArgs),
    /// Delete a delayed message before it is due
    Cancel(CancelArgs),
    /// Let a handler, or one key of it, run nothing more; its messages wait
    Pause(KeyArgs),
    /// Let a handler, or one key of it, go on
    Resume(KeyArgs),
    /// Run an earlier version of the module: one that was deployed on every host, another until the file changes
    Rollback(RollbackArgs),
    /// End a deploy or a rollback: run the module in the file again
    Unpin(HandlerArgs),
    Reroute(reroute::RerouteArgs),
    /// Delete everything of a handler that no settings name any more
    Forget(ForgetArgs),
    /// Open or close a handler's circuit breaker by hand
    #[command(subcommand)]
    Breaker(BreakerCommand),
}

#[derive(Debug, Subcommand)]
pub enum BreakerCommand {
    /// Open it: messages wait in the log until `reset`
    Trip(HandlerArgs),
    /// Close it
    Reset(HandlerArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct HandlerArgs {
    /// The handler
    #[arg(value_parser = parse_handler)]
    name: HandlerName,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(flatten)]
    handler: HandlerArgs,
    /// Only the messages of this key
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<Key>,
}

#[derive(Debug, Args)]
pub struct RetryNowArgs {
    #[command(flatten)]
    handler: HandlerArgs,
    /// Only what waits under this key
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<Key>,
    /// Only the message at this offset
    #[arg(long, value_name = "OFFSET", conflicts_with = "key")]
    offset: Option<u64>,
}

#[derive(Debug, Args)]
pub struct CancelArgs {
    #[command(flatten)]
    handler: HandlerArgs,
    /// The delayed message, as `handlers waiting` lists it, such as 3/17
    #[arg(value_name = "SHARD/NUMBER", value_parser = parse_delayed)]
    delayed: (u16, u64),
}

fn parse_delayed(text: &str) -> Result<(u16, u64), String> {
    let parts = text.split_once('/').and_then(|(shard, number)| Some((shard.parse().ok()?, number.parse().ok()?)));
    parts.ok_or_else(|| "write what `sluicebox handlers waiting` lists under DELAYED, such as 3/17".into())
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    handler: HandlerArgs,
    /// The first digits of the version's digest; the version before the one in force unless given
    digest: Option<String>,
}

#[derive(Debug, Args)]
pub struct ForgetArgs {
    #[command(flatten)]
    handler: HandlerArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(super) fn run(command: &HandlersCommand, output: &mut Output) -> Result<Exit, Failure> {
    let key = |args: &KeyArgs| args.key.as_ref().map_or(json!({}), |key| json!({ "key": key }));
    match command {
        HandlersCommand::List(args) => list(args, output),
        HandlersCommand::Show(args) => show::run(args, output),
        HandlersCommand::Waiting(args) => waiting::run(args, output),
        HandlersCommand::RetryNow(args) => {
            let which = match (&args.key, args.offset) {
                (Some(key), _) => json!({ "key": key }),
                (None, Some(offset)) => json!({ "offset": offset }),
                (None, None) => json!({}),
            };
            order(&args.handler, "retry-now", &which, output)
        }
        HandlersCommand::Cancel(args) => {
            let (shard, number) = args.delayed;
            order(&args.handler, "cancel", &json!({ "shard": shard, "number": number }), output)
        }
        HandlersCommand::Pause(args) => order(&args.handler, "pause", &key(args), output),
        HandlersCommand::Resume(args) => order(&args.handler, "resume", &key(args), output),
        HandlersCommand::Rollback(args) => {
            let to = args.digest.as_ref().map_or(json!({}), |digest| json!({ "digest": digest }));
            order(&args.handler, "rollback", &to, output)
        }
        HandlersCommand::Unpin(args) => order(args, "unpin", &json!({}), output),
        HandlersCommand::Reroute(args) => reroute::run(args, output),
        HandlersCommand::Forget(args) => forget(args, output),
        HandlersCommand::Breaker(BreakerCommand::Trip(args)) => order(args, "trip", &json!({}), output),
        HandlersCommand::Breaker(BreakerCommand::Reset(args)) => order(args, "reset", &json!({}), output),
    }
}

/// What a host says, or the data when none runs.
fn handlers(host: &HostArgs, data: &DataArgs) -> Result<(Source, HandlerPage), Failure> {
    look(
        host,
        data,
        |client| Ok((Source::Host, client.get_json("/v1/handlers")?)),
        async |data| Ok((Source::Data, HandlerPage::of(HandlerView::all(&data.log, None).await?))),
    )
}

fn list(args: &ListArgs, output: &mut Output) -> Result<Exit, Failure> {
    let (source, page) = handlers(&args.host, &args.data)?;
    if output.json {
        output.json(&page)?;
        return Ok(Exit::Done);
    }
    if page.handlers.is_empty() {
        output.line("no handlers")?;
        return Ok(Exit::Done);
    }
    let now = clock::now();
    let rows: Vec<Vec<String>> = page
        .handlers
        .iter()
        .map(|handler| {
            let HandlerView { waiting, open, delayed, dead, running, .. } = handler;
            let runs = running.as_ref().map_or("-".into(), |own| format!("{}/{}", own.running, own.concurrency));
            let digest = running.as_ref().and_then(|own| own.digest).map_or("-".into(), state::short);
            let numbers = [open, delayed, dead].map(|number| number.to_string());
            let waits = [waiting_cell(waiting.as_ref()), oldest_cell(waiting.as_ref(), now)];
            let first = [handler.name.clone(), state_of(handler, source)].into_iter().chain(waits);
            first.chain(numbers).chain([runs, digest, handler.subscribe.join(" ")]).collect()
        })
        .collect();
    let heading = ["HANDLER", "STATE", "WAITING", "OLDEST", "OPEN", "DELAYED", "DEAD", "RUNS", "MODULE", "SUBSCRIBES"];
    output.table(&heading, &rows)?;
    problems(&page.handlers).try_for_each(|problem| output.line(problem))?;
    Ok(Exit::Done)
}

/// Brings a command into the log.
fn order(args: &HandlerArgs, command: &str, body: &Value, output: &mut Output) -> Result<Exit, Failure> {
    let path = format!("/v1/handlers/{}/{command}", encoded(args.name.as_str()));
    let answer: Value = Client::new(&args.host)?.command(&path, body)?;
    match output.json {
        true => output.json(&answer)?,
        false => {
            let key = body["key"].as_str().map_or(String::new(), |key| format!(" of key {key:?}"));
            output.line(format!("{}: {command}{key} is in the log at offset {}", args.name, answer["offset"]))?;
        }
    }
    Ok(Exit::Done)
}

fn forget(args: &ForgetArgs, output: &mut Output) -> Result<Exit, Failure> {
    let client = Client::new(&args.handler.host)?;
    let name = &args.handler.name;
    let path = format!("/v1/handlers/{}", encoded(name.as_str()));
    let handler: HandlerView = client.get_json(&path).map_err(needs_host)?;
    if handler.running.is_none() {
        let HandlerView { open, delayed, dead, marks, .. } = &handler;
        let [open, delayed, dead, marks] = [open, delayed, dead, marks].map(|number| grouped(*number));
        let what = format!(
            "forget handler {name} with its state, open messages ({open}), delayed messages ({delayed}), dead letters \
             ({dead}) and marks ({marks})"
        );
        if !args.yes.confirm(&what)? {
            return Ok(Exit::Failed);
        }
    }
    // The host refuses one that is in its settings, and says what to do.
    let answer: Value = client.command(&format!("{path}/forget"), &json!({ "confirm": name }))?;
    match output.json {
        true => output.json(&answer)?,
        false => output.line(format!("{name} is forgotten"))?,
    }
    Ok(Exit::Done)
}
