//! `handlers waiting`: which messages of a handler wait, and why.

use super::super::client::{Client, HostArgs, encoded};
use super::super::data::{DataArgs, look};
use super::super::dead::{parse_handler, parse_key, parse_pattern};
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, grouped, printable};
use super::state::{backlog, short};
use crate::clock;
use crate::handler::{Digest, HandlerName};
use crate::http::named;
use crate::http::views::{BehindView, Cursor, DelayedView, Reason, WaitingMessage, WaitingPage, WaitingQuery};
use crate::log::HeadFilter;
use crate::message::{Key, Offset};
use crate::topic::Pattern;
use clap::Args;

/// Characters of an error that the list shows.
const ERROR_CHARS_MAX: usize = 100;

/// Show which messages of a handler wait, and why
///
/// First the open ones, by offset: each was taken up and is not settled, and later messages of its key (BEHIND) wait for
/// it. Then those that the handler has not taken up, by offset; then those that a run delayed, the next one due first.
#[derive(Debug, Args)]
pub struct WaitingArgs {
    /// The handler
    #[arg(value_parser = parse_handler)]
    name: HandlerName,
    /// Only those of this key
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<Key>,
    /// Only those on such a topic
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    topic: Option<Pattern>,
    /// Only those whose last error has this in it
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only those that failed at least so often
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    attempts: u32,
    /// Only the one at this offset
    #[arg(long, value_name = "OFFSET")]
    offset: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// The next page, as the page before says
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    data: DataArgs,
}

impl WaitingArgs {
    fn query(&self) -> WaitingQuery {
        let filter = HeadFilter {
            offset: self.offset.map(Offset),
            key: self.key.clone(),
            topic: self.topic.clone(),
            error: self.error.clone(),
            attempts_min: self.attempts,
        };
        WaitingQuery { filter, after: self.after, limit: usize::from(self.limit) }
    }

    fn path(&self) -> String {
        let mut path = format!("/v1/handlers/{}/waiting?limit={}", encoded(self.name.as_str()), self.limit);
        let fields = [
            ("key", self.key.as_ref().map(|key| key.to_string())),
            ("topic", self.topic.as_ref().map(|topic| topic.as_str().to_owned())),
            ("error", self.error.clone()),
            ("attempts", (self.attempts > 0).then(|| self.attempts.to_string())),
            ("offset", self.offset.map(|offset| offset.to_string())),
            ("after", self.after.map(|after| after.to_string())),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                path += &format!("&{name}={}", encoded(&value));
            }
        }
        path
    }
}

pub(super) fn run(args: &WaitingArgs, output: &mut Output) -> Result<Exit, Failure> {
    let ask = |client: &Client| client.get_json(&args.path());
    let page: WaitingPage = look(&args.host, &args.data, ask, async |data| {
        named::check_handler(&data.log, &args.name).await?;
        let found = WaitingPage::of(&data.log, &args.name, &args.query(), None).await?;
        Ok(found.ok_or_else(|| anyhow::anyhow!("there is no handler `{}`", args.name))?)
    })?;
    match output.json {
        true => output.json(&page)?,
        false => show(&page, output)?,
    }
    Ok(Exit::Done)
}

fn show(page: &WaitingPage, output: &mut Output) -> Result<(), Failure> {
    let waiting = page.waiting.as_ref().map_or("no routing in the log".into(), |all| backlog(all, clock::now()));
    output.line(format!("{}: {waiting}", page.handler))?;
    if page.paused {
        output.line("the handler is paused: `sluicebox handlers resume`")?;
    }
    if page.tripped {
        output.line("its breaker was opened by hand: `sluicebox handlers breaker reset`")?;
    }
    if !page.paused_keys.is_empty() {
        let keys: Vec<String> = page.paused_keys.iter().map(|key| printable(key)).collect();
        output.line(format!("paused keys: {}", keys.join(", ")))?;
    }
    if !page.open.is_empty() {
        output.line("")?;
        let heading = ["OFFSET", "TOPIC", "KEY", "ATTEMPTS", "BEHIND", "WHY", "NEXT TRY", "MODULE", "ERROR"];
        output.table(&heading, &page.open.iter().map(open_row).collect::<Vec<_>>())?;
    }
    if !page.unread.is_empty() {
        output.line("")?;
        output.table(
            &["UNREAD", "TOPIC", "KEY", "ID", "TIME", "WHY"],
            &page.unread.iter().map(unread_row).collect::<Vec<_>>(),
        )?;
    }
    if !page.delayed.is_empty() {
        output.line("")?;
        output.table(
            &["DELAYED", "DUE", "TOPIC", "KEY", "ID"],
            &page.delayed.iter().map(delayed_row).collect::<Vec<_>>(),
        )?;
    }
    if let Some(next) = &page.next {
        output.line(format!("more with --after {next}"))?;
    }
    Ok(())
}

fn open_row(open: &WaitingMessage) -> Vec<String> {
    let or_dash = |text: Option<&String>| text.map_or("-".into(), |text| printable(text));
    let behind = open.behind.map_or("-".into(), |BehindView { messages, at_least }| {
        format!("{}{}", if at_least { ">=" } else { "" }, grouped(messages))
    });
    let module = open.digest.as_deref().and_then(Digest::parse).map_or("-".into(), short);
    let error: String = or_dash(open.error.as_ref()).chars().take(ERROR_CHARS_MAX).collect();
    vec![
        open.offset.to_string(),
        open.topic.clone().unwrap_or_else(|| "(gone)".into()),
        or_dash(open.key.as_ref()),
        open.attempts.to_string(),
        behind,
        why(open.reason).into(),
        or_dash(open.next_try.as_ref()),
        module,
        error,
    ]
}

fn unread_row(unread: &WaitingMessage) -> Vec<String> {
    let or_dash = |text: Option<&String>| text.map_or("-".into(), |text| printable(text));
    let WaitingMessage { offset, topic, key, id, time, reason, .. } = unread;
    let texts = [topic, key, id, time].map(|text| or_dash(text.as_ref()));
    std::iter::once(offset.to_string()).chain(texts).chain([why(*reason).into()]).collect()
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Paused => "handler paused",
        Reason::KeyPaused => "key paused",
        Reason::Tripped => "breaker tripped by hand",
        Reason::Retry => "retry",
        Reason::Behind => "an earlier one of its key",
        Reason::BreakerOpen => "breaker open",
        Reason::Turn => "its turn",
    }
}

fn delayed_row(delayed: &DelayedView) -> Vec<String> {
    let or_dash = |text: Option<&String>| text.map_or("-".into(), |text| printable(text));
    let DelayedView { shard, number, due, topic, key, id } = delayed;
    vec![format!("{shard}/{number}"), due.clone(), topic.clone(), or_dash(key.as_ref()), or_dash(id.as_ref())]
}
