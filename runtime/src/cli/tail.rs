//! `sluicebox tail`: follows the messages of a pattern through a running host.

use super::client::{Client, HostArgs, encoded};
use super::failure::{Exit, Failure};
use super::output::{Output, note, printable};
use crate::clock;
use crate::config;
use crate::http::rfc3339;
use crate::http::views::MessageView;
use crate::message::{BODY_BYTES_MAX, Key};
use crate::topic::Pattern;
use clap::Args;
use std::io::{BufRead, BufReader, Read as _};
use std::time::{Duration, Instant};

/// Most bytes of one line of events: JSON writes some bytes as six, and headers and frame need room.
const LINE_BYTES_MAX: u64 = 6 * BODY_BYTES_MAX as u64 + (1 << 20);
/// Between two tries to go on after the connection broke.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Show the messages of a pattern as they come.
///
/// When the connection breaks, or the host restarts, it goes on after the last message that it showed.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Which topics: `*` is one token, a last `>` the rest; all topics unless given
    #[arg(default_value = ">")]
    pattern: String,
    /// Where to begin: latest, earliest, an offset, or a time such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "WHERE", default_value = "latest", value_parser = parse_from)]
    from: String,
    /// Begin with what is not older than this, such as 10m
    #[arg(long, value_name = "AGE", conflicts_with = "from", value_parser = parse_age)]
    since: Option<String>,
    /// Only messages of this key
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<Key>,
    /// End after this offset
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
    /// End with what the log has now
    #[arg(long)]
    no_follow: bool,
    /// End after this many messages
    #[arg(long, short = 'n', value_name = "COUNT")]
    count: Option<u64>,
    /// When the connection breaks, try for this long to go on, such as 30s; for ever unless given, 0s: not at all
    #[arg(long, value_name = "TIME", value_parser = config::duration)]
    retry_for: Option<Duration>,
    #[command(flatten)]
    host: HostArgs,
}

fn parse_from(text: &str) -> Result<String, String> {
    let is_place = text == "latest" || text == "earliest" || text.parse::<u64>().is_ok();
    match is_place || rfc3339::parse(text).is_some() {
        true => Ok(text.to_owned()),
        false => Err("use latest, earliest, an offset, or a time such as 2026-01-31T08:00:00Z".into()),
    }
}

fn parse_key(text: &str) -> Result<Key, String> {
    Key::try_from(text.to_owned()).map_err(|error| error.to_string())
}

fn parse_age(text: &str) -> Result<String, String> {
    config::duration(text).map(|_| text.to_owned())
}

pub(super) fn run(args: &TailArgs, output: &mut Output) -> Result<Exit, Failure> {
    let pattern = Pattern::parse(&args.pattern).map_err(|error| Failure::usage(error.to_string()))?;
    let client = Client::new(&args.host)?;
    let mut path = format!("/v1/topics/{}/tail?follow={}", encoded(pattern.as_str()), !args.no_follow);
    path += &match &args.since {
        Some(age) => format!("&since={age}"),
        None => format!("&from={}", encoded(&args.from)),
    };
    if let Some(key) = &args.key {
        path += &format!("&key={}", encoded(key.as_str()));
    }
    if let Some(to) = args.to {
        path += &format!("&to={to}");
    }
    let mut shown = Shown { last: None, left: args.count.unwrap_or(u64::MAX) };
    // Since when the connection is broken.
    let mut broken: Option<Instant> = None;
    while shown.left > 0 {
        let resume: Vec<(&str, String)> = shown.last.iter().map(|last| ("last-event-id", last.to_string())).collect();
        let broke = match client.get(&path, &resume) {
            Ok(response) => {
                if broken.take().is_some() {
                    note("the host is back");
                }
                match follow(BufReader::new(response.into_body().into_reader()), &mut shown, output)? {
                    Ended::Reached => return Ok(Exit::Done),
                    Ended::Failed(error) => anyhow::anyhow!("{} ended the tail: {}", client.url(), printable(&error)),
                    Ended::Broke(error) => error,
                }
            }
            Err(failure) if shown.last.is_none() || failure.exit != Exit::Unreachable => return Err(failure),
            Err(failure) => failure.error,
        };
        // The host did not even say where it begins: what came meanwhile would be missed silently.
        let Some(last) = shown.last else { return Err(Failure::new(Exit::Unreachable, broke)) };
        let is_new = broken.is_none();
        let since = *broken.get_or_insert_with(clock::instant);
        if args.retry_for.is_some_and(|patience| since.elapsed() >= patience) {
            return Err(Failure::new(Exit::Unreachable, broke.context(format!("gave up after offset {last}"))));
        }
        // Once for each time it broke: it may take hours.
        if is_new {
            note(format!("{broke:#}: going on after offset {last} as soon as the host is back"));
        }
        std::thread::sleep(RECONNECT_PAUSE);
    }
    Ok(Exit::Done)
}

/// What was shown so far.
struct Shown {
    /// Where to go on from: the last message, or where the host began.
    last: Option<u64>,
    /// Messages yet to show.
    left: u64,
}

/// Why a connection ended.
#[derive(Debug)]
enum Ended {
    /// At what was asked for.
    Reached,
    /// The host says why.
    Failed(String),
    Broke(anyhow::Error),
}

/// Shows events until they end.
fn follow(mut events: impl BufRead, shown: &mut Shown, output: &mut Output) -> Result<Ended, Failure> {
    let (mut name, mut line) = (String::new(), String::new());
    while shown.left > 0 {
        line.clear();
        match events.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => return Ok(Ended::Broke(anyhow::anyhow!("the connection broke"))),
            Ok(_) => {}
            Err(error) => return Ok(Ended::Broke(anyhow::Error::new(error).context("the connection broke"))),
        }
        let Some(text) = line.strip_suffix('\n') else {
            return Ok(Ended::Broke(anyhow::anyhow!("the connection broke within an event")));
        };
        if text.is_empty() {
            name.clear();
        } else if let Some(given) = text.strip_prefix("event: ") {
            given.clone_into(&mut name);
        } else if let Some(data) = text.strip_prefix("data: ") {
            match name.as_str() {
                "" => show(data, shown, output)?,
                "start" => {
                    let start = serde_json::from_str::<serde_json::Value>(data).unwrap_or_default();
                    shown.last = shown.last.or(start["after"].as_u64());
                }
                "end" => return Ok(Ended::Reached),
                "error" => {
                    let reason = serde_json::from_str::<serde_json::Value>(data).unwrap_or_default();
                    return Ok(Ended::Failed(reason["error"].as_str().unwrap_or(data).to_owned()));
                }
                _ => {}
            }
        }
    }
    Ok(Ended::Reached)
}

fn show(data: &str, shown: &mut Shown, output: &mut Output) -> Result<(), Failure> {
    let message: MessageView = serde_json::from_str(data)
        .map_err(|error| anyhow::Error::new(error).context("the host sent what is not a message"))?;
    match output.json {
        true => output.line(data)?,
        false => output.line(line_of(&message))?,
    }
    shown.last = Some(message.offset);
    shown.left -= 1;
    Ok(())
}

/// A message on one line.
pub(super) fn line_of(message: &MessageView) -> String {
    let mut line = format!("{} {:>8} {}", message.time, message.offset, message.topic);
    for (name, value) in [("key", &message.key), ("id", &message.id)] {
        if let Some(value) = value {
            line += &format!(" {name}={}", printable(value));
        }
    }
    for (name, value) in &message.headers {
        line += &format!(" {}={}", printable(name), printable(value));
    }
    match (&message.body, &message.body_base64) {
        (Some(body), _) if !body.is_empty() => line += &format!(" {}", printable(body)),
        (_, Some(base64)) => line += &format!(" base64:{base64}"),
        _ => {}
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow_text(text: &str, left: u64) -> (Ended, Shown) {
        let mut shown = Shown { last: None, left };
        let ended = follow(text.as_bytes(), &mut shown, &mut Output::into(false, std::io::sink())).unwrap();
        (ended, shown)
    }

    const START: &str = "event: start\ndata: {\"after\":0}\n\n";

    fn message(offset: u64) -> String {
        let time = "2026-01-31T08:00:00.000Z";
        format!(
            ": alive\n\nid: {offset}\ndata: {{\"offset\":{offset},\"topic\":\"a\",\"time\":\"{time}\",\"hops\":0,\"body\":\"x\"}}\n\n"
        )
    }

    #[test]
    fn a_tail_that_ends_without_saying_so_broke() {
        let (ended, shown) = follow_text(&format!("{START}{}", message(5)), 10);
        assert!(matches!(ended, Ended::Broke(_)), "{ended:?}");
        assert_eq!(shown.last, Some(5));
        let (ended, shown) = follow_text(START, 10);
        assert!(matches!(ended, Ended::Broke(_)) && shown.last == Some(0), "nothing came yet, and it can go on");
        let cut = &message(6)[..40];
        assert!(matches!(follow_text(cut, 10).0, Ended::Broke(_)));
    }

    #[test]
    fn a_tail_ends_at_its_count_at_the_end_and_at_an_error() {
        let (ended, shown) = follow_text(&format!("{START}{}{}", message(5), message(7)), 1);
        assert!(matches!(ended, Ended::Reached) && shown.last == Some(5));
        assert!(matches!(follow_text("event: end\ndata: {\"after\":9}\n\n", 10).0, Ended::Reached));
        let failed = "event: error\ndata: {\"error\":\"the host stops\"}\n\n";
        assert!(matches!(follow_text(failed, 10).0, Ended::Failed(reason) if reason == "the host stops"));
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let view = MessageView {
            offset: 7,
            topic: "a.b".into(),
            key: Some("ada".into()),
            id: None,
            time: "2026-01-31T08:00:00.000Z".into(),
            hops: 0,
            headers: vec![("h".into(), "v".into())],
            body: Some("x\n\x1b[2J".into()),
            body_base64: None,
        };
        assert_eq!(line_of(&view), "2026-01-31T08:00:00.000Z        7 a.b key=ada h=v x\\n\\u{1b}[2J");
    }
}
