//! Routings as the text that every durable kind of log keeps: JSON with the version of its format.

use serde::{Deserialize, Serialize};
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Offset;
use sluicebox_core::routing::{IdFrom, KeyFrom, Routing, Since, Span};
use sluicebox_core::topic::Pattern;

/// Rises when an older host could misread the text.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Text {
    format: u32,
    routings: Vec<RoutingText>,
}

#[derive(Serialize, Deserialize)]
struct RoutingText {
    handler: String,
    key: KeyFrom,
    id: IdFrom,
    shards: u16,
    recorded: u64,
    identity: SinceText,
    spans: Vec<SpanText>,
}

#[derive(Serialize, Deserialize)]
struct SinceText {
    after: u64,
    time: u64,
}

#[derive(Serialize, Deserialize)]
struct SpanText {
    after: u64,
    subscribe: Vec<String>,
}

/// The text of these routings.
pub(crate) fn encode(routings: &[Routing]) -> String {
    let routings = routings.iter().map(|routing| RoutingText {
        handler: routing.handler.as_str().to_owned(),
        key: routing.key.clone(),
        id: routing.id.clone(),
        shards: routing.shards,
        recorded: routing.recorded.0,
        identity: SinceText { after: routing.identity.after.0, time: routing.identity.time.0 },
        spans: routing.spans.iter().map(span_text).collect(),
    });
    let text = Text { format: FORMAT, routings: routings.collect() };
    serde_json::to_string(&text).expect("text, numbers and lists can always be written as JSON")
}

/// Drops the spans that hold for no message after `settled`.
pub(crate) fn drop_settled_spans(routing: &mut Routing, settled: Offset) {
    let first_needed = routing.spans.iter().rposition(|span| span.after <= settled).unwrap_or(0);
    routing.spans.drain(..first_needed);
}

fn span_text(span: &Span) -> SpanText {
    let subscribe = span.subscribe.iter().map(|pattern| pattern.as_str().to_owned());
    SpanText { after: span.after.0, subscribe: subscribe.collect() }
}

/// The routings of a text, or why it cannot be read.
pub(crate) fn decode(text: &str) -> Result<Vec<Routing>, String> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let unreadable = |error: serde_json::Error| format!("the routings in the log cannot be read: {error}");
    let head: Head = serde_json::from_str(text).map_err(unreadable)?;
    if head.format > FORMAT {
        return Err(format!(
            "the routings in the log have format {}, this version reads up to {FORMAT}: use a newer sluicebox",
            head.format
        ));
    }
    let text: Text = serde_json::from_str(text).map_err(unreadable)?;
    text.routings.into_iter().map(routing).collect()
}

fn routing(text: RoutingText) -> Result<Routing, String> {
    let RoutingText { handler, key, id, shards, recorded, identity, spans } = text;
    let damaged = |reason: String| format!("the routing of `{handler}` in the log is damaged: {reason}");
    let span = |span: SpanText| {
        let patterns: Result<_, _> = span.subscribe.iter().map(|pattern| Pattern::parse(pattern)).collect();
        Ok(Span { after: Offset(span.after), subscribe: patterns.map_err(|error| damaged(error.to_string()))? })
    };
    let spans: Vec<Span> = spans.into_iter().map(span).collect::<Result<_, String>>()?;
    if spans.is_empty() || shards == 0 {
        return Err(damaged("it has no span or no shard".into()));
    }
    let handler = HandlerName::parse(&handler).map_err(|error| damaged(error.to_string()))?;
    let recorded = Offset(recorded);
    let identity = Since { after: Offset(identity.after), time: Timestamp(identity.time) };
    Ok(Routing { handler, key, id, shards, recorded, identity, spans })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluicebox_core::routing::Field;

    #[test]
    fn routings_round_trip_as_text() {
        let routing = Routing {
            handler: HandlerName::parse("order").unwrap(),
            key: KeyFrom::Fields(vec![Field::Pointer("/a".into()), Field::Header("H".into()), Field::TopicToken(2)]),
            id: IdFrom::Message,
            shards: 8,
            recorded: Offset(3),
            identity: Since { after: Offset(4), time: Timestamp(5) },
            spans: vec![
                Span { after: Offset::START, subscribe: vec![Pattern::parse("a.>").unwrap()] },
                Span { after: Offset::END, subscribe: vec![] },
            ],
        };
        let routings = vec![routing.clone(), Routing { key: KeyFrom::All, ..routing }];
        assert_eq!(decode(&encode(&routings)).unwrap(), routings);
    }

    #[test]
    fn a_newer_format_is_refused_even_when_its_content_changed() {
        let error = decode(r#"{"format":3,"routings":{}}"#).unwrap_err();
        assert!(error.contains("use a newer sluicebox"), "{error}");
    }
}
