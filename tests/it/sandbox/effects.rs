//! What a good guest gets and causes, and that a failed run causes nothing.

use super::*;
use sluicebox::effects::StateWrite;

#[tokio::test]
async fn a_run_sees_its_message_and_its_keys_state_and_stages_its_effects() {
    let handler = fresh("good");
    let call = Call { state: state(&[("seen", "41")]), ..call("count") };
    let effects = handler.call(call).await.unwrap();
    assert_eq!(effects.writes, [StateWrite { entry: "seen".into(), value: Some(Bytes::from_static(b"42")) }]);
    assert_eq!(effects.counts, [("seen".into(), 1)]);
    let output = &effects.outputs[0];
    assert_eq!((output.topic.as_str(), &output.body[..]), ("out.seen", &b"42"[..]));
    assert_eq!(output.key.as_ref().map(Key::as_str), Some("ada"));
    assert_eq!((&output.id, output.delay), (&None, None));
    assert!(handler.uses_state());
    assert_eq!(handler.digest(), Some(HOSTILE.digest()));
}

#[tokio::test]
async fn every_field_of_a_message_arrives_on_both_sides() {
    let handler = fresh("echo");
    let effects = handler.call(Call { attempt: 3, ..call("echo") }).await.unwrap();
    let output = &effects.outputs[0];
    let seen = String::from_utf8(output.body.to_vec()).unwrap();
    for field in [
        r#"id: Some("id-1")"#,
        r#"topic: "in.order""#,
        r#"key: Some("ada")"#,
        r#"headers: [("trace", "1")]"#,
        "body: [101, 99, 104, 111]",
        "time_ms: 1700000000000",
        "attempt: 3",
        "offset: Some(7)",
    ] {
        assert!(seen.contains(field), "{field} in {seen}");
    }
    assert_eq!(output.id.as_deref(), Some("echo"));
    assert_eq!(output.headers.get("trace"), Some("1"));
    assert_eq!(output.delay, Some(Duration::from_millis(7)));
}

#[tokio::test]
async fn a_guest_that_gives_up_because_it_may_delay_no_more_is_not_to_blame() {
    let handler = fresh("delaying");
    let full = DelayedRoom { messages: 0, bytes: usize::MAX };
    let failed = handler.call(Call { delayed_room: full, ..call("echo") }).await.unwrap_err();
    let Failure::Full { reason } = failed else { panic!("{failed:?}") };
    assert!(reason.contains("`delayed` setting"), "{reason}");
    // One that fails for something else is, and one that publishes at once needs no room.
    let rejects = handler.call(Call { delayed_room: full, ..call("reject never") }).await;
    assert_eq!(rejects, Err(Failure::Reject { reason: "never".into() }));
    assert!(handler.call(Call { delayed_room: full, ..call("publish 3") }).await.is_ok());
    let one = DelayedRoom { messages: 1, bytes: 10_000 };
    assert!(handler.call(Call { delayed_room: one, ..call("echo") }).await.is_ok());
    let few_bytes = DelayedRoom { messages: 1, bytes: 10 };
    let failed = handler.call(Call { delayed_room: few_bytes, ..call("echo") }).await.unwrap_err();
    assert!(matches!(failed, Failure::Full { .. }), "{failed:?}");
}

#[tokio::test]
async fn a_guests_own_failures_arrive_with_their_reason() {
    let handler = fresh("failing");
    assert_eq!(reject(&handler, "reject no such user").await, "no such user");
    let retry = Failure::Retry { reason: "busy".into(), after: Some(Duration::from_millis(250)) };
    assert_eq!(run(&handler, "retry busy").await, Err(retry));
    let long = reject(&handler, &format!("reject {}", "x".repeat(5000))).await;
    assert_eq!(long.len(), 1024);
}

#[tokio::test]
async fn a_failed_run_leaves_nothing_for_the_next() {
    let handler = warm("staging");
    assert_eq!(reject(&handler, "stage-and-reject").await, "after staging");
    assert_eq!(run(&handler, "ok").await, Ok(Effects::default()));
    assert_eq!(answer(&handler, "seen").await, "3", "it was the same sandbox all along");
}

#[tokio::test]
async fn settings_of_the_handler_can_be_read() {
    let config = vec![("currency".to_owned(), "EUR".to_owned())];
    let handler = hostile(Settings { config, ..settings("configured") });
    assert_eq!(answer(&handler, "config currency").await, "EUR");
    assert_eq!(answer(&handler, "config other").await, "");
}

#[tokio::test]
async fn deleting_an_entry_is_an_effect() {
    let handler = fresh("deleting");
    let call = Call { state: state(&[("seen", "1")]), ..call("delete seen") };
    let effects = handler.call(call).await.unwrap();
    assert_eq!(effects.writes, [StateWrite { entry: "seen".into(), value: None }]);
}

#[tokio::test]
async fn diagnostics_carry_what_the_guest_said_even_when_it_failed() {
    let handler = fresh("saying");
    run(&handler, "say hello there").await.unwrap();
    assert_eq!(LINES.of("saying"), ["hello there"]);
    trap(&handler, "panic no more").await;
    assert!(LINES.of("saying").iter().any(|line| line == "no more"));
}
