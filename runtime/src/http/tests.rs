//! A real client against a real listener, over the log in memory.

mod clients;
mod dead;
mod guard;
mod handlers;
pub(crate) mod stage;
mod tail;
mod waiting;

use self::tail::Events;
use super::face::ClientLimits;
use super::running::BreakerView;
use super::*;
use crate::clock::Timestamp;
use crate::commit::{Control, DeadFilter, DeadLetter};
use crate::config::{HttpSettings, Namespace, Secret};
use crate::handler::{Digest, ShardId};
use crate::log::Log;
use crate::log::ReadRequest;
use crate::log::memory::MemoryLog;
use crate::message::{BODY_BYTES_MAX, Message, NewMessage, Offset};
use crate::routing::KeyFrom;
use crate::telemetry::Metrics;
use crate::topic::Topic;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "0123456789abcdef";

struct Server {
    address: SocketAddr,
    log: Arc<MemoryLog>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    client: Client,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(|_| {}, None, [127, 0, 0, 1]).await
    }

    /// `listen` is what the settings say; the listener itself is always on loopback.
    async fn start_with(change: impl FnOnce(&mut Face), token: Option<&str>, listen: [u8; 4]) -> Self {
        let listener = super::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (log, metrics) = (Arc::new(MemoryLog::new()), Arc::new(Metrics::new()));
        let readiness = Readiness::starting("loading handlers");
        let settings = HttpSettings { listen: (listen, address.port()).into(), token: token.map(Secret::new) };
        let namespace = Namespace::parse("shop").unwrap();
        let stop = CancellationToken::new();
        let mut face = Face::new(log.clone(), metrics.clone(), readiness.clone(), namespace, &settings, stop.clone());
        change(&mut face);
        let task = tokio::spawn(serve(listener, Arc::new(face)));
        Self { address, log, readiness, metrics, stop, task, client: Client::new() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    fn post(&self, topic: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/topics/{topic}"))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    async fn messages(&self) -> Vec<Arc<Message>> {
        let everything = ReadRequest {
            after: Offset::START,
            upto: Offset::END,
            patterns: vec![],
            messages_max: 100_000,
            bytes_max: usize::MAX,
        };
        self.log.read(everything).await.unwrap().messages
    }

    /// Appends numbers; their offsets, which have gaps.
    async fn append(&self, topic: &str, bodies: std::ops::Range<usize>) -> Vec<u64> {
        let topic = Topic::parse(topic).unwrap();
        let messages = bodies.map(|n| NewMessage::new(topic.clone(), n.to_string())).collect();
        self.log.append(messages).await.unwrap().into_iter().map(|offset| offset.0).collect()
    }
}

impl Server {
    /// The commands in the log, oldest first.
    async fn commands(&self) -> Vec<(String, Value)> {
        let control = |message: &Arc<Message>| {
            let handler = message.topic.as_str().strip_prefix("_control.")?.to_owned();
            Some((handler, serde_json::from_slice(&message.body).unwrap()))
        };
        self.messages().await.iter().filter_map(control).collect()
    }
}

/// Status and JSON of an answer.
async fn send(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[tokio::test]
async fn a_published_message_is_in_the_log_when_the_answer_comes() {
    let server = Server::start().await;
    let request = server.post("events.new_order").header("Sluicebox-Key", "ada").header("Sluicebox-Id", "o-1");
    let request = request.header("Sluicebox-Header-Tenant", "é").header("traceparent", "00-1-2-03");
    let (status, answer) = send(request.body("{\"id\":1}")).await;
    assert_eq!((status, &answer), (StatusCode::OK, &json!({ "offset": 1 })));
    let [message] = &server.messages().await[..] else { panic!("one message") };
    assert_eq!(message.topic.as_str(), "events.new_order");
    assert_eq!(message.key.as_ref().unwrap().as_str(), "ada");
    assert_eq!(message.id.as_deref(), Some("o-1"));
    assert_eq!(message.headers.get("tenant"), Some("é"));
    assert_eq!(message.headers.get("traceparent"), Some("00-1-2-03"));
    assert_eq!(&message.body[..], b"{\"id\":1}");
}

#[tokio::test]
async fn an_empty_id_or_key_is_none_and_a_body_may_be_empty_or_binary() {
    let server = Server::start().await;
    let request = server.post("a").header("Sluicebox-Key", "").header("Sluicebox-Id", "");
    assert_eq!(send(request).await.0, StatusCode::OK);
    assert_eq!(send(server.post("a").body(vec![0xff, 0])).await.0, StatusCode::OK);
    let [empty, binary] = &server.messages().await[..] else { panic!("two messages") };
    assert_eq!((&empty.key, &empty.id, empty.body.len()), (&None, &None, 0));
    assert_eq!(&binary.body[..], [0xff, 0]);
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason_and_change_nothing() {
    let server = Server::start().await;
    let post = |topic: &str| server.post(topic);
    let large = vec![b'x'; BODY_BYTES_MAX + 1];
    let long = "x".repeat(257);
    let many_bytes = "x".repeat(9000);
    let structured = |body: &str| {
        post("a").header("content-type", "application/cloudevents+json; charset=utf-8").body(body.to_owned())
    };
    let event = |name: &str| {
        let request = post("a").header("ce-specversion", "1.0").header("ce-id", "1");
        let request = request.header("ce-source", "/s").header("ce-type", "t");
        // reqwest appends, so a second value overwrites nothing: leave the one out instead.
        let mut built = request.build().unwrap();
        built.headers_mut().remove(name);
        RequestBuilder::from_parts(server.client.clone(), built)
    };
    let ndjson = || post("a").header("content-type", "application/x-ndjson");
    let cases: Vec<(RequestBuilder, u16, &str)> = vec![
        (post("a.*"), 400, "`a.*` is a pattern"),
        (post("a..b"), 400, "empty token"),
        (post("_control"), 400, "belong to the host"),
        (post("a%20b"), 400, "character other than"),
        (post("%ff"), 400, "Invalid UTF-8"),
        (post(&["a"; 17].join(".")), 400, "17 tokens"),
        (post("a").body(large.clone()), 413, "larger than 524288 bytes"),
        (post("a").body(reqwest::Body::wrap_stream(chunks(large.clone()))), 413, "larger than 524288 bytes"),
        (post("a").header("Sluicebox-Key", &long), 400, "the key has 257 bytes"),
        (post("a").header("Sluicebox-Id", &long), 400, "the id has 257 bytes"),
        (post("a").header("Sluicebox-Key", &b"\xff"[..]), 400, "`sluicebox-key` is not UTF-8"),
        (post("a").header("Sluicebox-Header-", "x"), 400, "needs a name"),
        (
            post("a").header("Sluicebox-Header-A", &many_bytes).header("Sluicebox-Header-B", &many_bytes),
            413,
            "the headers have 18002 bytes",
        ),
        (structured("{"), 400, "not a CloudEvent: EOF"),
        (structured("[]"), 400, "not a CloudEvent: invalid type"),
        (structured("{\"specversion\":\"1.0\"}"), 400, "`id` is missing"),
        (structured("{\"specversion\":\"1.0\",\"id\":{}}"), 400, "`id` is not a simple value"),
        (structured("{\"id\":\"1\",\"data\":1,\"data_base64\":\"\"}"), 400, "both `data`"),
        (structured("{\"id\":\"1\",\"data_base64\":\"?\"}"), 400, "`data_base64`"),
        (
            structured("{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\"}"),
            400,
            "CloudEvents 0.3 is not taken",
        ),
        (event("ce-id"), 400, "`id` is missing"),
        (event("ce-source"), 400, "`source` is missing"),
        (event("ce-type").header("ce-type", ""), 400, "`type` is missing or empty"),
        (event("ce-type").header("ce-type", "%ff"), 400, "not UTF-8 when decoded"),
        (post("a").header("content-type", "application/cloudevents-batch+json"), 415, "batches"),
        (ndjson().header("Sluicebox-Id", "1").body("1"), 400, "every line but the first a duplicate"),
        (ndjson().body("{"), 400, "1 of 1 lines were not accepted"),
        (server.get("/v1/topics/a"), 405, "GET is not possible here: use POST /v1/topics/{topic}"),
        (server.request(Method::POST, "/metrics"), 405, "use GET /metrics"),
        (server.get("/v2"), 404, "there is no GET /v2"),
        (server.get("/v1/topics/a.%3E.b/tail"), 400, "`>` must be the last token"),
        (
            server.get("/v1/topics/a/tail?from=now"),
            400,
            "`from` must be latest, earliest, an offset, or a time such as",
        ),
        (server.get("/v1/topics/a/tail?from=1&since=1m"), 400, "both say where to begin"),
        (server.get("/v1/topics/a/tail?since=10"), 400, "`since`: `10` has no unit: write `10s` or `10ms`"),
        (server.get("/v1/topics/a/tail").header("last-event-id", "x"), 400, "`Last-Event-ID` must be the offset"),
        (server.get("/v1/topics/a/tail").header("last-event-id", ""), 400, "`Last-Event-ID` must be the offset"),
        (post("a").header("Sluicebox-Kye", "x"), 400, "unknown header `sluicebox-kye`: did you mean `Sluicebox-Key`?"),
        (post("a").header("Sluicebox-ids", "x"), 400, "did you mean `Sluicebox-Id`?"),
        (post("a").header("Sluicebox-Tenant", "x"), 400, "of the message send `Sluicebox-Header-tenant`"),
        (post("a").header("Sluicebox-Dealy", "1s"), 400, "did you mean `Sluicebox-Delay`?"),
        (post("a").header("Sluicebox-Delay", "1"), 400, "`Sluicebox-Delay`: `1` has no unit: write `1s` or `1ms`"),
        (post("a?key=x"), 400, "`key` of a message is no parameter but a header: send `Sluicebox-Key`"),
        (post("a?delay=1s"), 400, "send `Sluicebox-Delay`"),
        (post("a?kye=x"), 400, "unknown parameter `kye`, there is lines"),
        (server.get("/v1/dead?handlr=order"), 400, "unknown parameter `handlr`, did you mean `handler`?"),
        (server.get("/v1/topics/a/tail?follow=no"), 400, "`follow` must be true or false"),
        (server.get("/v1/topics/a/tail?to=x"), 400, "`to` must be a whole number"),
        (
            server.get("/v1/topics/a/tail?form=1"),
            400,
            "unknown parameter `form`, did you mean `from`? There is from, since,",
        ),
        (server.get("/v1/dead?handler=X"), 400, "`handler`: `X` is not a handler name"),
        (server.get("/v1/dead?limit=-1"), 400, "`limit` must be a whole number"),
        (server.get("/v1/dead/x"), 400, "`x` is not a number"),
        (server.get("/v1/dead/7"), 404, "there is no dead letter 7"),
        (server.get("/v1/dead/18446744073709551615"), 404, "there is no dead letter"),
    ];
    for (request, status, reason) in cases {
        let shown = format!("{request:?}");
        let (found, answer) = send(request).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(found.as_u16(), status, "{shown}: {error}");
        assert!(error.contains(reason), "{shown}: {error}");
    }
    assert!(server.messages().await.is_empty());
    let (_, unknown) = send(server.get("/")).await;
    assert!(unknown["known"].as_array().unwrap().contains(&json!("GET /v1/status")));
}

/// A body without a length.
fn chunks(body: Vec<u8>) -> impl futures_util::Stream<Item = Result<Vec<u8>, std::io::Error>> {
    futures_util::stream::iter(body.chunks(10_000).map(|chunk| Ok(chunk.to_vec())).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_is_taken_with_and_without_a_length() {
    let server = Server::start().await;
    let body = vec![b'x'; BODY_BYTES_MAX];
    assert_eq!(send(server.post("a").body(body.clone())).await.0, StatusCode::OK);
    assert_eq!(send(server.post("a").body(reqwest::Body::wrap_stream(chunks(body.clone())))).await.0, StatusCode::OK);
    assert!(server.messages().await.iter().all(|message| message.body == body));
}

#[tokio::test]
async fn cloud_events_become_messages_with_their_id_and_attributes() {
    let server = Server::start().await;
    let binary = server.post("a").header("ce-specversion", "1.0").header("ce-id", "e-1").header("ce-source", "/shop");
    let binary = binary.header("ce-type", "order.new").header("ce-subject", "caf%C3%A9");
    let binary = binary.header("ce-partitionkey", "ada").header("content-type", "text/plain").body("hello");
    assert_eq!(send(binary).await.0, StatusCode::OK);
    let structured = |data: &str| {
        let event = r#""specversion":"1.0","id":"e-2","source":"/shop","type":"t","n":5"#;
        server.post("a").header("content-type", "application/cloudevents+json").body(format!("{{{event}{data}}}"))
    };
    for data in [
        "",
        r#","data":{"z": 1e400, "a":2}"#,
        r#","data":"text""#,
        r#","datacontenttype":"text/plain","data":"text""#,
        r#","data_base64":"/w==""#,
    ] {
        assert_eq!(send(structured(data)).await.0, StatusCode::OK, "{data}");
    }
    let messages = server.messages().await;
    assert_eq!(messages[0].id.as_deref(), Some("/shop e-1"));
    assert_eq!(messages[0].headers.get("ce-id"), Some("e-1"));
    assert_eq!(messages[0].headers.get("ce-source"), Some("/shop"));
    assert_eq!(messages[0].key.as_ref().unwrap().as_str(), "ada");
    assert_eq!(messages[0].headers.get("ce-subject"), Some("café"));
    assert_eq!(messages[0].headers.get("content-type"), Some("text/plain"));
    assert_eq!(messages[1].id.as_deref(), Some("/shop e-2"));
    assert_eq!(messages[1].headers.get("ce-n"), Some("5"));
    let bodies: Vec<&[u8]> = messages.iter().map(|message| &message.body[..]).collect();
    assert_eq!(bodies, [&b"hello"[..], b"", br#"{"z": 1e400, "a":2}"#, b"\"text\"", b"text", b"\xff"]);
}

#[tokio::test]
async fn events_of_two_sources_with_one_id_are_two_messages_however_long_both_are() {
    let server = Server::start().await;
    let long = "s".repeat(300);
    for source in ["/shop", "/store", &long] {
        let event = server.post("a").header("ce-specversion", "1.0").header("ce-type", "t").header("ce-id", "1");
        assert_eq!(send(event.header("ce-source", source)).await.0, StatusCode::OK);
    }
    let event = json!({ "specversion": "1.0", "type": "t", "id": "1", "source": "/shop" });
    let structured = server.post("a").header("content-type", "application/cloudevents+json").body(event.to_string());
    assert_eq!(send(structured).await.0, StatusCode::OK);
    let messages = server.messages().await;
    let ids: Vec<&str> = messages.iter().map(|message| message.id.as_deref().unwrap()).collect();
    assert_eq!((ids[0], ids[1], ids[3]), ("/shop 1", "/store 1", "/shop 1"), "the last one is a resend of the first");
    assert!(ids[2].starts_with("sha256:"), "{ids:?}");
    assert_eq!(messages[2].headers.get("ce-source"), Some(long.as_str()));
}

#[tokio::test]
async fn lines_are_appended_in_order_and_every_bad_one_is_named() {
    let server = Server::start().await;
    let mut lines: Vec<String> = (0..2500).map(|n| format!("{{\"n\":{n}}}")).collect();
    lines[1] = "{".into();
    lines[2000] = String::new();
    let request = server.post("a").header("content-type", "application/x-ndjson").header("Sluicebox-Key", "k");
    let (status, answer) = send(request.body(lines.join("\r\n"))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["error"], "1 of 2499 lines were not accepted");
    assert_eq!((&answer["accepted"], &answer["bad"]), (&json!(2498), &json!(1)));
    let stored = server.messages().await;
    let offsets = (json!(stored[0].offset.0), json!(stored[2497].offset.0));
    assert_eq!((&answer["first_offset"], &answer["last_offset"]), (&offsets.0, &offsets.1));
    assert_eq!(answer["settled_line"], 2500);
    assert_eq!(answer["bad_lines"][0]["line"], 2);
    assert!(answer["bad_lines"][0]["error"].as_str().unwrap().starts_with("not JSON: EOF"));
    let bodies: Vec<_> = server.messages().await.iter().map(|m| String::from_utf8(m.body.to_vec()).unwrap()).collect();
    lines.retain(|line| line.len() > 1);
    assert_eq!(bodies, lines);

    let many_bad = "x\n".repeat(500);
    let request = server.post("a").header("content-type", "application/x-ndjson").body(many_bad);
    let (_, answer) = send(request).await;
    assert_eq!((answer["bad"].as_u64(), answer["bad_lines"].as_array().unwrap().len()), (Some(500), 100));
    let request = server.post("a").header("content-type", "application/x-ndjson").body("1\n2\n");
    let (status, answer) = send(request).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(2)));
}

#[tokio::test]
async fn lines_that_came_are_in_the_log_while_the_next_one_is_waited_for() {
    let server = Server::start().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<&str, std::io::Error>>(1);
    let lines = futures_util::stream::unfold(receiver, async |mut receiver| {
        let line = receiver.recv().await?;
        Some((line, receiver))
    });
    let request = server.post("a").header("content-type", "application/x-ndjson");
    let answer = tokio::spawn(send(request.body(reqwest::Body::wrap_stream(lines))));
    let mut events = Events::open(server.get("/v1/topics/a/tail?from=earliest")).await;
    for (body, line) in ["1\n2\n", "3\n"].into_iter().enumerate() {
        sender.send(Ok(line)).await.unwrap();
        let expected = if body == 0 { vec![1, 2] } else { vec![3] };
        let came = tokio::time::timeout(Duration::from_secs(20), events.bodies(expected.len())).await;
        assert_eq!(came, Ok(expected), "lines wait for those after them");
    }
    drop(sender);
    let (status, answer) = answer.await.unwrap();
    assert_eq!((status, &answer["accepted"], &answer["settled_line"]), (StatusCode::OK, &json!(3), &json!(3)));
}

#[tokio::test]
async fn a_line_may_be_a_message_with_its_key_id_and_headers() {
    let server = Server::start().await;
    let lines = [
        r#"{"offset":7,"topic":"b","time":"2026-01-31T08:00:00.000Z","hops":1,"key":"ada","id":"1","headers":[["Tenant","x"]],"body":"text"}"#,
        r#"{"headers":{"tenant":"y"},"body":{"n": 1e400}}"#,
        r#"{"body_base64":"/w=="}"#,
        r#"{"kye":"ada"}"#,
        r#"{"body":"","body_base64":""}"#,
        "5",
    ];
    let post = |path: &str| server.post(path).header("content-type", "application/x-ndjson");
    let request = post("a?lines=messages").header("Sluicebox-Key", "all").body(lines.join("\n"));
    let (status, answer) = send(request).await;
    assert_eq!((status, &answer["accepted"]), (StatusCode::BAD_REQUEST, &json!(3)));
    let errors: Vec<&str> =
        answer["bad_lines"].as_array().unwrap().iter().map(|bad| bad["error"].as_str().unwrap()).collect();
    assert!(errors[0].contains("unknown field `kye`") && errors[1].contains("both `body`"), "{errors:?}");
    assert!(errors[2].starts_with("not a message"), "{errors:?}");
    let messages = server.messages().await;
    let shown: Vec<_> = messages
        .iter()
        .map(|message| {
            let key = message.key.as_ref().map(|key| key.as_str());
            (message.topic.as_str(), key, message.id.as_deref(), message.headers.get("tenant"), &message.body[..])
        })
        .collect();
    let expected: [(_, _, _, _, &[u8]); 3] = [
        ("a", Some("ada"), Some("1"), Some("x"), b"text"),
        ("a", Some("all"), None, Some("y"), br#"{"n": 1e400}"#),
        ("a", Some("all"), None, None, b"\xff"),
    ];
    assert_eq!(shown, expected);
    assert_eq!(send(post("a?lines=words").body("1")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(send(server.post("a?lines=bodies").body("1")).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_that_is_no_text_is_shown_as_base64() {
    let server = Server::start().await;
    send(server.post("a").body(vec![0xff])).await;
    let mut events = Events::open(server.get("/v1/topics/a/tail?from=earliest")).await;
    let (_, message) = events.next().await.unwrap();
    assert_eq!((&message["body"], &message["body_base64"]), (&Value::Null, &json!("/w==")));
    assert!(message["time"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn ready_says_why_not() {
    let server = Server::start().await;
    let (status, answer) = send(server.get("/readyz")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer["error"], "not ready: loading handlers");
    assert_eq!(server.get("/livez").send().await.unwrap().status(), StatusCode::OK);
    server.readiness.set_ready();
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), StatusCode::OK);
    server.readiness.set_unready("stopping");
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn dead_letters_and_status_are_shown() {
    let server = Server::start().await;
    let offsets = server.append("events.made", 0..5).await;
    stage::route(&server.log, "order", KeyFrom::None, 1).await;
    stage::bury(&server.log, "order", 0, &offsets[..3], |_, _| {}).await;

    let (_, page) = send(server.get("/v1/dead?handler=order&limit=2")).await;
    let numbers = |page: &Value| -> Vec<u64> {
        page["letters"].as_array().unwrap().iter().map(|letter| letter["number"].as_u64().unwrap()).collect()
    };
    let first = numbers(&page);
    assert_eq!(first.len(), 2);
    assert_eq!(page["next_below"], first[1]);
    let (_, rest) = send(server.get(&format!("/v1/dead?below={}", first[1]))).await;
    assert_eq!((numbers(&rest).len(), &rest["next_below"]), (1, &Value::Null));
    let (_, letter) = send(server.get(&format!("/v1/dead/{}", first[0]))).await;
    assert_eq!((&letter["error"], &letter["time"]), (&json!("no such user"), &json!("1970-01-01T00:00:00.000Z")));
    assert_eq!(letter["message"]["topic"], "events.made");

    let (_, status) = send(server.get("/v1/status")).await;
    assert_eq!((&status["namespace"], &status["log"]["end"]), (&json!("shop"), &json!(offsets[4])));
    assert_eq!(status["not_ready"], "loading handlers");
    let order = &status["handlers"][0];
    assert_eq!((&order["name"], &order["subscribe"]), (&json!("order"), &json!(["events.*"])));
    assert_eq!(
        (&order["behind"], &order["dead"], &order["shards"][0]["read"]),
        (&json!(2), &json!(3), &json!(offsets[2]))
    );
}

#[tokio::test]
async fn requests_are_counted_by_route_and_code() {
    let server = Server::start().await;
    send(server.post("events.made").body("1")).await;
    send(server.get("/nowhere/1")).await;
    send(server.get("/nowhere/2")).await;
    let rendered = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        r#"sluicebox_http_requests_total{code="200",route="/v1/topics/{topic}"} 1"#,
        r#"sluicebox_http_requests_total{code="404",route="unknown"} 2"#,
        "sluicebox_http_messages_appended_total 1",
    ] {
        assert!(rendered.lines().any(|shown| shown == line), "no {line}\n{rendered}");
    }
}

#[tokio::test]
async fn a_client_that_sends_too_slowly_is_hung_up_on() {
    let quick = |face: &mut Face| {
        face.limits.head_timeout = Duration::from_millis(50);
        face.limits.body_timeout = Duration::from_millis(50);
    };
    let server = Server::start_with(quick, None, [127, 0, 0, 1]).await;
    for begun in ["", "POST /v1/top", "POST /v1/topics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabc"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.contains("408"), begun.ends_with("abc"), "{begun}: {answer}");
    }
    assert!(server.messages().await.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_free_place() {
    let server = Server::start_with(|face| face.limits.connections_max = 1, None, [127, 0, 0, 1]).await;
    let mut events = Events::open(server.get("/v1/topics/a/tail")).await;
    let second = tokio::spawn(server.get("/livez").send());
    server.append("a", 0..1).await;
    assert_eq!(events.bodies(1).await, [0]);
    assert_eq!(server.metrics.http().connections.get(), 1);
    assert!(!second.is_finished());
    drop(events);
    assert_eq!(second.await.unwrap().unwrap().status(), StatusCode::OK);
}
