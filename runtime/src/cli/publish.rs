//! `sluicebox publish`: messages from arguments, a file or standard input, through a running host.

mod lines;

use super::client::{Client, HostArgs, broke, encoded};
use super::failure::{Exit, Failure};
use super::output::{Output, printable};
use crate::delays;
use crate::message::BODY_BYTES_MAX;
use crate::topic::Topic;
use clap::Args;
use serde_json::json;
use std::io::{IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::SendBody;

/// Publish messages through a running host. Without BODY, --file and --ndjson, standard input is the body of one message.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The topic, such as events.new_order
    topic: String,
    /// The body; several make several messages
    #[arg(conflicts_with_all = ["file", "ndjson"])]
    body: Vec<String>,
    /// The content of this file is the body; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "ndjson")]
    file: Option<PathBuf>,
    /// Each line of this file is the JSON body of one message; `-` is standard input, whose lines are sent as they come
    #[arg(long, value_name = "FILE")]
    ndjson: Option<PathBuf>,
    /// Each line is not a body but a message with its key, id, headers and body, as `tail --json` writes it; it may have a `delay`
    #[arg(long, requires = "ndjson")]
    messages: bool,
    /// Begin with this line: what a publish that was interrupted says
    #[arg(long, value_name = "LINE", requires = "ndjson", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// The key: messages of one key are handled in order
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The id, by which handlers tell duplicates
    #[arg(long, value_name = "ID", conflicts_with = "ndjson")]
    id: Option<String>,
    /// Let it appear on the topic only after this time, such as 30s or 1h30m, at most 30d
    #[arg(long, value_name = "DURATION", value_parser = delays::parse)]
    delay: Option<Duration>,
    /// A header of the message; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    host: HostArgs,
}

/// A line with its end, or why there is none.
type Line = std::io::Result<Vec<u8>>;

pub(super) fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    match !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        true => Ok((name.to_ascii_lowercase(), value.to_owned())),
        false => Err(format!("`{name}` is not the name of a header: use A-Z a-z 0-9 - _ .")),
    }
}

pub(super) fn run(args: &PublishArgs, output: &mut Output) -> Result<Exit, Failure> {
    let topic = Topic::parse_public(&args.topic).map_err(|error| Failure::usage(error.to_string()))?;
    if args.id.is_some() && args.body.len() > 1 {
        return Err(Failure::usage("one --id for several messages would make all but the first duplicates"));
    }
    let client = Client::new(&args.host)?;
    let path = format!("/v1/topics/{}", encoded(topic.as_str()));
    if let Some(file) = &args.ndjson {
        return lines::publish(args, &topic, &client, &path, file, output);
    }
    for body in bodies(args)? {
        let sent = client.post(&path, &headers(args), SendBody::from_reader(&mut &body[..]));
        let (status, answer) = sent.map_err(|failure| in_doubt(failure, args))?;
        if status != 200 {
            return Err(client.refused(status, &answer));
        }
        let (offset, due) = (&answer["offset"], answer.get("due"));
        match (output.json, due) {
            (true, None) => output.json(&json!({ "topic": topic.as_str(), "offset": offset }))?,
            (true, Some(due)) => output.json(&json!({ "topic": topic.as_str(), "offset": offset, "due": due }))?,
            (false, None) => output.line(format!("published to {topic} at offset {offset}"))?,
            (false, Some(due)) => {
                let at = due.as_str().map_or("when it is due".into(), |due| format!("at {}", printable(due)));
                output.line(format!("accepted at offset {offset}, appears on {topic} {at}"))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Says of a message that nobody answered for what became of it, and how to go on.
fn in_doubt(failure: Failure, args: &PublishArgs) -> Failure {
    let Failure { exit, error } = failure;
    let how = match error.downcast_ref().is_some_and(broke) {
        false => return Failure { exit, error },
        true if args.id.is_some() => "publish it again: handlers take it once, by its id",
        // Until it is due it is on no topic.
        true if args.delay.is_some_and(|delay| !delay.is_zero()) => {
            "`sluicebox handlers waiting _delay` shows whether it is; with --id it could be published again without a doubt"
        }
        true => {
            "`sluicebox tail` with --since shows whether it is; with --id it could be published again without a doubt"
        }
    };
    Failure { exit, error: error.context(format!("the message may be in the log: {how}")) }
}

fn headers(args: &PublishArgs) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> =
        args.header.iter().map(|(name, value)| (format!("sluicebox-header-{name}"), value.clone())).collect();
    headers.extend(args.key.iter().map(|key| ("sluicebox-key".into(), key.clone())));
    headers.extend(args.id.iter().map(|id| ("sluicebox-id".into(), id.clone())));
    headers.extend(args.delay.iter().map(|delay| ("sluicebox-delay".into(), format!("{}ms", delay.as_millis()))));
    headers
}

fn bodies(args: &PublishArgs) -> Result<Vec<Vec<u8>>, Failure> {
    let bodies = match (&args.file, args.body.is_empty()) {
        (Some(file), _) => vec![read_body(open(file)?)?],
        (None, false) => args.body.iter().map(|body| body.clone().into_bytes()).collect(),
        (None, true) if std::io::stdin().is_terminal() => {
            return Err(Failure::usage(
                "what should be published? give a BODY, --file FILE or --ndjson FILE, or send it to standard input",
            ));
        }
        (None, true) => match read_body(Box::new(std::io::stdin()))? {
            body if body.is_empty() => {
                return Err(Failure::usage(
                    "standard input is empty: for an empty message give '' as the BODY, or --file -",
                ));
            }
            body => vec![body],
        },
    };
    match bodies.iter().map(Vec::len).find(|bytes| *bytes > BODY_BYTES_MAX) {
        Some(_) => Err(Failure::from(anyhow::anyhow!(
            "the body is larger than {BODY_BYTES_MAX} bytes: publish where the data is instead of the data, or lines with --ndjson"
        ))),
        None => Ok(bodies),
    }
}

fn open(file: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    match std::fs::File::open(file) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(anyhow::Error::new(error).context(format!("failed to open `{}`", file.display())).into()),
    }
}

fn read_body(from: Box<dyn Read + Send>) -> Result<Vec<u8>, Failure> {
    let mut body = vec![];
    // One byte more tells a body that is too large.
    let bytes_max = BODY_BYTES_MAX as u64 + 1;
    from.take(bytes_max)
        .read_to_end(&mut body)
        .map_err(|error| anyhow::Error::new(error).context("failed to read the body"))?;
    Ok(body)
}
