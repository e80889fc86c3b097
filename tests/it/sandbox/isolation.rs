//! A guest sees its message, its key's state, and nothing else.

use super::*;

#[tokio::test]
async fn a_guest_sees_the_entries_of_its_own_key_alone() {
    for handler in [fresh("own-state"), warm("own-state-warm")] {
        let entries = |of: &Effects| String::from_utf8(of.outputs[0].body.to_vec()).unwrap();
        let ada = handler.call(Call { state: state(&[("a", "1"), ("b", "2")]), ..call("entries") }).await.unwrap();
        assert_eq!(entries(&ada), r#"["a","b"]"#);
        let eve = Call { key: Key::parse("eve").unwrap(), ..call("entries") };
        assert_eq!(entries(&handler.call(eve).await.unwrap()), "[]");
    }
}

#[tokio::test]
async fn a_message_without_a_key_has_no_state() {
    let handler = fresh("keyless");
    let keyless = Call { key: None, ..call("count") };
    let Err(Failure::Retry { reason, .. }) = handler.call(keyless).await else { panic!("it has no state") };
    assert!(reason.contains("without a key, and state belongs to a key"), "{reason}");
}

#[tokio::test]
async fn a_warm_sandbox_keeps_its_memory_and_a_fresh_one_does_not() {
    let (fresh, warm) = (fresh("forgetting"), warm("remembering"));
    for expected in ["1", "2", "3"] {
        assert_eq!(answer(&fresh, "seen").await, "1");
        assert_eq!(answer(&warm, "seen").await, expected);
    }
}

#[tokio::test]
async fn a_warm_sandbox_that_trapped_is_not_used_again() {
    let handler = warm("trapped");
    assert_eq!(answer(&handler, "seen").await, "1");
    trap(&handler, "panic").await;
    assert_eq!(answer(&handler, "seen").await, "1");
}

#[tokio::test]
async fn a_warm_sandbox_that_grew_is_not_used_again() {
    let handler = hostile(Settings { mode: Mode::Warm, memory_bytes: 16 << 20, ..settings("growing") });
    assert_eq!(answer(&handler, "seen").await, "1");
    run(&handler, "keep 1000000").await.unwrap();
    assert_eq!(answer(&handler, "seen").await, "3");
    run(&handler, "keep 9000000").await.unwrap();
    assert_eq!(answer(&handler, "seen").await, "1");
}

#[tokio::test]
async fn a_fresh_sandbox_has_nothing_of_the_memory_of_an_earlier_one() {
    // Few slots, so that each is used again and again.
    let sandboxes = Sandboxes::new(&Pool { running: 4, idle: 0, cache: None }, LINES.sink()).unwrap();
    let module = sandboxes.load(&guests::bytes("hostile")).unwrap();
    let handler = sandboxes.handler(&module, settings("reused")).unwrap();
    for bytes in [100, 100_000, 5_000_000] {
        run(&handler, &format!("keep {bytes}")).await.unwrap();
        assert_eq!(answer(&handler, "seen").await, "1");
        assert_eq!(answer(&handler, "seen").await, "1");
    }
}

#[tokio::test]
async fn files_sockets_and_variables_of_the_host_are_out_of_reach() {
    let handler = fresh("walled");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(reject(&handler, "open-file /etc/passwd").await.starts_with("refused: "));
    assert!(reject(&handler, "open-file .").await.starts_with("refused: "));
    let address = listener.local_addr().unwrap();
    assert!(reject(&handler, &format!("connect {address}")).await.starts_with("refused: "));
    assert!(reject(&handler, "connect localhost:80").await.starts_with("refused: "));
    assert_eq!(reject(&handler, "variables").await, "0");
}

#[tokio::test]
async fn a_topic_that_is_not_granted_is_refused() {
    let handler = fresh("ungranted");
    let reason = refusal(&handler, "publish-to elsewhere").await;
    assert!(reason.contains("`elsewhere` is not granted: the handler's `publish` setting has `out.>`"), "{reason}");
    assert!(refusal(&handler, "publish-to out.*").await.contains("is a pattern"));
    assert!(refusal(&handler, "publish-to _control.order").await.contains("belong to the host"));
}
