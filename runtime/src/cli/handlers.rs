//! `sluicebox handlers`: looks at handlers, and asks things of them.
//!
//! Looks read the data when no host runs; what is asked for needs a host, and is durable when the command returns.

mod show;
mod state;

pub(super) use state::{Source, problems, state_of};

use super::ask::YesArgs;
use super::client::{Client, HostArgs, encoded, needs_host};
use super::data::{DataArgs, look};
use super::dead::{parse_handler, parse_key};
use super::failure::{Exit, Failure};
use super::output::{Output, grouped};
use crate::handler::HandlerName;
use crate::http::views::{HandlerPage, HandlerView};
use crate::message::Key;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum HandlersCommand {
    /// List the handlers that the log knows
    List(ListArgs),
    /// Show one handler: routing, place, module versions, what was asked of it
    Show(show::ShowArgs),
    /// Let a handler, or one key of it, run nothing more; its messages wait
    Pause(KeyArgs),
    /// Let a handler, or one key of it, go on
    Resume(KeyArgs),
    /// Run an earlier version of the module until the file changes
    Rollback(RollbackArgs),
    /// End a rollback: run the module in the file again
    Unpin(HandlerArgs),
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
        HandlersCommand::Pause(args) => order(&args.handler, "pause", &key(args), output),
        HandlersCommand::Resume(args) => order(&args.handler, "resume", &key(args), output),
        HandlersCommand::Rollback(args) => {
            let to = args.digest.as_ref().map_or(json!({}), |digest| json!({ "digest": digest }));
            order(&args.handler, "rollback", &to, output)
        }
        HandlersCommand::Unpin(args) => order(args, "unpin", &json!({}), output),
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
        async |data| Ok((Source::Data, HandlerPage { handlers: HandlerView::all(&data.log).await? })),
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
    let rows: Vec<Vec<String>> = page
        .handlers
        .iter()
        .map(|handler| {
            let HandlerView { behind, open, delayed, dead, running, .. } = handler;
            let runs = running.as_ref().map_or("-".into(), |own| format!("{}/{}", own.running, own.concurrency));
            let digest = running.as_ref().and_then(|own| own.digest).map_or("-".into(), state::short);
            let numbers = [behind, open, delayed, dead].map(|number| number.to_string());
            let first = [handler.name.clone(), state_of(handler, source)];
            first.into_iter().chain(numbers).chain([runs, digest, handler.subscribe.join(" ")]).collect()
        })
        .collect();
    let heading = ["HANDLER", "STATE", "BEHIND", "OPEN", "DELAYED", "DEAD", "RUNS", "MODULE", "SUBSCRIBES"];
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
