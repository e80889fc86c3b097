//! `sluicebox check --sample`: which handlers would get a message, and under which key, id and shard, by the settings alone.
//!
//! It asks the same [`Router`] as a host does, so a typo in `key` or `id` is seen before a message went astray by it.

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Output, note, printable};
use crate::cli::publish::parse_header;
use crate::cli::settings::SettingsArgs;
use crate::clock::Timestamp;
use crate::config::HandlerSettings;
use crate::message::{Headers, Key, Message, NewMessage, Offset};
use crate::pipeline;
use crate::routing::{Routed, Router, Routing, Since, Span};
use crate::topic::Topic;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Samples are looked at by people: more than this is the data itself.
const SAMPLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct SampleArgs {
    /// Say who would get the message with this JSON body, or those with the bodies on each line; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "topic")]
    sample: Option<PathBuf>,
    /// The topic on which the sample would be published
    #[arg(long, value_name = "TOPIC", requires = "sample")]
    topic: Option<String>,
    /// The key that its publisher would give
    #[arg(long, value_name = "KEY", requires = "sample")]
    key: Option<String>,
    /// The id that its publisher would give
    #[arg(long, value_name = "ID", requires = "sample")]
    id: Option<String>,
    /// A header of the message; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "sample", value_parser = parse_header)]
    header: Vec<(String, String)>,
}

impl SampleArgs {
    pub(super) fn file(&self) -> Option<&Path> {
        self.sample.as_deref()
    }
}

/// What one handler would make of a sample.
struct Place<'h> {
    handler: &'h HandlerSettings,
    routed: Routed,
}

pub(super) fn run(
    file: &Path,
    args: &SampleArgs,
    settings: &SettingsArgs,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let topic = args.topic.as_deref().unwrap_or_default();
    let topic = Topic::parse_public(topic).map_err(|error| Failure::usage(error.to_string()))?;
    let key = args.key.as_deref().map(Key::parse).transpose().map_err(|error| Failure::usage(error.to_string()))?;
    let envelope = NewMessage {
        key: key.flatten(),
        id: args.id.as_deref().filter(|id| !id.is_empty()).map(Into::into),
        headers: Headers::new(args.header.clone()),
        ..NewMessage::new(topic.clone(), "")
    };
    envelope.check().map_err(|error| Failure::usage(error.to_string()))?;
    let loaded = settings.load()?;
    loaded.warnings.iter().for_each(note);
    let handlers: Vec<&HandlerSettings> = loaded.settings.handlers.iter().collect();
    let getting: Vec<&HandlerSettings> = handlers
        .iter()
        .copied()
        .filter(|handler| handler.subscribe.iter().any(|pattern| pattern.matches(&topic)))
        .collect();
    let routings: Vec<Routing> = getting.iter().map(|handler| routing(handler)).collect();
    let router = Router::new(&routings);

    let mut is_good = !getting.is_empty();
    let mut samples = vec![];
    for body in read(file)? {
        let new = NewMessage { body: body.into(), ..envelope.clone() };
        new.check().with_context(|| format!("sample {} of `{}`", samples.len() + 1, file.display()))?;
        let message = Arc::new(Message::from_new(new, Offset(1), Timestamp(0)));
        let mut routes = router.message(&message);
        let places: Vec<Place<'_>> =
            getting.iter().enumerate().map(|(number, handler)| Place { handler, routed: routes.to(number) }).collect();
        is_good &= places.iter().all(|place| place.routed.unroutable.is_none());
        samples.push(places);
    }
    let exit = if is_good { Exit::Done } else { Exit::Failed };
    if output.json {
        let view = |(number, places): (usize, &Vec<Place<'_>>)| json!({ "sample": number + 1, "handlers": places.iter().map(Place::view).collect::<Vec<_>>() });
        let samples: Vec<Value> = samples.iter().enumerate().map(view).collect();
        output.json(&json!({ "ok": is_good, "topic": topic.as_str(), "samples": samples }))?;
        return Ok(exit);
    }
    if getting.is_empty() {
        output.line(no_handler(&topic, &handlers))?;
        return Ok(exit);
    }
    let rows: Vec<Vec<String>> = samples
        .iter()
        .enumerate()
        .flat_map(|(number, places)| places.iter().map(move |place| place.row(number + 1)))
        .collect();
    output.table(&["SAMPLE", "HANDLER", "KEY", "ID", "SHARD", "NOTE"], &rows)?;
    Ok(exit)
}

/// As a host would record it for a handler that the log does not know.
fn routing(handler: &HandlerSettings) -> Routing {
    Routing {
        handler: handler.name.clone(),
        key: handler.key.clone(),
        id: handler.id.clone(),
        shards: handler.shards,
        recorded: Offset::START,
        identity: Since::default(),
        spans: vec![Span { after: Offset::START, subscribe: handler.subscribe.clone() }],
    }
}

fn no_handler(topic: &Topic, handlers: &[&HandlerSettings]) -> String {
    let subscribed = |handler: &&HandlerSettings| {
        let patterns: Vec<&str> = handler.subscribe.iter().map(|pattern| pattern.as_str()).collect();
        format!("{} to {}", handler.name, patterns.join(", "))
    };
    let all: Vec<String> = handlers.iter().map(subscribed).collect();
    match all.is_empty() {
        true => format!("no handler would get it: the settings have none that subscribes to `{topic}`, or to anything"),
        false => format!("no handler would get it: none subscribes to `{topic}` ({})", all.join("; ")),
    }
}

impl Place<'_> {
    /// `None`: the place in the log decides it, which a sample does not have.
    fn shard(&self) -> Option<u16> {
        let Routed { key, id, unroutable, .. } = &self.routed;
        let decided = unroutable.is_none() && (key.is_some() || id.is_some());
        decided.then(|| self.routed.shard(self.handler.shards))
    }

    fn is_deduplicated(&self) -> bool {
        self.routed.id.is_some() && pipeline::deduplicates(&self.handler.policy, &self.routed.message)
    }

    fn note(&self) -> String {
        let Routed { key, id, unroutable, .. } = &self.routed;
        if let Some(unroutable) = unroutable {
            return format!("unroutable, would be a dead letter: {}", unroutable.error);
        }
        let alone = key.is_none().then_some("stands alone: no order, no state");
        let twice = match id {
            None => Some("no id: sent again, it is handled again"),
            Some(_) if !self.is_deduplicated() => Some("`dedup` leaves it out: sent again, it is handled again"),
            Some(_) => None,
        };
        alone.into_iter().chain(twice).collect::<Vec<_>>().join("; ")
    }

    fn row(&self, number: usize) -> Vec<String> {
        let text = |text: Option<&str>| text.map_or("-".into(), printable);
        let shard = self.shard().map_or("-".into(), |shard| format!("{shard} of {}", self.handler.shards));
        let id = self.routed.id_text();
        let key = text(self.routed.key.as_ref().map(Key::as_str));
        vec![
            number.to_string(),
            self.handler.name.to_string(),
            key,
            text(id.as_deref()),
            shard,
            printable(&self.note()),
        ]
    }

    fn view(&self) -> Value {
        let unroutable = self.routed.unroutable.as_ref();
        json!({
            "handler": self.handler.name.as_str(),
            "key": self.routed.key.as_ref().map(Key::as_str),
            "id": self.routed.id_text(),
            "shard": self.shard(),
            "shards": self.handler.shards,
            "alone": self.routed.key.is_none() && unroutable.is_none(),
            "deduplicated": self.is_deduplicated(),
            "unroutable": unroutable.map(|unroutable| json!({ "kind": unroutable.kind, "error": unroutable.error })),
        })
    }
}

/// The bodies in a file: one JSON value as it is, or one on each line that is not empty.
fn read(file: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { format!("`{}`", file.display()) };
    let mut text = vec![];
    let read = match file == Path::new("-") {
        true => std::io::stdin().take(SAMPLE_BYTES_MAX + 1).read_to_end(&mut text),
        false => std::fs::File::open(file).and_then(|file| file.take(SAMPLE_BYTES_MAX + 1).read_to_end(&mut text)),
    };
    read.with_context(|| format!("failed to read the sample from {name}"))?;
    if text.len() as u64 > SAMPLE_BYTES_MAX {
        let max = SAMPLE_BYTES_MAX / 1024 / 1024;
        return Err(anyhow!("{name} is larger than {max} MiB: take some lines of it, such as with `head`").into());
    }
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(anyhow!("{name} is empty: give one JSON body, or one on each line").into());
    }
    if is_json(text).is_ok() {
        return Ok(vec![text.to_owned()]);
    }
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).enumerate();
    let mut bodies = vec![];
    for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
        is_json(line).map_err(|error| {
            let what = "give one JSON body, or one on each line";
            anyhow!("line {} of {name} is not JSON ({error}): {what}", number + 1)
        })?;
        bodies.push(line.to_owned());
    }
    Ok(bodies)
}

fn is_json(text: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<IgnoredAny>(text).map(drop)
}
