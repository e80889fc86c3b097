//! What waits and what is remembered, as the API shows it.

use super::stage::{self, Double, name, runs};
use super::*;
use crate::commit::{Delayed, Head, HeadScope, KeyWrites};
use crate::config::ShowState;
use crate::effects::StateWrite;
use crate::message::Key;
use crate::topic::Pattern;

fn key(text: &str) -> Key {
    Key::parse(text).unwrap().unwrap()
}

/// `order` has two shards and its first message open; `old`, in no settings any more, has state.
async fn server(token: Option<&str>) -> Server {
    let double = Double { handlers: vec![runs("order", &["a"])], ..Double::default() };
    let server = Server::start_with(|face| face.attach(Arc::new(double)), token, [127, 0, 0, 1]).await;
    for handler in ["order", "old"] {
        stage::route(&server.log, handler, KeyFrom::Message, 2).await;
    }
    server
}

fn shard(handler: &str, index: u16) -> ShardId {
    ShardId { handler: name(handler), index }
}

async fn remember(server: &Server, handler: &str) {
    let write = |entry: &str, value: &'static [u8]| StateWrite { entry: entry.into(), value: Some(value.into()) };
    let writes = vec![write("bytes", b"\xff\x00"), write("text", "é".as_bytes())];
    let state = vec![KeyWrites { key: key("a/b c"), writes }];
    stage::commit(&server.log, &shard(handler, 0), |commit| commit.state = state).await;
}

#[tokio::test]
async fn values_that_are_no_text_are_base64_and_keys_may_have_any_character() {
    let server = server(None).await;
    remember(&server, "order").await;
    let (status, state) = send(server.get("/v1/handlers/order/state/a%2Fb%20c")).await;
    assert_eq!(status, StatusCode::OK, "{state}");
    let expected = json!([
        { "entry": "bytes", "bytes": 2, "value_base64": "/wA=" },
        { "entry": "text", "bytes": 2, "value": "é" },
    ]);
    assert_eq!((&state["entries"], &state["key"]), (&expected, &json!("a/b c")));
    for (path, expected) in [
        ("order/state/nobody", 404),
        ("gone/state", 404),
        ("order/state?before=x", 400),
        ("order/state?after=", 400),
        ("order/state/a%2Fb%20c?entry=text", 400),
    ] {
        let (status, answer) = send(server.get(&format!("/v1/handlers/{path}"))).await;
        assert_eq!(status.as_u16(), expected, "{path}: {answer}");
    }
}

#[tokio::test]
async fn of_a_handler_that_no_settings_name_only_sizes_are_shown() {
    let server = server(None).await;
    remember(&server, "old").await;
    let (_, state) = send(server.get("/v1/handlers/old/state/a%2Fb%20c")).await;
    let expected = json!([{ "entry": "bytes", "bytes": 2 }, { "entry": "text", "bytes": 2 }]);
    assert_eq!((&state["entries"], &state["shown"]), (&expected, &json!("sizes")));
}

#[tokio::test]
async fn what_settings_hide_is_refused_and_says_why() {
    let mut hidden = runs("order", &["a"]);
    hidden.show_state = ShowState::Nothing;
    let double = Double { handlers: vec![hidden], ..Double::default() };
    let server = Server::start_with(|face| face.attach(Arc::new(double)), None, [127, 0, 0, 1]).await;
    stage::route(&server.log, "order", KeyFrom::Message, 2).await;
    remember(&server, "order").await;
    for path in ["/v1/handlers/order/state", "/v1/handlers/order/state/a%2Fb%20c"] {
        let (status, answer) = send(server.get(path)).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(answer["error"].as_str().unwrap().contains("`show_state = \"nothing\"`"), "{answer}");
    }
}

#[tokio::test]
async fn looks_and_commands_want_the_token_where_others_do() {
    let server = server(Some(TOKEN)).await;
    let bare = Client::new();
    for (method, path) in [
        (Method::GET, "order/waiting"),
        (Method::GET, "order/state"),
        (Method::GET, "order/state/k"),
        (Method::POST, "order/retry-now"),
        (Method::POST, "order/cancel"),
    ] {
        let url = format!("http://{}/v1/handlers/{path}", server.address);
        let status = bare.request(method, url).send().await.unwrap().status();
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_page_of_what_waits_refuses_what_it_does_not_know_and_the_rest_counts() {
    let server = server(None).await;
    let offsets = server.append("events.made", 0..1).await;
    let head = Head {
        offset: Offset(offsets[0]),
        key: Some(key("k")),
        attempt: 3,
        due: Timestamp(9_999_999_999_999),
        error: "trapped: out of paper".into(),
        digest: Some(Digest::of(b"a")),
        scope: HeadScope::Lane,
    };
    let message = NewMessage { id: Some("i".into()), ..NewMessage::new(Topic::parse("out").unwrap(), "x") };
    let delayed = Delayed { number: 7, due: Timestamp(5), message };
    let read = Offset(offsets[0]);
    stage::commit(&server.log, &shard("order", 0), |commit| {
        (commit.open_put, commit.delayed_put, commit.read) = (vec![head], vec![delayed], read);
    })
    .await;
    stage::commit(&server.log, &shard("order", 1), |commit| commit.read = read).await;
    let (status, page) = send(server.get("/v1/handlers/order/waiting?attempts=3&error=PAPER&key=k&topic=*.made")).await;
    assert_eq!((status, page["open"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{page}");
    assert_eq!(page["delayed"], json!([]), "one that was not tried has no attempts");
    let (_, page) = send(server.get("/v1/handlers/order/waiting?limit=1")).await;
    assert_eq!((&page["open"][0]["reason"], &page["waiting"]["messages"]), (&json!("retry"), &json!(1)), "{page}");
    let (_, rest) =
        send(server.get(&format!("/v1/handlers/order/waiting?after={}", page["next"].as_str().unwrap()))).await;
    assert_eq!((&rest["open"], &rest["delayed"][0]["number"]), (&json!([]), &json!(7)), "{rest}");
    for (path, expected) in [
        ("order/waiting?attempt=3", 400),
        ("order/waiting?attempts=x", 400),
        ("order/waiting?after=17", 400),
        ("order/waiting?topic=a..b", 400),
        ("gone/waiting", 404),
        ("Gone/waiting", 400),
    ] {
        let (status, answer) = send(server.get(&format!("/v1/handlers/{path}"))).await;
        assert_eq!(status.as_u16(), expected, "{path}: {answer}");
    }
    for (path, body, expected) in [
        ("order/retry-now", json!({}), 202),
        ("order/retry-now", json!({ "key": "k" }), 202),
        ("order/retry-now", json!({ "key": "other" }), 404),
        ("order/retry-now", json!({ "offset": offsets[0] }), 202),
        ("order/retry-now", json!({ "shard": 1 }), 400),
        ("order/cancel", json!({ "shard": 0, "number": 7 }), 202),
        ("order/cancel", json!({ "shard": 1, "number": 7 }), 404),
        ("order/cancel", json!({ "number": 7 }), 400),
        ("old/retry-now", json!({}), 409),
    ] {
        let request = server.request(Method::POST, &format!("/v1/handlers/{path}")).body(body.to_string());
        let (status, answer) = send(request).await;
        assert_eq!(status.as_u16(), expected, "{path} {body}: {answer}");
    }
    // Numbers of messages that are gone may be given again, so the one that is meant is named by its id too.
    let patterns = vec![Pattern::parse("_control.order").unwrap()];
    let (after, upto) = (Offset::START, Offset::END);
    let request = ReadRequest { after, upto, patterns, messages_max: 100, bytes_max: usize::MAX };
    let commands = server.log.read(request).await.unwrap().messages;
    let is_cancel = |command: &&Arc<Message>| command.body.windows(6).any(|part| part == b"cancel");
    let cancel: Value = serde_json::from_slice(&commands.iter().find(is_cancel).unwrap().body).unwrap();
    assert_eq!(cancel, json!({ "command": "cancel-delayed", "shard": 0, "number": 7, "id": "i" }));
}
