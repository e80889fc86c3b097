//! Which dead letters a command is about: the same flags for all of them.

use super::super::client::encoded;
use crate::commit::DeadFilter;
use crate::handler::HandlerName;
use crate::message::Key;
use crate::topic::Pattern;
use clap::Args;

#[derive(Clone, Debug, Args)]
pub struct FilterArgs {
    /// Only those of this handler
    #[arg(long, value_name = "NAME", value_parser = parse_handler)]
    pub(super) handler: Option<HandlerName>,
    /// Only those of this shard
    #[arg(long, value_name = "INDEX")]
    shard: Option<u16>,
    /// Only those handled under this key
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<Key>,
    /// Only those whose message came on such a topic
    #[arg(long, value_name = "PATTERN", value_parser = parse_pattern)]
    topic: Option<Pattern>,
    /// Only those that failed in this way, such as reject, timeout or trap
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only these; may be given several times
    #[arg(long = "number", value_name = "NUMBER", value_delimiter = ',', value_parser = parse_number)]
    pub(super) numbers: Vec<u64>,
}

pub(in crate::cli) fn parse_handler(text: &str) -> Result<HandlerName, String> {
    HandlerName::parse(text).map_err(|error| error.to_string())
}

pub(super) fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write the number that `sluicebox dead list` shows".into())
}

pub(in crate::cli) fn parse_key(text: &str) -> Result<Key, String> {
    Key::try_from(text.to_owned())
}

pub(in crate::cli) fn parse_pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).map_err(|error| error.to_string())
}

impl FilterArgs {
    pub(super) fn filter(&self) -> DeadFilter {
        DeadFilter {
            handler: self.handler.clone(),
            shard: self.shard,
            key: self.key.clone(),
            topic: self.topic.clone(),
            kind: self.kind.clone(),
            numbers: self.numbers.clone(),
            upto: None,
        }
    }
}

/// A filter as the parameters of a URL.
pub(super) fn query_of(filter: &DeadFilter) -> String {
    let DeadFilter { handler, shard, key, topic, kind, numbers, upto } = filter;
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let fields = [
        ("handler", handler.as_ref().map(|handler| handler.to_string())),
        ("shard", shard.map(|shard| shard.to_string())),
        ("key", key.as_ref().map(|key| key.to_string())),
        ("topic", topic.as_ref().map(|topic| topic.as_str().to_owned())),
        ("kind", kind.clone()),
        ("numbers", (!numbers.is_empty()).then(|| numbers.join(","))),
        ("upto", upto.map(|upto| upto.to_string())),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}={}", encoded(&value))));
    given.collect::<Vec<_>>().join("&")
}
