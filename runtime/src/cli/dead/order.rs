//! `dead retry` and `dead drop`: shows how many, asks, orders, and waits until the shards have done it.

use super::super::ask::YesArgs;
use super::super::client::{Client, HostArgs};
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, grouped, is_watched, note, show_progress};
use super::filter::{FilterArgs, parse_handler, parse_number, query_of};
use crate::clock;
use crate::commit::DeadFilter;
use crate::handler::HandlerName;
use crate::http::views::{DeadCountView, DeadOrderView};
use clap::Args;
use serde_json::json;
use std::time::Duration;

/// How often it looks whether the shards are done: at first, and at most.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// When nothing moved for this long, someone should look why.
const STALLED: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct OrderArgs {
    /// The numbers of dead letters that are meant, as with --number
    #[arg(value_name = "NUMBER", value_parser = parse_number)]
    these: Vec<u64>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every dead letter there is, or every one that the other flags mean
    #[arg(long)]
    all: bool,
    /// Return when the order is durable, without waiting until it is executed
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    yes: YesArgs,
    #[command(flatten)]
    host: HostArgs,
}

#[derive(Debug, Args)]
pub struct RetryArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Send them to this handler instead of the one that gave them up
    #[arg(long, value_name = "HANDLER", value_parser = parse_handler)]
    to: Option<HandlerName>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Retry,
    Drop,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Retry => "retry",
            Action::Drop => "drop",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Action::Retry => "retried",
            Action::Drop => "dropped",
        }
    }
}

pub(super) fn retry(args: &RetryArgs, output: &mut Output) -> Result<Exit, Failure> {
    run(Action::Retry, &args.order, args.to.as_ref(), output)
}

pub(super) fn drop(args: &OrderArgs, output: &mut Output) -> Result<Exit, Failure> {
    run(Action::Drop, args, None, output)
}

fn run(action: Action, args: &OrderArgs, to: Option<&HandlerName>, output: &mut Output) -> Result<Exit, Failure> {
    let mut filter = args.filter.filter();
    filter.numbers.extend(&args.these);
    filter.numbers.sort_unstable();
    filter.numbers.dedup();
    if !args.all && filter == DeadFilter::default() {
        return Err(Failure::usage(format!(
            "say which dead letters to {}: their numbers, --handler, --shard, --key, --topic, --kind, or --all",
            action.name()
        )));
    }
    let client = Client::new(&args.host)?;
    let path = format!("/v1/dead/{}", action.name());
    let send = |filter: &DeadFilter, query: &str| -> Result<DeadOrderView, Failure> {
        let mut body = json!(filter);
        body["all"] = args.all.into();
        if let Some(to) = to {
            body["to"] = to.as_str().into();
        }
        client.command(&format!("{path}{query}"), &body)
    };
    let counted = send(&filter, "?dry_run=true")?;
    counted.skipped.iter().for_each(|skipped| {
        note(format!("left out: {} of {}: {}", letters(skipped.letters), skipped.handler, skipped.reason));
    });
    if counted.letters == 0 {
        match output.json {
            true => output.json(&counted)?,
            false if filter.numbers.is_empty() => output.line("no dead letters are meant")?,
            false => output.line("no dead letters are meant: `sluicebox dead list` shows their numbers")?,
        }
        return Ok(Exit::Done);
    }
    let named = filter.numbers.len() as u64;
    let missing =
        named.saturating_sub(counted.letters + counted.skipped.iter().map(|skipped| skipped.letters).sum::<u64>());
    if missing > 0 {
        note(format!("{} of {} numbers mean no dead letter", grouped(missing), grouped(named)));
    }
    let target = to.map_or_else(String::new, |to| format!(", to {to}"));
    if !args.yes.confirm(&format!("{} {}{target}", action.name(), describe(&counted)))? {
        return Ok(Exit::Failed);
    }
    // What was shown is what is meant, however long the answer took.
    let order = send(&DeadFilter { upto: Some(counted.upto), ..filter.clone() }, "")?;
    if args.no_wait {
        match output.json {
            true => output.json(&order)?,
            false => output.line(format!("ordered to {} {}{target}", action.name(), describe(&order)))?,
        }
        return Ok(Exit::Done);
    }
    wait(&client, &filter, &order, action)?;
    match output.json {
        true => output.json(&order)?,
        false => output.line(format!("{} {}{target}", action.done(), describe(&order)))?,
    }
    Ok(Exit::Done)
}

/// Waits until none of the letters is left. Whoever stops waiting does not stop the order.
fn wait(client: &Client, filter: &DeadFilter, order: &DeadOrderView, action: Action) -> Result<(), Failure> {
    let mut paths = vec![];
    for handler in &order.handlers {
        let handler = HandlerName::parse(&handler.handler)?;
        let filter = DeadFilter { handler: Some(handler), upto: Some(order.upto), ..filter.clone() };
        paths.push(format!("/v1/dead/count?{}", query_of(&filter)));
    }
    let (watched, mut look) = (is_watched(), LOOK_MIN);
    let (mut before, mut moved, mut warned) = (u64::MAX, clock::instant(), false);
    loop {
        let mut left = 0;
        let mut waiting = vec![];
        for path in paths {
            let count: DeadCountView = client.get_json(&path)?;
            left += count.letters;
            if count.letters > 0 {
                waiting.push(path);
            }
        }
        paths = waiting;
        if watched {
            let done = order.letters.saturating_sub(left);
            let hint = if left > 0 { " (Ctrl-C stops waiting, not the host)" } else { "\n" };
            let (done, all) = (grouped(done), grouped(order.letters));
            show_progress(&format!("{} {done} of {all}{hint}", action.done()));
        }
        if left == 0 {
            return Ok(());
        }
        if left < before {
            (before, moved) = (left, clock::instant());
        } else if !warned && moved.elapsed() > STALLED {
            warned = true;
            note(format!("{} left and nothing moves: `sluicebox status` may say why", letters(left)));
        }
        std::thread::sleep(look);
        look = (look * 2).min(LOOK_MAX);
    }
}

fn describe(order: &DeadOrderView) -> String {
    let each: Vec<String> =
        order.handlers.iter().map(|handler| format!("{} of {}", grouped(handler.letters), handler.handler)).collect();
    format!("{}: {}", letters(order.letters), each.join(", "))
}

fn letters(count: u64) -> String {
    match count {
        1 => "1 dead letter".into(),
        _ => format!("{} dead letters", grouped(count)),
    }
}
