//! Plain Redis clients on both sides of the real program: what they add to its stream is in the log once, what they publish on
//! channels comes in while somebody listens, and what was committed they hear.

mod channels;
mod egress;
mod ingress;

use crate::harness::everything;
use crate::harness::guests::handler;
use crate::harness::process::Place;
use crate::harness::redis::{Options, OwnServer, Wire, open_own};
use serde_json::{Value, json};
use sluicebox::log::redis::RedisLog;
use sluicebox::topic::Pattern;
use std::path::Path;
use std::sync::Arc;

/// The stream that plain clients add to.
const IN: &str = "sb:{t}:in";
const TAKEN: &str = r#"ingress_messages_total{result="taken"}"#;
const UNFIT: &str = r#"ingress_messages_total{result="unfit"}"#;

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
        let place = Self::beside(&server, edges, handlers, module);
        Self { server, place }
    }

    /// Another host's place.
    fn beside(server: &OwnServer, edges: &str, handlers: &str, module: Option<&str>) -> Place {
        let modules: Vec<_> = module.map(handler).into_iter().collect();
        let modules: Vec<&Path> = modules.iter().map(AsRef::as_ref).collect();
        let place = Place::new("", &modules);
        let url = server.url();
        let text = format!(
            "namespace = \"t\"\n[log]\nkind = \"redis\"\nurl = \"{url}\"\n{edges}\n[http]\nlisten = \"127.0.0.1:0\"\n{handlers}"
        );
        std::fs::write(place.path().join("sluicebox.toml"), text).unwrap();
        place
    }

    fn wire(&self) -> Wire {
        Wire::connect(&self.server.url()).unwrap()
    }

    /// What is in the log, as a reader beside the host sees it.
    fn log(&self) -> Arc<RedisLog> {
        open_own(Options::new(self.server.url(), "t")).unwrap()
    }
}

/// Adds an entry, and the answer is its id.
#[track_caller]
fn add(wire: &mut Wire, topic: &str, body: &str) {
    let answer = wire.asked(&["XADD", IN, "*", "topic", topic, "body", body]).unwrap();
    assert!(answer.contains('-') && !answer.starts_with('-'), "{answer}");
}

/// The bodies in the log on topics of a pattern, in its order.
async fn events_in(log: &RedisLog, pattern: &str) -> Vec<String> {
    let pattern = Pattern::parse(pattern).unwrap();
    let all = everything(log).await;
    let found = all.iter().filter(|message| pattern.matches(&message.topic));
    found.map(|message| String::from_utf8(message.body.to_vec()).unwrap()).collect()
}

/// The example's handler for alarms.
fn alarm() -> String {
    let example = include_str!("../../../handlers/sluicebox.toml");
    let (_, settings) = example.split_once("[handlers.alarm]").unwrap();
    format!("[handlers.alarm]{}", settings.split("\n[").next().unwrap())
}

#[tokio::test]
async fn redis_cli_on_both_sides_of_alarm_knows_nothing_of_the_host() {
    let edges = "ingress = [\"AlarmStatusChanged\", \"SendAlarmDigest\"]\negress = [\"AlarmDigest\"]";
    let edge = Edge::new(edges, &alarm(), "alarm");
    let host = edge.place.start();
    let digests = edge.server.subscribe("AlarmDigest");
    let changed = json!({"AlarmID": "a", "UserID": "ada", "Status": "CRITICAL", "ChangedAt": "2026-01-01T00:00:00Z"});
    for (topic, body) in [("AlarmStatusChanged", changed), ("SendAlarmDigest", json!({"UserID": "ada"}))] {
        let body = body.to_string();
        let output = edge.server.cli().args(["XADD", IN, "*", "topic", topic, "body", &body]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let body: Value = serde_json::from_str(&digests.next()).unwrap();
    assert_eq!((&body["UserID"], &body["ActiveAlarms"][0]["AlarmID"]), (&json!("ada"), &json!("a")));
    assert!(host.stop().success());
}

/// As a shell takes them.
#[tokio::test]
async fn the_lines_of_the_readme_work_as_they_are_typed() {
    let readme = include_str!("../../../README.md");
    let line = |begin: &str| readme.lines().find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("{begin}"));
    let edge = Edge::without_handlers("ingress = [\"orders.>\"]\ningress_channels = [\"sensors.>\"]");
    let host = edge.place.start();
    let cli = edge.server.cli();
    for line in [line("redis-cli XADD "), line("redis-cli PUBLISH ")] {
        let typed =
            line.replacen("redis-cli", &format!("{} -p {}", cli.get_program().display(), edge.server.port()), 1);
        let typed = typed.replace("sb:{shop}", "sb:{t}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &typed]).envs(cli.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
    host.until("both are taken", async |host| host.metric(TAKEN).await == 2).await;
    assert!(host.stop().success());
    let all = everything(&*edge.log()).await;
    let mut found: Vec<_> = all.iter().map(|message| (message.topic.as_str(), message.id.as_deref())).collect();
    found.sort();
    assert_eq!(found, [("orders.new", Some("o-1")), ("sensors.hall", None)]);
}
