//! `handlers show`: everything about one handler.

use super::super::client::{Client, HostArgs, encoded};
use super::super::data::{DataArgs, look};
use super::super::dead::parse_handler;
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, grouped, printable, told_behind};
use super::state::{Source, backlog, failure_text, state_of};
use crate::clock;
use crate::handler::HandlerName;
use crate::http::named;
use crate::http::running::{BreakerView, RunningHandler};
use crate::http::views::{ControlView, HandlerView};
use clap::Args;
use serde_json::Value;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The handler
    #[arg(value_parser = parse_handler)]
    name: HandlerName,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &ShowArgs, output: &mut Output) -> Result<Exit, Failure> {
    let ask = |client: &Client| {
        Ok((Source::Host, client.get_json(&format!("/v1/handlers/{}", encoded(args.name.as_str())))?))
    };
    let (source, handler): (Source, HandlerView) = look(&args.host, &args.data, ask, async |data| {
        named::check_handler(&data.log, &args.name).await?;
        let found = HandlerView::all(&data.log, None).await?;
        let found = found.into_iter().find(|handler| handler.name == args.name.as_str());
        Ok((Source::Data, found.ok_or_else(|| anyhow::anyhow!("there is no handler `{}`", args.name))?))
    })?;
    if output.json {
        output.json(&handler)?;
        return Ok(Exit::Done);
    }
    let HandlerView { name, subscribe, key, id, shard_count, open, marks, delayed, dead, .. } = &handler;
    output.line(format!("{name}: {}", state_of(&handler, source)))?;
    output.line(format!("subscribes  {}", subscribe.join(" ")))?;
    output.line(format!("key         {}", typed(key.as_ref())))?;
    output.line(format!("id          {}", typed(id.as_ref())))?;
    output.line(format!("shards      {shard_count}"))?;
    if let Some(waiting) = &handler.waiting {
        output.line(format!("waiting     {}", backlog(waiting, clock::now())))?;
    }
    let [open, delayed, dead, marks] = [open, delayed, dead, marks].map(|number| grouped(*number));
    let messages = format!("{open} open, {delayed} delayed, {dead} dead letters, {marks} marks");
    output.line(format!("messages    {messages}"))?;
    if let Some(failure) = &handler.last_failure {
        output.line(format!("last error  {}", failure_text(failure)))?;
    }
    show_control(&handler.control, output)?;
    if let Some(running) = &handler.running {
        show_running(running, output)?;
    }
    output.line("")?;
    let rows: Vec<Vec<String>> = handler
        .shards
        .iter()
        .map(|shard| {
            let numbers = [shard.read, shard.open, shard.delayed, shard.dead, shard.marks];
            std::iter::once(shard.index.to_string()).chain(numbers.iter().map(u64::to_string)).collect()
        })
        .collect();
    output.table(&["SHARD", "READ", "OPEN", "DELAYED", "DEAD", "MARKS"], &rows)?;
    Ok(Exit::Done)
}

/// A key or id as the settings write it.
fn typed(field: Option<&Value>) -> String {
    field.map_or("the message's own".into(), |value| printable(&value.to_string()))
}

fn show_control(control: &ControlView, output: &mut Output) -> Result<(), Failure> {
    let ControlView { paused, paused_keys, tripped, pin, jobs } = control;
    let mut asked = vec![];
    if *paused {
        asked.push("pause".to_owned());
    }
    if !paused_keys.is_empty() {
        let keys: Vec<String> = paused_keys.iter().map(|key| printable(key)).collect();
        asked.push(format!("pause of {}", keys.join(", ")));
    }
    if *tripped {
        asked.push("trip".into());
    }
    if let Some(pin) = pin {
        asked.push(match &pin.over {
            Some(over) => format!("rollback to {}, instead of {over}", pin.digest),
            None => format!("version {} from the log, whatever is in the file, until unpin", pin.digest),
        });
    }
    for job in jobs {
        let filter = serde_json::to_string(&job.filter)?;
        asked.push(format!("{} of dead letters {}, since offset {}", job.action, printable(&filter), job.command));
    }
    asked.iter().try_for_each(|asked| output.line(format!("asked for   {asked}")))?;
    Ok(())
}

fn show_running(running: &RunningHandler, output: &mut Output) -> Result<(), Failure> {
    let because = match &running.last_failure {
        Some(failure) => format!(", because runs failed: {}", printable(&failure.error)),
        None => String::new(),
    };
    let breaker = match running.breaker {
        BreakerView::Closed => "closed".into(),
        BreakerView::Open { until } => format!("open until {until}{because}"),
        BreakerView::HalfOpen => format!("half-open: one message tries{because}"),
        BreakerView::Tripped => "tripped by hand, until reset".into(),
        BreakerView::Off => "none".into(),
    };
    output.line(format!("breaker     {breaker}"))?;
    output.line(format!("runs        {} of {} at a time", running.running, running.concurrency))?;
    if let Some(problem) = &running.problem {
        output.line(told_behind("problem    ", problem))?;
    }
    for version in &running.versions {
        let mut notes = vec![];
        if version.deployed {
            notes.push(", deployed");
        }
        if Some(version.digest) == running.digest {
            notes.push(", in force");
        }
        if Some(version.digest) == running.file_digest {
            notes.push(", in the file");
        }
        let notes = notes.concat();
        output.line(format!("version     {} first seen {}{notes}", version.digest, version.first_seen))?;
    }
    Ok(())
}
