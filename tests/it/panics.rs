//! A task of the host that panics is heard of: by `/readyz`, and by the exit code where the host cannot go on without it.

use crate::harness::process::Place;
use crate::harness::{PATIENCE, guests};

fn place() -> Place {
    let handler = "[handlers.first]\nmodule = \"ledger.wasm\"\nsubscribe = [\"in\"]\npublish = [\"out\"]\n";
    let place = Place::new(handler, &[]);
    place.put("ledger.wasm", guests::ledger(1));
    place
}

#[test]
fn a_host_whose_messages_or_commands_are_not_delivered_any_more_ends() {
    for task in ["the dispatcher", "the follower of commands", "the catch-up of a handler (first)"] {
        let place = place();
        let host = place.start_by(&[], &[("SLUICEBOX_PANIC", task)]);
        assert_ne!(host.url, "", "{}", place.heard());
        assert_eq!(host.ended().code(), Some(1), "{task}: {}", place.heard());
        assert!(place.heard().contains(&format!("{task} panicked")), "{}", place.heard());
    }
}

#[tokio::test]
async fn a_host_whose_log_is_not_cared_for_any_more_ends() {
    let place = place();
    let host = place.start_by(&[], &[("SLUICEBOX_PANIC", "the checkpointer")]);
    // It has work after some 16 MiB. What came before the panic may have been taken, and nothing has to come after it.
    let body = "x".repeat(400 * 1024);
    let mut published = 0;
    while !place.heard().contains("panicked") && host.publish("in", Some("a"), None, &body).await {
        published += 1;
        assert!(published < 1000, "the checkpointer has nothing to do: {}", place.heard());
    }
    let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
    let mut ended = tokio::task::spawn_blocking(|| host.ended().code());
    let code = match tokio::time::timeout(PATIENCE, &mut ended).await {
        Ok(code) => code.unwrap(),
        Err(_) => {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            panic!("it goes on: {}", place.heard());
        }
    };
    assert_eq!(code, Some(1), "{}", place.heard());
    assert!(place.heard().contains("its checkpointer panicked"), "{}", place.heard());
}

#[tokio::test]
async fn a_host_without_retention_or_a_watch_goes_on_and_is_not_ready() {
    for task in ["retention", "the watch for changes", "the watch of the clock"] {
        let place = place();
        let host = place.start_by(&[], &[("SLUICEBOX_PANIC", task)]);
        host.until("it is not ready", async |host| host.get("/readyz").await.contains(&format!("{task} panicked")))
            .await;
        assert!(host.publish("in", Some("a"), None, "ok").await);
        let done = r#"messages_total{handler="first",outcome="done",topic="in"}"#;
        host.until("messages are handled", async |host| host.metric(done).await == 1).await;
        host.stop();
    }
}
