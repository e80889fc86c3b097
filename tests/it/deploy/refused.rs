//! What cannot be deployed is refused with the reason and changes nothing; what cannot be had is said, and what ran goes on.

use super::{command, digest, handled, place, shown, typed};
use crate::harness::process::Place;
use serde_json::Value;
use sluicebox::commit::{Over, Pin};
use sluicebox::control::Command;
use sluicebox::handler::{Digest, HandlerName};
use sluicebox::log::Log;
use sluicebox::log::embedded::{EmbeddedLog, Options};

/// Messages of the control topic: each command that was taken.
async fn commands(place: &Place) -> usize {
    let log = EmbeddedLog::open_read_only(&place.data()).unwrap();
    crate::harness::everything(&log).await.iter().filter(|message| message.topic.as_str() == "_control.first").count()
}

#[tokio::test]
async fn a_module_that_cannot_run_is_refused_with_the_reason_and_changes_nothing() {
    let place = place();
    place.put("core.wasm", b"\0asm\x01\0\0\0");
    place.put("text.wasm", b"not a module");
    place.put("empty.wasm", b"");
    let host = place.start_heard();
    assert_eq!(handled(&place, &host).await, 1);
    let cases: &[(&[&str], i32, &str)] = &[
        (
            &["deploy", "first", "core.wasm"],
            1,
            "(422): the module cannot run for handler `first`, so nothing was changed: it is a core module",
        ),
        (&["deploy", "first", "text.wasm"], 1, "not a WebAssembly component"),
        (&["deploy", "first", "empty.wasm"], 2, "`empty.wasm` is empty"),
        (&["deploy", "first", "none.wasm"], 1, "failed to open `none.wasm`: `sluicebox build` makes the modules"),
        (&["deploy", "frist", "v2.wasm"], 1, "there is no handler `frist`: did you mean `first`?"),
        (&["deploy", "_delay", "v2.wasm"], 1, "handler `_delay` is the host's own"),
    ];
    for (arguments, code, told) in cases {
        let (found, output, said) = command(&place, &host, arguments);
        assert_eq!(found, *code, "{arguments:?}: {said}");
        assert!(said.contains(told) && output.is_empty(), "{arguments:?}: {said}");
    }
    assert_eq!(commands(&place).await, 0);
    assert_eq!(handled(&place, &host).await, 1);
    assert!(EmbeddedLog::open_read_only(&place.data()).unwrap().modules().await.unwrap().is_empty());
    assert!(host.stop().success());
    let (code, _, said) = place.command(&["deploy", "first", "v2.wasm", "--url", "http://127.0.0.1:1"]);
    assert!(code == 4 && said.contains("only a running host can execute this"), "{said}");
}

/// Puts a command in the log while no host runs, or makes a module there something else.
async fn in_log(place: &Place, pin: Pin) {
    let log = EmbeddedLog::open(&place.data(), Options::default()).unwrap();
    let name = HandlerName::parse("first").unwrap();
    log.append(vec![Command::Rollback { pin }.message(&name)]).await.unwrap();
}

#[tokio::test]
async fn a_version_that_neither_disk_nor_log_has_is_a_problem_that_is_told_until_it_is_deployed() {
    let place = place();
    let host = place.start_heard();
    typed(&place, &host, &["deploy", "first", "v2.wasm"]);
    assert!(host.stop().success());
    in_log(&place, Pin { digest: Digest::parse(&digest(3)).unwrap(), over: Over::AnyFile }).await;
    let host = place.start_heard();
    let told = format!("cannot run version {} of handler `first`: neither this host nor the log has it", digest(3));
    host.until("it is said", async |host| {
        shown(host).await["running"]["problem"].as_str().is_some_and(|problem| problem.starts_with(&told))
    })
    .await;
    assert_eq!(handled(&place, &host).await, 2, "what it had goes on");
    // It is not in the way of the next start, nor of the deploy that mends it.
    assert!(host.stop().success());
    let host = place.start_heard();
    typed(&place, &host, &["deploy", "first", "v3.wasm"]);
    assert_eq!(handled(&place, &host).await, 3);
    assert_eq!(shown(&host).await["running"]["problem"], Value::Null);
}

const OTHER: &str = r#"
[handlers.other]
module = "v4.wasm"
subscribe = ["other"]
publish = ["also"]
config = { output = "also" }
"#;

#[tokio::test]
async fn forgetting_a_handler_deletes_what_was_deployed() {
    let place = place();
    let host = place.start_heard();
    typed(&place, &host, &["deploy", "first", "v2.wasm"]);
    place.settings(OTHER);
    host.until("the handler left", async |host| shown(host).await["running"] == Value::Null).await;
    typed(&place, &host, &["handlers", "forget", "first", "--yes"]);
    assert!(EmbeddedLog::open_read_only(&place.data()).unwrap().modules().await.unwrap().is_empty());
    // The next one of its name runs its file.
    place.settings(&format!("{}{OTHER}", super::ONE));
    host.until("it runs", async |host| shown(host).await["running"]["digest"] == digest(1)).await;
    assert_eq!(handled(&place, &host).await, 1);
}
