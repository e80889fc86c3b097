//! Dead letters: looks with the whole filter, and orders to retry or drop them.

use super::stage::{self, Double, runs};
use super::*;
use crate::message::Key;

/// `order` has four letters on two shards and `audit` one, of five messages; `old`, in no settings, has one.
struct Buried {
    server: Server,
    order: Vec<u64>,
    audit: Vec<u64>,
    old: Vec<u64>,
}

async fn buried() -> Buried {
    let double = Double { handlers: vec![runs("audit", &["x"]), runs("order", &["a"])], ..Double::default() };
    let server = Server::start_with(|face| face.attach(Arc::new(double)), None, [127, 0, 0, 1]).await;
    for (handler, shards) in [("order", 2), ("audit", 1), ("old", 1)] {
        stage::route(&server.log, handler, KeyFrom::Message, shards).await;
    }
    let made = server.append("events.made", 0..3).await;
    let gone = server.append("events.gone", 0..2).await;
    let key = |text| Key::parse(text).unwrap();
    let first =
        stage::bury(&server.log, "order", 0, &made[..2], |at, letter| letter.key = key(["ada", "bob"][at])).await;
    let audit = stage::bury(&server.log, "audit", 0, &made[2..], |_, letter| letter.kind = "trap".into()).await;
    let trapped = |at: usize, letter: &mut DeadLetter| {
        letter.kind = "trap".into();
        letter.key = key(["ada", "é&b"][at]);
    };
    let second = stage::bury(&server.log, "order", 1, &gone, trapped).await;
    let old = stage::bury(&server.log, "old", 0, &made[..1], |_, _| {}).await;
    Buried { server, order: [first, second].concat(), audit, old }
}

impl Buried {
    /// Orders something; status and answer.
    async fn order(&self, action: &str, body: &Value) -> (u16, Value) {
        let request = self.server.request(Method::POST, &format!("/v1/dead/{action}"));
        let (status, answer) = send(request.body(body.to_string())).await;
        (status.as_u16(), answer)
    }
}

#[tokio::test]
async fn every_condition_of_a_filter_counts_in_lists_counts_and_orders() {
    let buried = buried().await;
    let Buried { server, order, audit, old } = &buried;
    let pick = |numbers: &[u64]| numbers.to_vec();
    let cases: Vec<(&str, Value, Vec<u64>)> = vec![
        ("", json!({}), [&order[..2], audit, &order[2..], old].concat()),
        ("handler=order", json!({ "handler": "order" }), pick(order)),
        ("handler=order&shard=1", json!({ "handler": "order", "shard": 1 }), pick(&order[2..])),
        ("key=ada", json!({ "key": "ada" }), vec![order[0], order[2]]),
        ("key=%C3%A9%26b", json!({ "key": "é&b" }), vec![order[3]]),
        ("topic=events.gone", json!({ "topic": "events.gone" }), pick(&order[2..])),
        ("topic=*.made&handler=order", json!({ "topic": "*.made", "handler": "order" }), pick(&order[..2])),
        ("kind=trap", json!({ "kind": "trap" }), [audit, &order[2..]].concat()),
        ("kind=trap&key=ada", json!({ "kind": "trap", "key": "ada" }), vec![order[2]]),
        ("kind=gone", json!({ "kind": "gone" }), vec![]),
    ];
    for (query, filter, expected) in cases {
        let (_, page) = send(server.get(&format!("/v1/dead?{query}"))).await;
        let mut listed: Vec<u64> =
            page["letters"].as_array().unwrap().iter().map(|letter| letter["number"].as_u64().unwrap()).collect();
        listed.reverse();
        assert_eq!(listed, expected, "{query}");
        let (_, count) = send(server.get(&format!("/v1/dead/count?{query}"))).await;
        let newest = expected.last().copied().unwrap_or(0);
        assert_eq!(count, json!({ "letters": expected.len(), "newest": newest }), "{query}");

        let mut body = filter.as_object().unwrap().clone();
        body.insert("all".into(), true.into());
        let request = server.request(Method::POST, "/v1/dead/retry?dry_run=true").json(&body);
        let (status, answer) = send(request).await;
        let executed = expected.iter().filter(|number| !old.contains(number)).count();
        assert_eq!((status.as_u16(), &answer["letters"]), (200, &json!(executed)), "{query}");
        assert_eq!((&answer["upto"], &answer["commands"]), (&json!(newest), &json!([])), "{query}");
    }
    let both = format!("numbers={},{}", order[0], old[0]);
    let (_, count) = send(server.get(&format!("/v1/dead/count?{both}&upto={}", order[3]))).await;
    assert_eq!(count, json!({ "letters": 1, "newest": order[0] }));
    let (_, page) = send(server.get(&format!("/v1/dead?{both}&below={}&limit=1", old[0]))).await;
    assert_eq!((&page["letters"][0]["number"], &page["next_below"]), (&json!(order[0]), &json!(order[0])));
    assert!(server.commands().await.is_empty());
}

#[tokio::test]
async fn names_that_nobody_knows_are_refused_with_what_was_meant() {
    let buried = buried().await;
    let unknown = [
        ("handler", "ordr", 404, "there is no handler `ordr`: did you mean `order`? There is audit, old, order"),
        ("handler", "gone", 404, "there is no handler `gone`, there is audit, old, order"),
        ("kind", "tarp", 400, "there is no kind of failure `tarp`: did you mean `trap`? There is reject, retry"),
        ("kind", "nothing", 400, "there is no kind of failure `nothing`, there is reject, retry"),
    ];
    for (field, name, expected, reason) in unknown {
        let looks = ["", "/count"].map(|path| buried.server.get(&format!("/v1/dead{path}?{field}={name}")));
        let mut answers = vec![];
        for look in looks {
            let (status, answer) = send(look).await;
            answers.push((status.as_u16(), answer));
        }
        for action in ["retry", "drop"] {
            answers.push(buried.order(action, &json!({ field: name })).await);
        }
        for (status, answer) in answers {
            let error = answer["error"].as_str().unwrap();
            assert!((status, error.starts_with(reason)) == (expected, true), "{status} {error}");
            assert!(answer["known"].as_array().unwrap().len() >= 3);
        }
    }
    assert!(buried.server.commands().await.is_empty());
}

#[tokio::test]
async fn letters_can_be_sent_to_another_handler_that_runs() {
    let buried = buried().await;
    let (status, answer) = buried.order("retry", &json!({ "numbers": [buried.order[0]], "to": "audit" })).await;
    assert_eq!((status, &answer["letters"]), (202, &json!(1)), "{answer}");
    let (handler, command) = buried.server.commands().await.pop().unwrap();
    assert_eq!(
        (handler.as_str(), &command["command"], &command["to"]),
        ("order", &json!("retry-dead"), &json!("audit"))
    );
    let refused = [
        ("gone", 404, "there is no handler `gone`"),
        ("audti", 404, "there is no handler `audti`: did you mean `audit`?"),
        ("old", 409, "no settings name handler `old`"),
        ("X", 400, "`X` is not a handler name"),
    ];
    for (to, expected, reason) in refused {
        let (status, answer) = buried.order("retry", &json!({ "all": true, "to": to })).await;
        assert!((status, answer["error"].as_str().unwrap().starts_with(reason)) == (expected, true), "{answer}");
    }
    let (status, answer) = buried.order("drop", &json!({ "all": true, "to": "audit" })).await;
    assert_eq!(status, 400, "{answer}");
    assert_eq!(buried.server.commands().await.len(), 1);
}

#[tokio::test]
async fn letters_of_the_hosts_own_handler_go_to_no_other() {
    let double = Double { handlers: vec![runs("audit", &["x"]), runs("_delay", &[])], ..Double::default() };
    let server = Server::start_with(|face| face.attach(Arc::new(double)), None, [127, 0, 0, 1]).await;
    for handler in ["_delay", "audit"] {
        stage::route(&server.log, handler, KeyFrom::Message, 1).await;
    }
    let made = server.append("events.made", 0..2).await;
    stage::bury(&server.log, "_delay", 0, &made[..1], |_, _| {}).await;
    stage::bury(&server.log, "audit", 0, &made[1..], |_, _| {}).await;
    let retry = async |body: Value| {
        let (status, answer) = send(server.request(Method::POST, "/v1/dead/retry").body(body.to_string())).await;
        (status.as_u16(), answer)
    };
    let reason = "a dead letter of `_delay` is a message that a publisher delayed";
    let (status, answer) = retry(json!({ "handler": "_delay", "to": "audit" })).await;
    assert!(status == 409 && answer["error"].as_str().unwrap().starts_with(reason), "{answer}");
    let (status, answer) = retry(json!({ "all": true, "to": "audit" })).await;
    assert_eq!((status, &answer["letters"], &answer["skipped"][0]["letters"]), (202, &json!(1), &json!(1)), "{answer}");
    assert!(answer["skipped"][0]["reason"].as_str().unwrap().starts_with(reason), "{answer}");
    assert_eq!(retry(json!({ "handler": "_delay" })).await.0, 202, "it may return");
}

#[tokio::test]
async fn an_order_becomes_one_command_per_handler_about_the_letters_that_there_are() {
    let buried = buried().await;
    let newest = *buried.order.last().unwrap();
    let (status, answer) = buried.order("drop", &json!({ "kind": "trap" })).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!((&answer["letters"], &answer["upto"]), (&json!(3), &json!(newest)));
    assert_eq!(answer["handlers"], json!([{ "handler": "audit", "letters": 1 }, { "handler": "order", "letters": 2 }]));
    assert_eq!(answer.get("skipped"), None);
    let commands = buried.server.commands().await;
    let filter = |handler: &str| json!({ "handler": handler, "kind": "trap", "upto": newest });
    assert_eq!(
        commands,
        ["audit", "order"].map(|name| (name.to_owned(), json!({ "command": "drop-dead", "filter": filter(name) })))
    );
    let offsets: Vec<u64> = buried.server.messages().await.iter().rev().take(2).map(|m| m.offset.0).collect();
    let sent: Vec<_> = answer["commands"].as_array().unwrap().iter().map(|command| &command["offset"]).collect();
    assert_eq!(sent, [offsets[1], offsets[0]]);

    let (status, answer) = buried.order("retry", &json!({ "numbers": [buried.order[0]] })).await;
    assert_eq!((status, &answer["letters"]), (202, &json!(1)));
    let (handler, command) = buried.server.commands().await.pop().unwrap();
    assert_eq!((handler.as_str(), &command["command"]), ("order", &json!("retry-dead")));
    assert_eq!(command["filter"]["numbers"], json!([buried.order[0]]));
}

#[tokio::test]
async fn letters_that_nobody_would_handle_are_left_out_and_said_so() {
    let buried = buried().await;
    let (status, answer) = buried.order("retry", &json!({ "all": true })).await;
    assert_eq!((status, &answer["letters"]), (202, &json!(5)));
    let skipped = &answer["skipped"][0];
    assert_eq!((&skipped["handler"], &skipped["letters"]), (&json!("old"), &json!(1)));
    assert!(skipped["reason"].as_str().unwrap().starts_with("no settings name handler `old`"), "{skipped}");
    let names: Vec<String> = buried.server.commands().await.into_iter().map(|(handler, _)| handler).collect();
    assert_eq!(names, ["audit", "order"]);
}

#[tokio::test]
async fn an_order_about_nothing_is_answered_and_not_written() {
    let buried = buried().await;
    let (status, answer) = buried.order("retry", &json!({ "key": "nobody" })).await;
    assert_eq!((status, answer), (200, json!({ "letters": 0, "upto": 0, "handlers": [], "commands": [] })));
    assert!(buried.server.commands().await.is_empty());
}

#[tokio::test]
async fn a_filter_that_cannot_be_meant_is_refused_and_orders_nothing() {
    let buried = buried().await;
    let server = &buried.server;
    let too_many: Vec<u64> = (0..1001).collect();
    let empty = "an empty filter means every dead letter: say what is meant (handler, shard, key, topic, kind, numbers), \
                 or send {\"all\": true}";
    let post = |body: &str| server.request(Method::POST, "/v1/dead/retry").body(body.to_owned());
    let cases: Vec<(RequestBuilder, u16, String)> = vec![
        (post(""), 400, empty.into()),
        (post("{}"), 400, empty.into()),
        (post("{\"all\":false}"), 400, empty.into()),
        (post("{\"upto\":7}"), 400, empty.into()),
        (post("{\"numbers\":[]}"), 400, empty.into()),
        (post("{\"all\":\"yes\"}"), 400, "the filter cannot be read: `all` must be true or false".into()),
        (
            post("{\"handlers\":\"order\"}"),
            400,
            "the filter cannot be read: unknown field `handlers`, expected one of `handler`, `shard`, `key`, `topic`, \
             `kind`, `numbers`, `upto`"
                .into(),
        ),
        (post("[]"), 400, "the body cannot be read: invalid type: sequence, expected a map at line 1 column 0".into()),
        (post("{\"numbers\":[-1]}"), 400, "the filter cannot be read: invalid value: integer `-1`, expected u64".into()),
        (post("{\"numbers\":7}"), 400, "the filter cannot be read: invalid type: integer `7`, expected a sequence".into()),
        (
            post(&json!({ "numbers": too_many }).to_string()),
            400,
            "1001 numbers are too many: at most 1000 at a time".into(),
        ),
        (post("{\"topic\":\"a.>.b\"}"), 400, "the filter cannot be read: `>` must be the last token of `a.>.b`".into()),
        (
            post("{\"handler\":\"X\"}"),
            400,
            "the filter cannot be read: `X` is not a handler name: use a-z, then up to 62 of a-z 0-9 _ -".into(),
        ),
        (post("{\"key\":\"\"}"), 400, "the filter cannot be read: a key is not empty".into()),
        (post("{\"kind\":\"\"}"), 400, "`kind` is the kind of a failure, such as reject or trap".into()),
        (post("{\"handler\":\"gone\"}"), 404, "there is no handler `gone`, there is audit, old, order".into()),
        (
            post("{\"handler\":\"old\"}"),
            409,
            "no settings name handler `old`, so nothing would execute it: put the handler back, or delete what is left \
             of it with `sluicebox handlers forget old`"
                .into(),
        ),
        (
            server.request(Method::POST, "/v1/dead/drop?dryrun=true").body("{\"all\":true}"),
            400,
            "unknown parameter `dryrun`, there is dry_run".into(),
        ),
        (
            server.request(Method::POST, "/v1/dead/drop?dry_run=1").body("{\"all\":true}"),
            400,
            "`dry_run` must be true or false, not `1`".into(),
        ),
        (server.get("/v1/dead?shard=x"), 400, "`shard`: `x` is not the index of a shard".into()),
        (server.get("/v1/dead?key="), 400, "`key`: a key is not empty".into()),
        (server.get("/v1/dead?topic=a..b"), 400, "`topic`: `a..b` has an empty token: remove the leading, trailing or double dot".into()),
        (server.get("/v1/dead/count?numbers=1,x"), 400, "`numbers`: `x` is not a number: write such as 3,5".into()),
        (server.get("/v1/dead/count?kind=a&kind=b"), 400, "the parameter `kind` is there twice".into()),
        (
            server.get("/v1/dead/count?limit=3"),
            400,
            "unknown parameter `limit`, there is handler, shard, key, topic, kind, numbers, upto".into(),
        ),
        (server.get("/v1/handlers?shards=1"), 400, "unknown parameter `shards`, there is none here".into()),
        (server.get("/v1/dead/retry"), 405, "GET is not possible here: use POST /v1/dead/retry".into()),
    ];
    for (request, status, error) in cases {
        let shown = format!("{request:?}");
        let (found, answer) = send(request).await;
        assert_eq!((found.as_u16(), answer["error"].as_str().unwrap()), (status, error.as_str()), "{shown}");
    }
    assert!(server.commands().await.is_empty());
}

#[tokio::test]
async fn a_page_of_large_letters_ends_early_and_the_next_one_goes_on() {
    let server = Server::start().await;
    stage::route(&server.log, "order", KeyFrom::Message, 1).await;
    let body = vec![b'x'; 400_000];
    let topic = Topic::parse("events.made").unwrap();
    let appended = server.log.append(vec![NewMessage::new(topic, body); 7]).await.unwrap();
    let offsets: Vec<u64> = appended.into_iter().map(|offset| offset.0).collect();
    let mut left = stage::bury(&server.log, "order", 0, &offsets, |_, _| {}).await;
    let mut query = String::new();
    loop {
        let (_, page) = send(server.get(&format!("/v1/dead{query}"))).await;
        let letters = page["letters"].as_array().unwrap();
        assert!(letters.len() <= 3, "{} letters", letters.len());
        letters.iter().for_each(|letter| assert_eq!(letter["number"].as_u64(), left.pop()));
        let Some(below) = page["next_below"].as_u64() else { break };
        query = format!("?below={below}");
    }
    assert!(left.is_empty(), "{left:?} were not listed");
}
