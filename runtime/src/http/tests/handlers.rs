//! What the API shows of handlers and how it takes an operator's commands.

use super::super::views::HandlerView;
use super::stage::{self, Double, name, runs};
use super::*;
use crate::commit::{DeadAction, DeadJob, Over, Pin};
use crate::control::{Command, JOBS_MAX, PAUSED_KEYS_MAX};
use crate::message::Key;
use crate::routing::Field;

/// A host with `order` (keys, two shards, versions a, b, c) and `audit` (no keys); `old` is in no settings any more.
async fn server() -> Server {
    server_with(|_| {}).await
}

async fn server_with(change: impl FnOnce(&mut Double)) -> Server {
    let mut double =
        Double { handlers: vec![runs("audit", &["x"]), runs("order", &["a", "b", "c"])], ..Double::default() };
    change(&mut double);
    let server = Server::start_with(|face| face.attach(Arc::new(double)), None, [127, 0, 0, 1]).await;
    let fields = vec![Field::Pointer("/user".into()), Field::Header("user".into()), Field::TopicToken(2)];
    stage::route(&server.log, "order", KeyFrom::Fields(fields), 2).await;
    stage::route(&server.log, "audit", KeyFrom::None, 1).await;
    stage::route(&server.log, "old", KeyFrom::All, 1).await;
    server
}

async fn ask(server: &Server, path: &str, body: &str) -> (u16, Value) {
    let (status, answer) =
        send(server.request(Method::POST, &format!("/v1/handlers/{path}")).body(body.to_owned())).await;
    (status.as_u16(), answer)
}

fn digest(version: &str) -> Digest {
    Digest::of(version.as_bytes())
}

#[tokio::test]
async fn a_command_is_in_the_log_when_it_is_answered() {
    let server = server().await;
    let pin = |version: &str| Command::Rollback { pin: Pin { digest: digest(version), over: Over::File(digest("c")) } };
    let key = || Key::parse("ada").unwrap().unwrap();
    let prefix = &digest("a").to_string()[..6];
    let cases = [
        ("order/pause", String::new(), Command::Pause),
        ("order/pause", "{}".into(), Command::Pause),
        ("order/pause", " {\"key\": \"ada\"}\n".into(), Command::PauseKey { key: key() }),
        ("order/resume", "{\"key\":\"ada\"}".into(), Command::ResumeKey { key: key() }),
        ("order/resume", "{\"key\":null}".into(), Command::Resume),
        ("order/trip", String::new(), Command::Trip),
        ("order/reset", "{}".into(), Command::Reset),
        ("order/rollback", String::new(), pin("b")),
        ("order/rollback", format!("{{\"digest\":\"{}\"}}", prefix.to_uppercase()), pin("a")),
        ("order/rollback", format!("{{\"digest\":\"{}\"}}", digest("a")), pin("a")),
        ("order/unpin", String::new(), Command::Unpin),
    ];
    for (path, body, expected) in cases {
        let (status, answer) = ask(&server, path, &body).await;
        assert_eq!((status, &answer["handler"]), (202, &json!("order")), "{path} {body}: {answer}");
        let last = server.messages().await.pop().unwrap();
        assert_eq!((last.topic.as_str(), &answer["offset"]), ("_control.order", &json!(last.offset.0)), "{path}");
        assert_eq!(Command::read(&last).unwrap(), expected, "{path} {body}");
    }
    let metrics = server.metrics.render();
    assert!(metrics.contains("commands_total{command=\"rollback\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_command_that_cannot_be_meant_is_refused_and_changes_nothing() {
    let server = server_with(|double| double.handlers.push(runs("pinned", &["p", "q"]))).await;
    stage::route(&server.log, "pinned", KeyFrom::Message, 1).await;
    let paused_keys = (0..PAUSED_KEYS_MAX).map(|n| Key::parse(&n.to_string()).unwrap().unwrap()).collect();
    stage::control(&server.log, "pinned", 0, Control { paused_keys, ..Control::default() }).await;
    let (long, whole) = ("x".repeat(257), digest("c").to_string());
    let one = |name: &str, value: &str| format!("{{\"{name}\":\"{value}\"}}");
    let cases: Vec<(&str, String, u16, String)> = vec![
        ("Order/pause", "".into(), 400, "`Order` is not a handler name: use a-z, then up to 62 of a-z 0-9 _ -".into()),
        ("gone/pause", "".into(), 404, "there is no handler `gone`, there is audit, old, order, pinned".into()),
        (
            "old/pause",
            "".into(),
            409,
            "no settings name handler `old`, so nothing would execute it: put the handler back, or delete what is left \
             of it with `sluicebox handlers forget old`"
                .into(),
        ),
        ("audit/pause", one("key", "ada"), 409, "handler `audit` has no keys (`key = false`): pause the handler".into()),
        ("pinned/pause", one("key", "ada"), 409, "1000 keys of this shard are paused: pause handler `pinned`".into()),
        ("order/pause", one("key", &long), 400, "the body cannot be read: the key has 257 bytes, at most 256 are allowed at line 1 column 267".into()),
        ("order/pause", one("key", ""), 400, "the body cannot be read: a key is not empty at line 1 column 10".into()),
        ("order/pause", one("keys", "a"), 400, "the body cannot be read: unknown field `keys`, expected `key` at line 1 column 7".into()),
        ("order/pause", "[".into(), 400, "the body cannot be read: EOF while parsing a list at line 1 column 1".into()),
        ("order/pause", "{} x".into(), 400, "the body cannot be read: trailing characters at line 1 column 4".into()),
        ("order/pause", "x".repeat(70_000), 413, "the body is larger than 65536 bytes".into()),
        ("order/pause?key=ada", "".into(), 400, "there are no parameters here: what is asked for stands in the body".into()),
        ("order/trip", one("until", "x"), 400, "the body cannot be read: unknown field `until`, there are no fields at line 1 column 8".into()),
        ("order/rollback", one("digest", "abc"), 400, "`abc` is not the beginning of a digest: write 4 to 64 hexadecimal digits".into()),
        ("order/rollback", one("digest", "zzzz"), 400, "`zzzz` is not the beginning of a digest: write 4 to 64 hexadecimal digits".into()),
        ("order/rollback", one("digest", "0000"), 404, "the host knows no version 0000… of handler `order`".into()),
        ("order/rollback", one("digest", &whole), 409, format!("version {whole} of handler `order` is in force already")),
        ("audit/rollback", "".into(), 409, "the host knows no version of handler `audit` before the one in force".into()),
        ("order/forget", one("confirm", "order"), 409, "handler `order` is in the settings: take it out of the settings file, and forget it once the host no longer runs it".into()),
        ("old/forget", "".into(), 400, "forgetting deletes the state, marks, delayed messages and dead letters of `old`: send {\"confirm\": \"old\"} if that is meant".into()),
        ("old/forget", one("confirm", "order"), 400, "forgetting deletes the state, marks, delayed messages and dead letters of `old`: send {\"confirm\": \"old\"} if that is meant".into()),
        ("gone/forget", one("confirm", "gone"), 404, "there is no handler `gone`, there is audit, old, order, pinned".into()),
        ("order/stop", "".into(), 404, "there is no POST /v1/handlers/order/stop".into()),
    ];
    for (path, body, status, error) in cases {
        let (found, answer) = ask(&server, path, &body).await;
        assert_eq!((found, answer["error"].as_str().unwrap()), (status, error.as_str()), "{path}");
    }
    assert!(server.messages().await.is_empty());
    assert_eq!(server.log.routings().await.unwrap().routings.len(), 4);
}

#[tokio::test]
async fn rollback_goes_to_the_version_before_the_one_in_force_and_unpin_back_to_the_file() {
    let change = |double: &mut Double| {
        let order = double.handlers.iter_mut().find(|handler| handler.name.as_str() == "order").unwrap();
        order.digest = Some(digest("b"));
    };
    let server = server_with(change).await;
    assert_eq!(ask(&server, "order/rollback", "").await.0, 202);
    let (_, command) = server.commands().await.pop().unwrap();
    assert_eq!(command["pin"], json!({ "digest": digest("a").to_string(), "over": digest("c").to_string() }));
    let (status, answer) = ask(&server, "order/rollback", &format!("{{\"digest\":\"{}\"}}", digest("c"))).await;
    let expected = format!("version {} is the one in the file: use unpin", digest("c"));
    assert_eq!((status, &answer["error"]), (409, &json!(expected)));
}

async fn put(server: &Server, path: &str, module: &'static [u8]) -> (u16, Value) {
    let (status, answer) = send(server.request(Method::PUT, &format!("/v1/handlers/{path}")).body(module)).await;
    (status.as_u16(), answer)
}

#[tokio::test]
async fn a_module_is_in_the_log_before_the_command_that_puts_it_in_force() {
    let server = server().await;
    let (status, answer) = put(&server, "order/module", b"good").await;
    assert_eq!((status, &answer["digest"]), (202, &json!(digest("good"))), "{answer}");
    let last = server.messages().await.pop().unwrap();
    assert_eq!(answer["offset"], last.offset.0);
    assert_eq!(Command::read(&last).unwrap(), Command::Rollback { pin: Pin::deployed(digest("good")) });
    assert_eq!(server.log.module(name("order"), digest("good")).await.unwrap().unwrap(), "good");
    assert!(server.metrics.render().contains("commands_total{command=\"deploy\"} 1"));

    // From then on every host can go back to it, whatever is in its file.
    let (_, order) = send(server.get("/v1/handlers/order")).await;
    assert_eq!(order["running"]["versions"][3]["deployed"], true, "{order}");
    let prefix = &digest("good").to_string()[..8];
    let (status, answer) = ask(&server, "order/rollback", &format!("{{\"digest\":\"{prefix}\"}}")).await;
    assert_eq!(status, 202, "{answer}");
    let last = server.messages().await.pop().unwrap();
    assert_eq!(Command::read(&last).unwrap(), Command::Rollback { pin: Pin::deployed(digest("good")) });
}

#[tokio::test]
async fn a_module_that_cannot_be_meant_is_refused_and_changes_nothing() {
    const LARGE: &[u8] = &[0; crate::handler::MODULE_BYTES_MAX + 1];
    let server = server().await;
    let cases: &[(&str, &[u8], u16, &str)] = &[
        (
            "order/module",
            b"bad one",
            422,
            "the module cannot run for handler `order`, so nothing was changed: it is bad",
        ),
        ("order/module", b"", 400, "there is no body: send the bytes of the module, a WebAssembly component"),
        ("order/module", LARGE, 413, "the body is larger than 67108864 bytes"),
        ("order/module?force=1", b"good", 400, "there are no parameters here: the body is the module"),
        ("gone/module", b"good", 404, "there is no handler `gone`, there is audit, old, order"),
        (
            "old/module",
            b"good",
            409,
            "no settings name handler `old`, so nothing would execute it: put the handler back, or delete what is left \
             of it with `sluicebox handlers forget old`",
        ),
    ];
    for (path, module, status, error) in cases {
        let (found, answer) = put(&server, path, module).await;
        assert_eq!((found, answer["error"].as_str().unwrap()), (*status, *error), "{path}");
    }
    assert!(server.messages().await.is_empty() && server.log.modules().await.unwrap().is_empty());
}

#[tokio::test]
async fn nobody_is_commanded_before_he_can_hear_it() {
    let server = Server::start().await;
    stage::route(&server.log, "order", KeyFrom::Message, 1).await;
    let (status, answer) = ask(&server, "order/pause", "").await;
    assert_eq!((status, &answer["error"]), (503, &json!("the host is starting: try again")));

    let double = Double { handlers: vec![runs("order", &["a"])], ..Double::default() };
    let server = Server::start_with(|face| face.attach(Arc::new(double)), None, [127, 0, 0, 1]).await;
    // As before the first claim of its second shard.
    stage::route(&server.log, "order", KeyFrom::Message, 1).await;
    let mut routings = server.log.routings().await.unwrap();
    routings.routings[0].shards = 2;
    server.log.put_routings(routings.version, routings.routings).await.unwrap();
    let (status, answer) = ask(&server, "order/pause", "").await;
    assert_eq!((status, &answer["error"]), (503, &json!("handler `order` is starting: try again")));
    assert!(server.messages().await.is_empty());
}

#[tokio::test]
async fn a_handler_that_no_settings_name_can_be_forgotten() {
    let server = server().await;
    let offsets = server.append("events.made", 0..2).await;
    stage::bury(&server.log, "old", 0, &offsets, |_, _| {}).await;
    stage::bury(&server.log, "order", 0, &offsets, |_, _| {}).await;
    let (status, answer) = ask(&server, "old/forget", "{\"confirm\":\"old\"}").await;
    assert_eq!((status, answer), (200, json!({ "handler": "old", "forgotten": true })));
    let (_, page) = send(server.get("/v1/handlers")).await;
    let names: Vec<&str> = page["handlers"].as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["audit", "order"]);
    let (_, count) = send(server.get("/v1/dead/count")).await;
    assert_eq!(count["letters"], 2);
    assert_eq!(ask(&server, "old/forget", "{\"confirm\":\"old\"}").await.0, 404);
}

#[tokio::test]
async fn a_handler_is_shown_with_its_routing_its_place_and_what_was_asked_of_it() {
    let server = server_with(|double| {
        let order = double.handlers.iter_mut().find(|handler| handler.name.as_str() == "order").unwrap();
        order.breaker = BreakerView::Open { until: Timestamp(1_500) };
        order.running = 3;
        order.problem = Some("failed to read module `order.wasm`".into());
        // In the memory log the second message has offset 3.
        double.passed = Some((ShardId { handler: name("order"), index: 0 }, Offset(3)));
    })
    .await;
    let offsets = server.append("events.made", 0..2).await;
    assert_eq!(offsets, [1, 3]);
    stage::bury(&server.log, "order", 1, &offsets[..1], |_, _| {}).await;
    let filter = DeadFilter { kind: Some("trap".into()), upto: Some(9), ..DeadFilter::default() };
    let control = Control {
        paused: true,
        paused_keys: [Key::parse("ada").unwrap().unwrap()].into(),
        tripped: true,
        pin: Some(Pin { digest: digest("b"), over: Over::File(digest("c")) }),
        pin_command: 3,
        jobs: vec![DeadJob { command: 4, action: DeadAction::Retry, filter, to: None }],
    };
    stage::control(&server.log, "order", 1, control).await;

    let (status, order) = send(server.get("/v1/handlers/order")).await;
    assert_eq!(status, StatusCode::OK, "{order}");
    assert_eq!(
        (&order["subscribe"], &order["key"], &order["id"], &order["shard_count"]),
        (&json!(["events.*"]), &json!(["/user", "header:user", "topic:2"]), &Value::Null, &json!(2))
    );
    assert_eq!((&order["behind"], &order["dead"]), (&json!(1), &json!(1)));
    let shards: Vec<_> = order["shards"].as_array().unwrap().iter().map(|shard| &shard["behind"]).collect();
    assert_eq!(shards, [0, 1], "the first shard passed the end, its record does not say so");
    let asked = json!({
        "paused": true,
        "paused_keys": ["ada"],
        "tripped": true,
        "pin": { "digest": digest("b"), "over": digest("c") },
        "jobs": [{ "command": 4, "action": "retry", "filter": { "kind": "trap", "upto": 9 } }],
    });
    assert_eq!((&order["control"], &order["shards"][1]["control"]), (&asked, &asked));
    assert_eq!(order["shards"][0]["control"]["paused"], false);
    let running = &order["running"];
    assert_eq!(running["breaker"], json!({ "state": "open", "until": "1970-01-01T00:00:01.500Z" }));
    assert_eq!((&running["running"], &running["concurrency"]), (&json!(3), &json!(64)));
    assert_eq!(running["problem"], "failed to read module `order.wasm`");
    assert_eq!(running["versions"][1], json!({ "digest": digest("b"), "first_seen": "1970-01-01T00:00:01.000Z" }));

    let (_, page) = send(server.get("/v1/handlers")).await;
    assert_eq!(page["handlers"][2], order);
    assert_eq!((&page["handlers"][1]["name"], &page["handlers"][1]["running"]), (&json!("old"), &Value::Null));
    assert_eq!((&page["handlers"][0]["key"], &page["handlers"][1]["key"]), (&json!(false), &json!("*")));
    let (_, status) = send(server.get("/v1/status")).await;
    assert_eq!(status["handlers"], page["handlers"]);
    let (status, answer) = send(server.get("/v1/handlers/gone")).await;
    assert_eq!((status.as_u16(), &answer["known"]), (404, &json!(["audit", "old", "order"])));
}

#[tokio::test]
async fn no_more_orders_are_taken_than_a_shard_can_hold() {
    let server = server().await;
    let offsets = server.append("events.made", 0..1).await;
    stage::bury(&server.log, "order", 1, &offsets, |_, _| {}).await;
    let job = DeadJob { command: 1, action: DeadAction::Drop, filter: DeadFilter::default(), to: None };
    stage::control(&server.log, "order", 1, Control { jobs: vec![job; JOBS_MAX], ..Control::default() }).await;
    let order = server.request(Method::POST, "/v1/dead/drop").body("{\"handler\":\"order\"}");
    let (status, answer) = send(order).await;
    let expected = "16 orders about dead letters of handler `order` are under way: wait for them";
    assert_eq!((status.as_u16(), &answer["error"]), (503, &json!(expected)));
    let (status, answer) = send(server.request(Method::POST, "/v1/dead/drop").body("{\"all\":true}")).await;
    assert_eq!((status.as_u16(), &answer["skipped"][0]["reason"]), (200, &json!(expected)));
    assert!(server.commands().await.is_empty());
}

#[tokio::test]
async fn who_only_counts_what_waits_looks_up_no_failures() {
    let server = server().await;
    server.log.append(vec![NewMessage::new(Topic::parse("events.made").unwrap(), "x")]).await.unwrap();
    stage::bury(&server.log, "old", 0, &[1], |_, _| {}).await;
    let failures = |views: Vec<HandlerView>| views.into_iter().filter_map(|view| view.last_failure).count();
    assert_eq!(failures(HandlerView::all(&*server.log, None).await.unwrap()), 1);
    assert_eq!(failures(HandlerView::counted(&*server.log, None).await.unwrap()), 0);
}
