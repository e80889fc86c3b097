//! What an operator types: handlers and dead letters.

use super::*;
use crate::commit::{Control, DeadQuery, Over, Pin};
use crate::control::Command;
use crate::handler::Digest;
use crate::http::running::{BreakerView, RunningHandler};
use crate::http::tests::stage::{self, Double, runs};
use crate::log::memory::MemoryLog;
use crate::log::{Log as _, Tail};
use crate::message::{Key, NewMessage};
use crate::routing::KeyFrom;
use crate::topic::Topic;

/// A host with `order` (two shards, versions a and b) and `audit`; `old` is in no settings any more.
fn host(change: impl FnOnce(&mut Vec<RunningHandler>)) -> Host {
    let mut handlers = vec![runs("audit", &["x"]), runs("order", &["a", "b"])];
    change(&mut handlers);
    let host = Host::start_with(|face| face.attach(Arc::new(Double { handlers, ..Double::default() })), None);
    for (handler, shards) in [("order", 2), ("audit", 1), ("old", 1)] {
        host.runtime.block_on(stage::route(&host.log, handler, KeyFrom::Message, shards));
    }
    host
}

/// Gives messages up: this many of each shard.
fn bury(host: &Host, letters: &[(&str, u16, usize)]) {
    host.runtime.block_on(async {
        for (handler, shard, count) in letters {
            let message = NewMessage::new(Topic::parse("events.made").unwrap(), "{}");
            let offsets = host.log.append(vec![message; *count]).await.unwrap();
            let offsets: Vec<u64> = offsets.into_iter().map(|offset| offset.0).collect();
            stage::bury(&host.log, handler, *shard, &offsets, |_, letter| letter.kind = "trap".into()).await;
        }
    });
}

/// Does what shards do about orders: a few letters with each commit.
async fn execute_orders(log: Arc<MemoryLog>, mut tail: Box<dyn Tail>) {
    while let Some(Ok(batch)) = tail.next().await {
        for message in batch.messages.iter().filter(|message| message.topic.as_str().starts_with("_control")) {
            let (Command::DropDead { filter } | Command::RetryDead { filter, .. }) = Command::read(message).unwrap()
            else {
                continue;
            };
            loop {
                let Some(letter) = log.dead(DeadQuery::newest(filter.clone(), 1)).await.unwrap().pop() else { break };
                stage::commit(&log, &letter.letter.shard, |commit| commit.dead_drop = vec![letter.number]).await;
                tokio::task::yield_now().await;
            }
        }
    }
}

fn with_shards(host: &Host) {
    let tail = host.runtime.block_on(host.log.tail()).unwrap();
    host.runtime.spawn(execute_orders(host.log.clone(), tail));
}

/// Every command in the log, as `handler {…}`.
fn commands(host: &Host) -> Vec<String> {
    let command = |message: &Arc<crate::message::Message>| {
        let handler = message.topic.as_str().strip_prefix("_control.")?;
        Some(format!("{handler} {}", std::str::from_utf8(&message.body).unwrap()))
    };
    host.messages().iter().filter_map(command).collect()
}

#[test]
fn wrong_usage_of_an_operators_command_says_what_is_right() {
    let cases: &[(&[&str], Exit, &str)] = &[
        (&["handlers"], Exit::Usage, "rollback"),
        (&["handlers", "stop", "order"], Exit::Usage, "unrecognized subcommand 'stop'"),
        (&["handlers", "pause"], Exit::Usage, "<NAME>"),
        (&["handlers", "pause", "Order"], Exit::Usage, "`Order` is not a handler name: use a-z"),
        (&["handlers", "pause", "order", "--key", ""], Exit::Usage, "a key is not empty"),
        (&["handlers", "pause", "order", "--key", &"x".repeat(257)], Exit::Usage, "the key has 257 bytes"),
        (&["handlers", "breaker", "order"], Exit::Usage, "unrecognized subcommand 'order'"),
        (&["handlers", "rollback"], Exit::Usage, "<NAME>"),
        (&["dead", "list", "--topic", "a..b"], Exit::Usage, "`a..b` has an empty token"),
        (&["dead", "list", "--shard", "70000"], Exit::Usage, "70000 is not in 0..=65535"),
        (&["dead", "count", "--number", "1,x"], Exit::Usage, "the number that `sluicebox dead list` shows"),
        (&["dead", "retry", "--below", "3"], Exit::Usage, "unexpected argument '--below'"),
        (
            &["dead", "retry"],
            Exit::Usage,
            "say which dead letters to retry: their numbers, --handler, --shard, --key, --topic, --kind, or --all",
        ),
        (&["dead", "drop", "--yes"], Exit::Usage, "say which dead letters to drop"),
    ];
    for (arguments, exit, expected) in cases {
        check(arguments, *exit, expected);
    }
}

#[test]
fn what_only_a_host_can_do_says_so_without_one() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let expected = format!(
        "only a running host can execute this: could not reach a host at {url}: start one with `sluicebox run`, or name a \
         running one with --url"
    );
    for command in [
        &["handlers", "pause", "order"][..],
        &["handlers", "resume", "order"],
        &["handlers", "rollback", "order"],
        &["handlers", "unpin", "order"],
        &["handlers", "breaker", "trip", "order"],
        &["handlers", "breaker", "reset", "order"],
        &["handlers", "forget", "order", "--yes"],
        &["dead", "retry", "--all", "--yes"],
        &["dead", "drop", "--handler", "order"],
    ] {
        check(&[command, &["--url", &url]].concat(), Exit::Unreachable, &expected);
    }
}

#[test]
fn a_command_is_in_the_log_when_it_returns() {
    let host = host(|_| {});
    let digest = |version: &str| Digest::of(version.as_bytes());
    let pin = format!(r#"{{"command":"rollback","pin":{{"digest":"{}","over":"{}"}}}}"#, digest("a"), digest("b"));
    let cases: &[(&[&str], &str, &str)] = &[
        (&["pause", "order"], "pause", r#"{"command":"pause"}"#),
        (&["pause", "order", "--key", "ada"], "pause of key \"ada\"", r#"{"command":"pause-key","key":"ada"}"#),
        (&["resume", "order", "--key", "ada"], "resume of key \"ada\"", r#"{"command":"resume-key","key":"ada"}"#),
        (&["resume", "order"], "resume", r#"{"command":"resume"}"#),
        (&["breaker", "trip", "order"], "trip", r#"{"command":"trip"}"#),
        (&["breaker", "reset", "order"], "reset", r#"{"command":"reset"}"#),
        (&["rollback", "order"], "rollback", &pin),
        (&["rollback", "order", &digest("a").to_string()[..8]], "rollback", &pin),
        (&["unpin", "order"], "unpin", r#"{"command":"unpin"}"#),
    ];
    for (arguments, shown, command) in cases {
        let (exit, text, error) = host.run(&[&["handlers"], *arguments].concat());
        assert_eq!((exit, error.as_str()), (Exit::Done, ""), "{arguments:?}");
        let last = host.messages().pop().unwrap();
        assert_eq!(text, format!("order: {shown} is in the log at offset {}\n", last.offset));
        assert_eq!((last.topic.as_str(), &last.body[..]), ("_control.order", command.as_bytes()));
    }
    let (exit, text, _) = host.run(&["handlers", "pause", "order", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &answer["handler"]), (Exit::Done, &"order".into()));
    assert_eq!(answer["offset"], host.messages().pop().unwrap().offset.0);
}

#[test]
fn a_deploy_says_where_the_version_is_in_force() {
    let host = host(|_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let digest = |version: &str| Digest::of(version.as_bytes());
    // The host that only looks as if it ran has version b in force, and never another one.
    let (exit, text, error) = host.run(&["deploy", "order", &file("b.wasm", "b")]);
    assert_eq!((exit, error.as_str()), (Exit::Done, ""));
    let last = host.messages().pop().unwrap();
    let taken = format!("order: version {} is in the log at offset {}\nin force at http://", digest("b"), last.offset);
    assert!(text.starts_with(&taken), "{text}");
    let other = file("other.wasm", "other");
    let (exit, text, _) = host.run(&["deploy", "order", &other, "--wait", "1ms", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, &answer["digest"], &answer["in_force"]),
        (Exit::Failed, &digest("other").to_string().into(), &serde_json::json!([]))
    );
    assert_eq!(answer["not_yet"].as_array().unwrap().len(), 1);
    let (exit, _, error) = host.run(&["deploy", "order", &other, "--wait", "0s"]);
    assert_eq!((exit, error.as_str()), (Exit::Done, ""), "nobody waits");
    let (exit, _, error) = host.run(&["deploy", "order", &file("bad.wasm", "bad")]);
    assert!(exit == Exit::Failed && error.contains("(422): the module cannot run for handler `order`"), "{error}");
}

#[test]
fn a_refused_command_is_shown_with_what_to_do() {
    let host = host(|_| {});
    let cases: &[(&[&str], &str)] = &[
        (&["handlers", "pause", "gone"], "(404): there is no handler `gone`, there is audit, old, order"),
        (&["handlers", "show", "gone"], "(404): there is no handler `gone`, there is audit, old, order"),
        (&["handlers", "pause", "old"], "(409): no settings name handler `old`, so nothing would execute it"),
        (
            &["handlers", "rollback", "audit"],
            "(409): the host knows no version of handler `audit` before the one in force",
        ),
        (&["handlers", "rollback", "order", "12"], "(400): `12` is not the beginning of a digest"),
        (
            &["handlers", "forget", "order", "--yes"],
            "(409): handler `order` is in the settings: take it out of the settings file",
        ),
        (&["handlers", "forget", "gone", "--yes"], "(404): there is no handler `gone`"),
        (&["dead", "drop", "--handler", "gone"], "(404): there is no handler `gone`"),
        (&["dead", "list", "--handler", "ordr"], "(404): there is no handler `ordr`: did you mean `order`?"),
        (&["dead", "count", "--kind", "tarp"], "(400): there is no kind of failure `tarp`: did you mean `trap`?"),
        (&["dead", "retry", "--all", "--to", "gone"], "(404): there is no handler `gone`"),
        (&["dead", "retry", "--all", "--to", "old"], "(409): no settings name handler `old`"),
        (&["dead", "drop", "--handler", "old"], "(409): no settings name handler `old`"),
    ];
    for (arguments, expected) in cases {
        let (exit, _, error) = host.run(arguments);
        assert_eq!(exit, Exit::Failed, "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert!(commands(&host).is_empty());
}

#[test]
fn nothing_that_cannot_be_undone_is_done_unasked() {
    // Tests run without a terminal, as scripts do.
    let host = host(|_| {});
    bury(&host, &[("order", 0, 2), ("audit", 0, 1), ("old", 0, 1)]);
    for (arguments, expected) in [
        (&["dead", "retry", "--all"][..], "to retry 3 dead letters: 1 of audit, 2 of order without being asked"),
        (&["dead", "drop", "--handler", "audit"], "to drop 1 dead letter: 1 of audit without being asked"),
        (
            &["handlers", "forget", "old"],
            "to forget handler old with its state, open messages (0), delayed messages (0), dead letters (1) and marks (0) without being asked",
        ),
    ] {
        let (exit, _, error) = host.run(arguments);
        assert_eq!(exit, Exit::Usage, "{error}");
        assert!(error.starts_with(expected) && error.ends_with("on a terminal, add --yes"), "{error}");
    }
    assert!(commands(&host).is_empty());
    let (exit, text, error) = host.run(&["handlers", "forget", "old", "--yes"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "old is forgotten\n"), "{error}");
    assert_eq!(host.run(&["handlers", "show", "old"]).0, Exit::Failed);
}

#[test]
fn an_order_about_dead_letters_returns_when_the_shards_have_executed_it() {
    let host = host(|_| {});
    bury(&host, &[("order", 0, 700), ("order", 1, 500), ("audit", 0, 3), ("old", 0, 1)]);
    with_shards(&host);
    let (exit, text, error) = host.run(&["dead", "drop", "--handler", "order", "--shard", "1", "--yes"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "dropped 500 dead letters: 500 of order\n"), "{error}");
    assert_eq!(host.run(&["dead", "count"]).1, "704\n");
    let (exit, text, error) = host.run(&["dead", "retry", "--kind", "trap", "--yes", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, &answer["letters"], &answer["skipped"][0]["handler"]),
        (Exit::Done, &703.into(), &"old".into()),
        "{error}"
    );
    assert_eq!(host.run(&["dead", "count", "--json"]).1, "{\"letters\":1,\"newest\":2408}\n");
    let (exit, text, _) = host.run(&["dead", "retry", "--handler", "order", "--all", "--yes"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "no dead letters are meant\n"));
}

#[test]
fn dead_letters_are_named_by_the_numbers_that_the_list_shows() {
    let host = host(|_| {});
    bury(&host, &[("order", 0, 4)]);
    with_shards(&host);
    let list: serde_json::Value = serde_json::from_str(&host.run(&["dead", "list", "--json"]).1).unwrap();
    let number = |at: usize| list["letters"][at]["number"].to_string();
    let (exit, text, error) = host.run(&["dead", "drop", &number(0), "--number", &number(2), "--yes"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "dropped 2 dead letters: 2 of order\n"), "{error}");
    let (exit, text, _) = host.run(&["dead", "retry", "999999", "--yes"]);
    assert_eq!(exit, Exit::Done);
    assert!(text.starts_with("no dead letters are meant: `sluicebox dead list`"), "{text}");
}

#[test]
fn an_order_need_not_be_waited_for() {
    let host = host(|_| {});
    bury(&host, &[("order", 0, 2)]);
    let (exit, text, error) = host.run(&["dead", "retry", "--number", "2,4", "--yes", "--no-wait"]);
    assert_eq!((exit, text.as_str()), (Exit::Done, "ordered to retry 2 dead letters: 2 of order\n"), "{error}");
    let filter = r#"{"handler":"order","numbers":[2,4],"upto":4}"#;
    assert_eq!(commands(&host), [format!(r#"order {{"command":"retry-dead","filter":{filter}}}"#)]);
}

#[test]
fn handlers_and_status_say_what_keeps_a_handler_from_running() {
    let host = host(|handlers| {
        handlers[0].breaker = BreakerView::Open { until: crate::clock::Timestamp(1_700_000_000_123) };
        handlers[1].problem = Some("failed to read module `order.wasm`".into());
        handlers[1].running = 3;
    });
    let digest = |version: &str| Digest::of(version.as_bytes());
    let control = Control {
        paused: true,
        paused_keys: ["ada", "bob"].map(|key| Key::parse(key).unwrap().unwrap()).into(),
        tripped: true,
        pin: Some(Pin { digest: digest("a"), over: Over::File(digest("b")) }),
        pin_command: 3,
        jobs: vec![],
    };
    host.runtime.block_on(stage::control(&host.log, "order", 1, control));
    let states = [
        ("audit", "breaker open until 2023-11-14T22:13:20.123Z"),
        ("old", "not in the settings"),
        ("order", "paused, 2 keys paused, tripped, rolled back, problem"),
    ];
    for command in [&["handlers", "list"][..], &["status"]] {
        let (exit, text, error) = host.run(command);
        assert_eq!(exit, Exit::Done, "{error}");
        for (handler, state) in states {
            let line = text.lines().find(|line| line.starts_with(&format!("{handler} "))).unwrap();
            assert!(line.contains(&format!("  {state}  ")), "{text}");
        }
        assert!(text.ends_with("problem of order: failed to read module `order.wasm`\n"), "{text}");
    }
    let (_, text, _) = host.run(&["handlers", "show", "order"]);
    for line in [
        "subscribes  events.*".to_owned(),
        "key         the message's own".into(),
        "shards      2".into(),
        "asked for   pause".into(),
        "asked for   pause of ada, bob".into(),
        format!("asked for   rollback to {}, instead of {}", digest("a"), digest("b")),
        "breaker     closed".into(),
        "runs        3 of 64 at a time".into(),
        "problem     failed to read module `order.wasm`".into(),
        format!("version     {} first seen 1970-01-01T00:00:00.000Z", digest("a")),
        format!("version     {} first seen 1970-01-01T00:00:01.000Z, in force, in the file", digest("b")),
    ] {
        assert!(text.lines().any(|shown| shown == line), "no {line:?} in\n{text}");
    }
    let (_, text, _) = host.run(&["handlers", "list", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["handlers"][2]["control"]["paused_keys"], serde_json::json!(["ada", "bob"]));
}

#[test]
fn a_host_with_a_token_is_reached_with_the_file_that_has_it() {
    let attach = |face: &crate::http::Face| {
        face.attach(Arc::new(Double { handlers: vec![runs("order", &["a"])], ..Double::default() }))
    };
    let host = Host::start_with(attach, Some("0123456789abcdef"));
    host.runtime.block_on(stage::route(&host.log, "order", KeyFrom::Message, 1));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let (exit, _, error) = host.run(&["handlers", "pause", "order"]);
    assert_eq!(exit, Exit::Failed);
    assert!(error.ends_with(": name the token with --token-file, or put it into SLUICEBOX_TOKEN"), "{error}");
    let file = file.to_str().unwrap();
    let (exit, _, error) = host.run(&["handlers", "pause", "order", "--token-file", file]);
    assert_eq!(exit, Exit::Done, "{error}");
    std::fs::write(file, "two words").unwrap();
    let (exit, _, error) = host.run(&["handlers", "pause", "order", "--token-file", file]);
    assert_eq!(exit, Exit::Usage);
    assert!(error.contains("cannot be a token"), "{error}");
    assert_eq!(commands(&host).len(), 1);
}
