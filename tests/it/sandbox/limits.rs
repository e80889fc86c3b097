//! Bounds that hold whatever the guest tries; only its own message fails.

use super::*;
use sluicebox::effects::{EFFECTS_MAX, ENTRIES_MAX, VALUE_BYTES_MAX};
use sluicebox::message::BODY_BYTES_MAX;
use sluicebox::sandbox::{COUNTERS_MAX, RUN_BYTES_MAX};

#[tokio::test]
async fn a_guest_that_allocates_without_end_is_stopped_at_its_bound() {
    let limit_bytes = 8 << 20;
    let handler = hostile(Settings { memory_bytes: limit_bytes, ..settings("allocating") });
    let Err(Failure::Memory { limit_bytes: at, reason }) = run(&handler, "allocate").await else {
        panic!("it should run out of memory")
    };
    assert_eq!(at, limit_bytes);
    assert!(reason.contains("memory allocation of 1048576 bytes failed"), "{reason}");
    run(&handler, "keep 6000000").await.unwrap();
    let beyond = run(&handler, "keep 8000000").await;
    assert!(matches!(beyond, Err(Failure::Memory { .. })), "{beyond:?}");
    run(&handler, "ok").await.unwrap();
}

#[tokio::test]
async fn a_guest_larger_than_its_bound_does_not_start() {
    let too_small = Settings { memory_bytes: 64 << 10, ..settings("too-small") };
    let error = SANDBOXES.handler(&HOSTILE, too_small).err().unwrap().to_string();
    assert!(error.contains("and the handler has 65536: raise `memory` in [handlers.too-small]"), "{error}");
    hostile(settings("large-enough")).try_out().await.unwrap();
}

#[tokio::test]
async fn deep_recursion_is_a_trap() {
    let handler = fresh("recursing");
    let reason = trap(&handler, "recurse").await;
    assert!(reason.contains("stack overflow: the recursion is too deep"), "{reason}");
    let reason = trap(&handler, "recurse-in-memory").await;
    assert!(reason.contains("out of bounds memory access (or recursion too deep"), "{reason}");
    run(&handler, "ok").await.unwrap();
}

#[tokio::test]
async fn a_trap_says_why_without_naming_the_hosts_files() {
    let handler = fresh("trapping");
    let panic = trap(&handler, "panic at the disco").await;
    assert!(panic.contains("src/lib.rs:") && panic.contains("at the disco"), "{panic}");
    assert!(panic.contains("unreachable"), "{panic}");
    for order in ["panic x", "null", "bad-utf8", "exit"] {
        let reason = trap(&handler, order).await;
        assert!(!reason.contains("/home") && !reason.contains(".cargo") && reason.len() <= 1024, "{reason}");
    }
    assert!(trap(&handler, "null").await.contains("out of bounds memory access"));
    assert!(trap(&handler, "exit").await.contains("exit with code"));
    assert!(trap(&handler, "bad-utf8").await.contains("utf-8"));
    let long = trap(&handler, &format!("panic {}", "y".repeat(100_000))).await;
    assert!(long.len() <= 1024 && long.contains("yyy …"), "{long}");
    run(&handler, "ok").await.unwrap();
}

#[tokio::test]
async fn a_flood_of_effects_ends_at_the_bound() {
    let handler = fresh("flooding");
    assert_eq!(reject(&handler, "flood-effects").await, EFFECTS_MAX.to_string());
    let reason = refusal(&handler, "flood-counters").await;
    assert!(reason.contains(&format!("at most {COUNTERS_MAX} names")), "{reason}");
}

#[tokio::test]
async fn a_handler_that_counts_under_one_name_too_many_hears_of_it_and_goes_on_with_the_others() {
    let handler = fresh("counting");
    for number in 0..100 {
        run(&handler, &format!("count-as n{number}")).await.unwrap();
    }
    let reason = refusal(&handler, "count-as one_more").await;
    assert!(reason.contains("counts under 100 names already: `one_more` is one too many"), "{reason}");
    let reason = refusal(&handler, "count-as Not-A-Name").await;
    assert!(reason.contains("`Not-A-Name` is not a counter name"), "{reason}");
    run(&handler, "count-as n0").await.unwrap();
}

#[tokio::test]
async fn a_flood_of_diagnostics_is_cut_off() {
    let handler = fresh("chatty");
    run(&handler, "flood-diagnostics").await.unwrap();
    let lines = LINES.of("chatty");
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(bytes > RUN_BYTES_MAX / 2 && bytes < RUN_BYTES_MAX + 200, "{bytes} bytes");
    assert!(lines.last().unwrap().contains("cut off after 16384 bytes"));
}

#[tokio::test]
async fn a_message_too_large_is_refused_and_one_far_too_large_is_a_trap() {
    let handler = fresh("large");
    run(&handler, &format!("publish {BODY_BYTES_MAX}")).await.unwrap();
    let reason = refusal(&handler, &format!("publish {}", BODY_BYTES_MAX + 1)).await;
    assert!(reason.contains("the body has 524289 bytes, at most 524288 are allowed"), "{reason}");
    trap(&handler, &format!("publish {}", 32 << 20)).await;
}

#[tokio::test]
async fn too_much_state_is_refused() {
    let handler = fresh("hoarding");
    run(&handler, &format!("write {VALUE_BYTES_MAX}")).await.unwrap();
    let reason = refusal(&handler, &format!("write {}", VALUE_BYTES_MAX + 1)).await;
    assert!(reason.contains("`large` would have 524289 bytes"), "{reason}");
    run(&handler, &format!("write-entries {}", ENTRIES_MAX.min(EFFECTS_MAX))).await.unwrap();
    let reason = refusal(&handler, &format!("write-entries {}", ENTRIES_MAX + 1)).await;
    assert!(reason.contains("256 entries"), "{reason}");
}

/// The number of headers is bounded where their bytes are not.
#[tokio::test]
async fn a_message_of_too_many_headers_is_refused_by_the_log_and_the_sandbox() {
    use sluicebox::message::{HEADERS_MAX, MessageError};
    let headers = |count: usize| Headers::new((0..count).map(|n| (n.to_string(), String::new())).collect());
    let mut new = NewMessage::new(Topic::parse("in.order").unwrap(), "echo");
    new.headers = headers(HEADERS_MAX);
    assert_eq!(new.check(), Ok(()));
    new.headers = headers(HEADERS_MAX + 1);
    assert_eq!(new.check(), Err(MessageError::TooManyHeaders { headers: HEADERS_MAX + 1 }));

    let handler = fresh("headers");
    let echo = |count| {
        let mut message = Message::clone(&call("echo").message);
        message.headers = headers(count);
        handler.call(Call { message: Arc::new(message), ..call("echo") })
    };
    assert_eq!(echo(HEADERS_MAX).await.unwrap().outputs[0].headers.iter().count(), HEADERS_MAX);
    let Err(Failure::Retry { reason, .. }) = echo(HEADERS_MAX + 1).await else { panic!("it should be refused") };
    assert!(reason.contains("the message has 257 headers, at most 256 are allowed"), "{reason}");
}

/// The SDK cannot see the host's constants, so its native stand-in has its own.
#[test]
fn the_sdks_limits_are_the_hosts() {
    use sluicebox::{effects, message, topic};
    use sluicebox_sdk::limits as sdk;
    assert_eq!(sdk::BODY_BYTES_MAX, message::BODY_BYTES_MAX);
    assert_eq!(sdk::HEADERS_BYTES_MAX, message::HEADERS_BYTES_MAX);
    assert_eq!(sdk::HEADERS_MAX, message::HEADERS_MAX);
    assert_eq!(sdk::KEY_BYTES_MAX, message::KEY_BYTES_MAX);
    assert_eq!(sdk::ID_BYTES_MAX, message::ID_BYTES_MAX);
    assert_eq!(sdk::EFFECTS_MAX, effects::EFFECTS_MAX);
    assert_eq!(sdk::EFFECTS_BYTES_MAX, effects::EFFECTS_BYTES_MAX);
    assert_eq!(sdk::VALUE_BYTES_MAX, effects::VALUE_BYTES_MAX);
    assert_eq!(sdk::ENTRIES_MAX, effects::ENTRIES_MAX);
    assert_eq!(sdk::ENTRIES_BYTES_MAX, effects::ENTRIES_BYTES_MAX);
    assert_eq!(sdk::ENTRY_NAME_BYTES_MAX, effects::ENTRY_NAME_BYTES_MAX);
    assert_eq!(u128::from(sdk::DELAY_MS_MAX), effects::DELAY_MAX.as_millis());
    assert_eq!(sdk::COUNTERS_MAX, COUNTERS_MAX);
    assert_eq!(sdk::TOPIC_TOKENS_MAX, topic::TOKENS_MAX);
    assert_eq!(sdk::TOPIC_TOKEN_BYTES_MAX, topic::TOKEN_BYTES_MAX);
}
