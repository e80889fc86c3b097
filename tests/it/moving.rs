//! A log is moved by the real program, from kind to kind, as operators do it: hosts stop or are killed, the log is
//! exported, imported where other settings say, and hosts go on there.

use crate::checker;
use crate::crash::{SETTINGS, history_of, ids, load, load_all};
use crate::harness::guests::guest;
use crate::harness::process::{PROGRAM, Place, Process};
use crate::harness::servers::fresh_namespace;
use crate::harness::{PATIENCE, nats, redis};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use sluicebox::log::Log;
use sluicebox::log::embedded::EmbeddedLog;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Where a log is, and how a host is told.
struct Home {
    kind: &'static str,
    namespace: String,
    place: Place,
}

impl Home {
    fn new(kind: &'static str, handlers: &str) -> Self {
        let home = Self { kind, namespace: fresh_namespace(), place: Place::new("", &[&guest("ledger")]) };
        let log = match kind {
            "embedded" => "path = \"data\"".to_owned(),
            "nats" => format!("url = \"{}\"", nats::url()),
            _ => format!("url = \"{}\"", redis::url()),
        };
        let settings = format!(
            "namespace = \"{}\"\n[log]\nkind = \"{kind}\"\n{log}\n[host]\nlease = \"1s\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\n{handlers}",
            home.namespace
        );
        home.place.put("sluicebox.toml", settings);
        home
    }

    /// What is durable.
    fn log(&self) -> Arc<dyn Log> {
        match self.kind {
            "embedded" => Arc::new(EmbeddedLog::open_read_only(&self.place.data()).unwrap()),
            "nats" => nats::open(&self.namespace).unwrap(),
            _ => redis::open(&self.namespace).unwrap(),
        }
    }

    #[track_caller]
    fn typed(&self, arguments: &[&str], exit: i32) -> String {
        let (found, output, said) = self.place.command(arguments);
        assert_eq!(found, exit, "{} {arguments:?}: {output}{said}", self.kind);
        format!("{output}{said}")
    }

    /// Exports the log to a file.
    fn export(&self) -> PathBuf {
        let file = self.place.path().join("log.export");
        drop(std::fs::remove_file(&file));
        let said = self.typed(&["export", "log.export"], 0);
        assert!(said.contains("start no host on this log any more"), "{said}");
        file
    }

    fn import(&self, file: &Path) {
        let said = self.typed(&["import", file.to_str().unwrap()], 0);
        assert!(said.contains("imported in"), "{said}");
    }

    /// The log at another place.
    fn moved(self, kind: &'static str, handlers: &str) -> Self {
        let file = self.export();
        let home = Self::new(kind, handlers);
        home.import(&file);
        home
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_moves_from_kind_to_kind_between_kills_loses_nothing_and_does_nothing_twice() {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut acknowledged = BTreeSet::new();
    let kinds = ["embedded", "nats", "redis", "embedded", "redis", "nats", "embedded"];
    let mut home = Home::new(kinds[0], SETTINGS);
    let mut open = 0;
    for (round, kind) in kinds.into_iter().enumerate() {
        if round > 0 {
            home = home.moved(kind, SETTINGS);
        }
        let host = home.place.start();
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        // What was sent in the rounds before, to other logs, is sent again under the same ids.
        let again = round.saturating_sub(1);
        let work = async {
            let resent = load_all(&host, again, 100, seed ^ again as u64).await;
            [resent, load_all(&host, round, 400, seed ^ round as u64).await].concat()
        };
        let life = Duration::from_millis(rng.random_range(300..1200));
        let killer = async {
            // Not a wait for something to happen: the moment of the kill is what the round is about.
            let _ = tokio::time::timeout(life, std::future::pending::<()>()).await;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        acknowledged.extend(tokio::join!(work, killer).0);
        assert!(!host.ended().success());
        open += home.log().status().await.unwrap().iter().map(|shard| shard.open + shard.behind).sum::<u64>();
    }
    let host = home.place.start();
    host.until("everything is settled", async |_| {
        let log = home.log();
        let status = log.status().await.unwrap();
        let is_done = status.iter().all(|shard| shard.open == 0 && shard.delayed == 0);
        is_done && checker::check(&history_of(&*log).await).is_ok()
    })
    .await;
    host.stop();
    let history = history_of(&*home.log()).await;
    checker::check(&history).unwrap();
    let known = ids(&history);
    let lost: Vec<&String> = acknowledged.iter().filter(|id| !known.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and not in the log: {lost:?}");
    println!(
        "{} moves, {} acknowledged, {} messages, {open} open or not read at the kills, {} dead letters",
        kinds.len() - 1,
        acknowledged.len(),
        history.messages.len(),
        history.dead.len()
    );
    assert!(acknowledged.len() > 300 && open > 0, "the load was too small to show anything");
}

const WAITING: &str = r#"
[handlers.first]
module = "ledger.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
shards = 3
key = "/key"
id = "/id"
retry = { attempts = 4 }
"#;

/// The body is JSON for key and id, so it is `ok` to the handler; what it is told stands in front.
async fn send(host: &Process, key: &str, id: &str, body: &str) {
    assert!(host.publish("in", Some(key), Some(id), body).await);
}

async fn asked(host: &Process, path: &str) -> Value {
    serde_json::from_str(&host.get(path).await).unwrap()
}

/// What waits, and why, and what was given up, without what only says how a page ends.
async fn carried(host: &Process) -> Value {
    let waiting = asked(host, "/v1/handlers/first/waiting").await;
    let delayed = asked(host, "/v1/handlers/_delay/waiting").await;
    let dead = asked(host, "/v1/dead").await;
    json!({ "waiting": waiting["open"], "delayed": delayed["delayed"], "dead": dead["letters"] })
}

#[tokio::test]
async fn what_waits_what_is_delayed_what_was_given_up_and_what_operators_said_goes_along() {
    let handlers = WAITING.replace("key = \"/key\"\nid = \"/id\"\n", "");
    let mut home = Home::new("embedded", &handlers);
    let host = home.place.start();
    send(&host, "a", "done", "ok").await;
    send(&host, "b", "waits", "wait 9").await;
    send(&host, "b", "behind", "ok").await;
    send(&host, "c", "dies", "reject").await;
    let url = host.url.clone();
    home.typed(&["publish", "in", "later", "--key", "a", "--delay", "1h", "--url", &url], 0);
    home.typed(&["handlers", "pause", "first", "--key", "p", "--url", &url], 0);
    send(&host, "p", "paused", "ok").await;
    host.until("one is dead, one waits and one is delayed", async |host| {
        let found = carried(host).await;
        let count = |what: &str| found[what].as_array().map_or(0, Vec::len);
        count("waiting") >= 1 && count("delayed") == 1 && count("dead") == 1
    })
    .await;
    assert!(host.stop().success());
    // What is paused is written down at the stop.
    let host = home.place.start();
    let before = carried(&host).await;
    assert_eq!(before["waiting"].as_array().map(Vec::len), Some(2), "{before}");
    assert!(host.stop().success());
    for kind in ["nats", "redis", "embedded"] {
        home = home.moved(kind, &handlers);
        let host = home.place.start();
        assert_eq!(carried(&host).await, before, "{kind}");
        // What was done before is a duplicate, and what is paused stays so.
        send(&host, "a", "done", "ok").await;
        let name = r#"messages_total{handler="first",outcome="duplicate",topic="in"}"#;
        host.until("it is known", async |host| host.metric(name).await == 1).await;
        assert!(host.stop().success());
    }
    let host = home.place.start();
    let dead = before["dead"][0]["number"].to_string();
    home.typed(&["handlers", "resume", "first", "--key", "p", "--url", &host.url], 0);
    home.typed(&["dead", "retry", &dead, "--yes", "--url", &host.url], 0);
    let name = r#"messages_total{handler="first",outcome="done",topic="in"}"#;
    host.until("what was paused is done", async |host| host.metric(name).await >= 1).await;
    host.until("it died again", async |host| {
        let dead = asked(host, "/v1/dead").await;
        let letters = dead["letters"].as_array().cloned().unwrap_or_default();
        letters.len() == 1 && letters[0]["number"].as_u64() > before["dead"][0]["number"].as_u64()
    })
    .await;
}

#[tokio::test]
async fn an_import_that_is_killed_anywhere_imports_nothing_and_can_be_typed_again() {
    let source = Home::new("embedded", SETTINGS);
    let host = source.place.start();
    let acknowledged = load(&host, 0, 300, 7).await;
    assert_eq!(acknowledged.len(), 300);
    assert!(host.stop().success());
    let file = source.export();
    let bytes = std::fs::read(&file).unwrap();
    for kind in ["embedded", "nats", "redis"] {
        let home = Home::new(kind, SETTINGS);
        for part in [20, 600, bytes.len() / 3, bytes.len() - 1] {
            let mut child = Command::new(PROGRAM)
                .args(["import", "-"])
                .current_dir(home.place.path())
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(&bytes[..part]).unwrap();
            let taken = async {
                let mut pace = tokio::time::interval(Duration::from_millis(10));
                while rustix::io::ioctl_fionread(&input).unwrap() > 0 {
                    pace.tick().await;
                }
            };
            tokio::time::timeout(PATIENCE, taken).await.expect("it does not read what it is given");
            child.kill().unwrap();
            child.wait().unwrap();
            match kind {
                "embedded" => assert!(!home.place.data().join("sluicebox.db").exists()),
                _ => {
                    let found = if kind == "nats" { nats::open(&home.namespace) } else { redis::open(&home.namespace) };
                    let is_refused = found.as_ref().is_err_and(|error| error.to_string().contains("begin it again"));
                    let is_empty = match &found {
                        Ok(log) => log.end().await.unwrap().0 == 0 && log.status().await.unwrap().is_empty(),
                        Err(_) => false,
                    };
                    assert!(is_refused || is_empty, "{kind} after {part} bytes");
                }
            }
        }
        if kind != "embedded" {
            let (code, _, said) = home.place.command(&["run"]);
            assert!(code == 1 && said.contains("sluicebox import"), "{said}");
        }
        home.import(&file);
        let said = home.typed(&["import", file.to_str().unwrap()], 1);
        assert!(said.contains("not empty") || said.contains("there is a log"), "{said}");
        assert_eq!(ids(&history_of(&*home.log()).await).len(), ids(&history_of(&*source.log()).await).len());
    }
    if cfg!(debug_assertions) {
        for point in ["import:1", "import:2", "import-before-sync", "import-before-rename", "import-after-rename"] {
            let home = Home::new("embedded", SETTINGS);
            let mut command = Command::new(PROGRAM);
            command.args(["import", file.to_str().unwrap()]).current_dir(home.place.path());
            command.env("SLUICEBOX_CRASH_POINT", point);
            assert!(!command.output().unwrap().status.success(), "{point}");
            let is_there = home.place.data().join("sluicebox.db").exists();
            assert_eq!(is_there, point == "import-after-rename", "{point}");
            if !is_there {
                home.import(&file);
            }
            assert_eq!(ids(&history_of(&*home.log()).await).len(), ids(&history_of(&*source.log()).await).len());
        }
    }
}

#[tokio::test]
async fn a_log_that_a_host_works_on_is_neither_exported_nor_imported_into() {
    let source = Home::new("embedded", SETTINGS);
    source.typed(&["export", "log.export"], 1);
    source.place.start().stop();
    let file = source.export();
    let said = source.typed(&["export", "log.export"], 2);
    assert!(said.contains("name a file that does not"), "{said}");
    for kind in ["embedded", "nats", "redis"] {
        let home = Home::new(kind, SETTINGS);
        let said = home.typed(&["export", "other.export"], 1);
        assert!(said.contains("nothing to export"), "{kind}: {said}");
        let host = home.place.start();
        for arguments in [["export", "other.export"], ["import", file.to_str().unwrap()]] {
            let said = home.typed(&arguments, 1);
            assert!(said.contains("is in use by") || said.contains("works on the log"), "{kind} {arguments:?}: {said}");
            assert!(!home.place.path().join("other.export").exists());
        }
        assert!(host.stop().success());
    }
}

#[test]
fn what_is_no_whole_export_is_refused_and_said() {
    let home = Home::new("embedded", SETTINGS);
    home.place.put("other", "something else");
    let said = home.typed(&["import", "other"], 1);
    assert!(said.contains("no export of a log"), "{said}");
    assert!(!home.place.data().exists());
    let said = home.typed(&["import", "nowhere"], 1);
    assert!(said.contains("failed to import `nowhere`"), "{said}");
}

#[test]
fn dev_on_a_server_that_is_not_there_says_in_one_line_what_to_start_and_starts_nothing() {
    for (kind, command) in [("nats", "nats-server -js"), ("redis", "redis-server --appendonly yes")] {
        let place = Place::new("", &[]);
        let url = format!("{kind}://127.0.0.1:1");
        place.put("sluicebox.toml", format!("namespace = \"t\"\n[log]\nkind = \"{kind}\"\nurl = \"{url}\"\n"));
        let (code, output, said) = place.command(&["dev", ".", "--log", kind]);
        assert_eq!((code, output.as_str()), (1, ""), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&url) && said.contains(command), "{said}");
    }
}
