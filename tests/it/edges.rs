//! Plain NATS clients on both sides of the real program: what they publish is in the log once, and what was committed they
//! get, whatever is killed meanwhile. The clients know nothing of the product.

mod denied;
mod egress;
mod ingress;
mod rates;

use crate::harness::everything;
use crate::harness::guests::handler;
use crate::harness::nats::OwnServer;
use crate::harness::process::Place;
use async_nats::Client;
use async_nats::jetstream::stream::{Config, Stream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sluicebox::log::nats::{NatsLog, Options};
use sluicebox::topic::Pattern;
use std::path::Path;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// A server and a host on it with these lines in `[log]`, and handlers.
struct Edge {
    server: OwnServer,
    place: Place,
}

impl Edge {
    fn new(edges: &str, handlers: &str, module: &str) -> Self {
        Self::on(OwnServer::start(), edges, handlers, Some(module))
    }

    fn without_handlers(edges: &str) -> Self {
        Self::on(OwnServer::start(), edges, "", None)
    }

    fn on(server: OwnServer, edges: &str, handlers: &str, module: Option<&str>) -> Self {
        let modules: Vec<_> = module.map(handler).into_iter().collect();
        let modules: Vec<&Path> = modules.iter().map(AsRef::as_ref).collect();
        let place = Place::new("", &modules);
        let edge = Self { server, place };
        edge.settings(edges, handlers);
        edge
    }

    fn settings(&self, edges: &str, handlers: &str) {
        let url = self.server.url();
        let text = format!(
            "namespace = \"t\"\n[log]\nkind = \"nats\"\nurl = \"{url}\"\n{edges}\n[http]\nlisten = \"127.0.0.1:0\"\n{handlers}"
        );
        std::fs::write(self.place.path().join("sluicebox.toml"), text).unwrap();
    }

    async fn client(&self) -> Client {
        async_nats::ConnectOptions::new().retry_on_initial_connect().connect(self.server.url()).await.unwrap()
    }

    /// What is in the log, as a reader beside the host sees it.
    async fn log(&self) -> NatsLog {
        NatsLog::open(Options::new(self.server.url(), "t")).await.unwrap()
    }
}

/// The example's handler for alarms.
fn alarm() -> String {
    let example = include_str!("../../handlers/sluicebox.toml");
    let (_, settings) = example.split_once("[handlers.alarm]").unwrap();
    format!("[handlers.alarm]{}", settings.split("\n[").next().unwrap())
}

const ALARM: &str = "ingress = [\"AlarmStatusChanged\", \"SendAlarmDigest\"]\negress = [\"AlarmDigest\"]";

/// Publishes and waits until the server has it for good.
async fn send(client: &Client, subject: &str, body: &Value) {
    let context = async_nats::jetstream::new(client.clone());
    context.publish(subject.to_owned(), body.to_string().into()).await.unwrap().await.unwrap();
}

async fn stream_on(client: &Client, config: Config) -> Stream {
    async_nats::jetstream::new(client.clone()).create_stream(config).await.unwrap()
}

/// The bodies in a stream, in its order.
async fn collected(stream: &Stream) -> Vec<String> {
    let state = stream.get_info().await.unwrap().state;
    let mut bodies = vec![];
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let found = stream.get_raw_message(sequence).await.unwrap();
        bodies.push(String::from_utf8(found.payload.to_vec()).unwrap());
    }
    bodies
}

/// The bodies in the log on topics of a pattern, in its order.
async fn events_in(log: &NatsLog, pattern: &str) -> Vec<String> {
    let pattern = Pattern::parse(pattern).unwrap();
    let all = everything(log).await;
    let found = all.iter().filter(|message| pattern.matches(&message.topic));
    found.map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

/// Publishes what no library would: these bytes are the headers.
async fn raw(url: &str, subject: &str, headers: &[u8], body: &[u8]) {
    let mut wire = BufReader::new(TcpStream::connect(url.strip_prefix("nats://").unwrap()).await.unwrap());
    let mut line = String::new();
    wire.read_line(&mut line).await.unwrap();
    let line = format!("HPUB {subject} {} {}\r\n", headers.len(), headers.len() + body.len());
    let sent: [&[u8]; 5] =
        [b"CONNECT {\"verbose\":false,\"headers\":true}\r\n", line.as_bytes(), headers, body, b"\r\nPING\r\n"];
    wire.write_all(&sent.concat()).await.unwrap();
    let mut line = String::new();
    wire.read_line(&mut line).await.unwrap();
    assert_eq!(line, "PONG\r\n");
}

#[tokio::test]
async fn plain_clients_on_both_sides_of_alarm_know_nothing_of_the_host() {
    let edge = Edge::new(ALARM, &alarm(), "alarm");
    let host = edge.place.start();
    let client = edge.client().await;
    let mut digests = client.subscribe("AlarmDigest").await.unwrap();
    client.flush().await.unwrap();
    let changed = json!({"AlarmID": "a", "UserID": "ada", "Status": "CRITICAL", "ChangedAt": "2026-01-01T00:00:00Z"});
    send(&client, "AlarmStatusChanged", &changed).await;
    send(&client, "SendAlarmDigest", &json!({"UserID": "ada"})).await;
    let digest = digests.next().await.unwrap();
    let headers = digest.headers.unwrap();
    assert_eq!(headers.get("Sluicebox-Key").map(|key| key.as_str()), Some("ada"));
    assert!(headers.get("Nats-Msg-Id").unwrap().as_str().starts_with("t."));
    let body: Value = serde_json::from_slice(&digest.payload).unwrap();
    assert_eq!(body["ActiveAlarms"][0]["AlarmID"], "a");
    assert!(host.stop().success());
}
