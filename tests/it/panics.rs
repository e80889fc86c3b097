//! A task of the host that panics is heard of: by `/readyz`, and by the exit code where the host cannot go on without it.

use crate::harness::guests;
use crate::harness::process::Place;

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
