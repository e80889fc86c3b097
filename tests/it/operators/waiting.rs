//! Whatever waits can be found and says why, and an operator can do something about one of it.

use super::{attempts, handled_keys, place, publish, typed, until, until_applied};
use crate::harness::guests;
use crate::harness::process::{Place, Process};
use serde_json::{Value, json};
use sluicebox::handler::Digest;

/// Whoever fails waits for an hour.
const HOUR: &str = "retry = { attempts = 8, min = \"1h\", max = \"1h\" }\nbreaker = false\n";

/// What `handlers waiting` shows, of the host or of the data.
#[track_caller]
fn waiting(place: &Place, host: Option<&Process>, arguments: &[&str]) -> Value {
    let mut all = [&["handlers", "waiting", "first", "--json"], arguments].concat();
    if let Some(host) = host {
        all.extend(["--url", &host.url]);
    }
    let (code, output, said) = place.command(&all);
    assert_eq!(code, 0, "{arguments:?}: {output}{said}");
    serde_json::from_str(&output).unwrap()
}

fn open(page: &Value) -> &Vec<Value> {
    page["open"].as_array().unwrap()
}

#[tokio::test]
async fn a_message_that_waits_says_why_and_how_many_wait_behind_it_with_and_without_a_host() {
    let place = place(HOUR);
    let host = place.start();
    publish(&host, "ada", "wait 2").await;
    until(&host, "retry", 1).await;
    for number in 0..3 {
        publish(&host, "ada", "ok").await;
        publish(&host, "bob", "ok").await;
        // Of nobody's: it waits for no one.
        assert!(host.publish("foreign", Some("ada"), None, &number.to_string()).await);
    }
    until(&host, "done", 3).await;
    let check = |page: &Value| {
        let [ada] = &open(page)[..] else { panic!("{page}") };
        assert_eq!((&ada["key"], &ada["topic"], &ada["offset"]), (&json!("ada"), &json!("in"), &json!(1)), "{page}");
        assert_eq!((&ada["attempts"], &ada["reason"]), (&json!(1), &json!("retry")));
        assert_eq!(ada["error"], "a later version can do it");
        assert_eq!(ada["digest"], Digest::of(&guests::ledger(1)).to_string());
        assert_eq!(ada["behind"], json!({ "messages": 3, "at_least": false }));
        assert!(ada["next_try"].as_str().unwrap() > ada["time"].as_str().unwrap());
        assert_eq!((&page["waiting"]["messages"], &page["waiting"]["at_least"]), (&json!(4), &json!(false)));
        assert_eq!(page["waiting"]["oldest"], ada["time"]);
    };
    check(&waiting(&place, Some(&host), &[]));
    let text = typed(&place, &host, &["handlers", "waiting", "first"]);
    assert!(text.starts_with("first: 4 messages wait, the oldest for "), "{text}");
    assert!(text.contains("a later version can do it"), "{text}");
    for (filter, count) in [
        (["--key", "ada"], 1),
        (["--key", "bob"], 0),
        (["--topic", "other"], 0),
        (["--topic", "*"], 1),
        (["--error", "LATER version"], 1),
        (["--error", "trap"], 0),
        (["--attempts", "2"], 0),
        (["--offset", "1"], 1),
    ] {
        assert_eq!(open(&waiting(&place, Some(&host), &filter)).len(), count, "{filter:?}");
    }
    let (code, _, said) = place.command(&["handlers", "waiting", "gone", "--url", &host.url]);
    assert!(code == 1 && said.contains("there is no handler `gone`, there is first"), "{said}");
    host.stop();
    check(&waiting(&place, None, &[]));
}

#[tokio::test]
async fn what_waits_comes_a_page_at_a_time_and_each_once() {
    let place = place(HOUR);
    let host = place.start();
    for number in 0..25 {
        publish(&host, &format!("k{number}"), "wait 2").await;
        publish(&host, &format!("l{number}"), "later 3600").await;
    }
    until(&host, "retry", 25).await;
    until(&host, "done", 25).await;
    let (mut keys, mut delayed, mut cursor) = (vec![], vec![], None::<String>);
    loop {
        let mut arguments = vec!["--limit", "7"];
        arguments.extend(cursor.iter().flat_map(|cursor| ["--after", cursor]));
        let page = waiting(&place, Some(&host), &arguments);
        let listed = page["delayed"].as_array().unwrap();
        assert!(open(&page).len() + listed.len() <= 7);
        keys.extend(open(&page).iter().map(|open| open["key"].as_str().unwrap().to_owned()));
        delayed.extend(listed.iter().map(|delayed| delayed["key"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => break,
        }
    }
    let expected = |letter: &str| (0..25).map(|number| format!("{letter}{number}")).collect::<Vec<_>>();
    assert_eq!(keys, expected("k"));
    delayed.sort_by_key(|key| key[1..].parse::<u32>().unwrap());
    assert_eq!(delayed, expected("l"));
}

#[tokio::test]
async fn an_operator_makes_one_key_due_at_once_and_it_keeps_its_attempts() {
    let place = place(HOUR);
    let host = place.start();
    for key in ["ada", "bob", "cy"] {
        publish(&host, key, "fail 1").await;
    }
    until(&host, "retry", 3).await;
    let (code, _, said) = place.command(&["handlers", "retry-now", "first", "--key", "dan", "--url", &host.url]);
    let expected = "no message of handler `first` under key `dan` failed and waits for its retry\n";
    assert!(code == 1 && said.ends_with(expected), "{said}");
    typed(&place, &host, &["handlers", "retry-now", "first", "--key", "ada"]);
    until(&host, "done", 1).await;
    typed(&place, &host, &["handlers", "retry-now", "first", "--offset", "2"]);
    until(&host, "done", 2).await;
    assert_eq!(attempts(&host).await, 5, "three failed, two were tried again");
    typed(&place, &host, &["handlers", "retry-now", "first"]);
    until(&host, "done", 3).await;
    assert_eq!(attempts(&host).await, 6);
    host.stop();
    assert_eq!(handled_keys(&place).await, ["ada", "bob", "cy"]);
}

/// The command is durable when it is answered: killed at once, the next host does it.
#[tokio::test]
async fn a_retry_that_was_asked_for_outlives_the_host() {
    let place = place(HOUR);
    let host = place.start();
    publish(&host, "ada", "fail 1").await;
    until(&host, "retry", 1).await;
    typed(&place, &host, &["handlers", "retry-now", "first"]);
    host.kill();
    let host = place.start();
    host.until("it is done", async |_| handled_keys(&place).await == ["ada"]).await;
}

#[tokio::test]
async fn paused_keys_are_in_the_list_and_are_the_reason() {
    let place = place(HOUR);
    let host = place.start();
    typed(&place, &host, &["handlers", "pause", "first", "--key", "ada"]);
    until_applied(&host, 1).await;
    publish(&host, "ada", "ok").await;
    publish(&host, "bob", "ok").await;
    until(&host, "done", 1).await;
    let page = waiting(&place, Some(&host), &[]);
    // Whether the record has it as open depends on what else its shard had to write.
    let [ada] = &[&open(&page)[..], &page["unread"].as_array().unwrap()[..]].concat()[..] else { panic!("{page}") };
    assert_eq!(
        (&page["paused_keys"], &ada["reason"], &ada["key"]),
        (&json!(["ada"]), &json!("key-paused"), &json!("ada"))
    );
    let text = typed(&place, &host, &["handlers", "waiting", "first"]);
    assert!(text.contains("paused keys: ada") && text.contains("key paused"), "{text}");
}

#[tokio::test]
async fn a_delayed_message_is_listed_and_can_be_cancelled_once() {
    let place = place(HOUR);
    let host = place.start();
    publish(&host, "ada", "later 3600").await;
    publish(&host, "bob", "later 1 s").await;
    until(&host, "done", 2).await;
    let page = waiting(&place, Some(&host), &["--key", "ada"]);
    let [ada] = &page["delayed"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&ada["topic"], &ada["key"]), (&json!("out"), &json!("ada")));
    assert!(ada["due"].is_string() && ada["id"].is_string());
    let named = format!("{}/{}", ada["shard"], ada["number"]);
    assert!(typed(&place, &host, &["handlers", "waiting", "first"]).contains(&named));
    typed(&place, &host, &["handlers", "cancel", "first", &named]);
    host.until("it is gone", async |_| waiting(&place, Some(&host), &["--key", "ada"])["delayed"] == json!([])).await;
    let (code, _, said) = place.command(&["handlers", "cancel", "first", &named, "--url", &host.url]);
    assert!(code == 1 && said.contains(&format!("has no delayed message {named}")), "{said}");
    host.until("the other one comes", async |_| handled_keys(&place).await == ["bob"]).await;
}

#[tokio::test]
async fn messages_that_a_paused_handler_has_not_taken_up_are_listed_and_counted_and_nothing_else_is() {
    let place = place(HOUR);
    let host = place.start();
    typed(&place, &host, &["handlers", "pause", "first"]);
    until_applied(&host, 1).await;
    for number in 0..9 {
        publish(&host, &format!("k{number}"), "ok").await;
        assert!(host.publish("foreign", None, None, "x").await);
    }
    let check = |host: Option<&Process>| {
        let page = waiting(&place, host, &["--limit", "5"]);
        assert_eq!((&page["waiting"]["messages"], &page["waiting"]["at_least"]), (&json!(9), &json!(false)), "{page}");
        let mut keys: Vec<Value> = page["unread"].as_array().unwrap().iter().map(|one| one["key"].clone()).collect();
        let rest = waiting(&place, host, &["--limit", "5", "--after", page["next"].as_str().unwrap()]);
        assert!(rest["next"].is_null() && rest["unread"][0]["reason"] == "paused", "{rest}");
        keys.extend(rest["unread"].as_array().unwrap().iter().map(|one| one["key"].clone()));
        assert_eq!(keys, (0..9).map(|number| json!(format!("k{number}"))).collect::<Vec<_>>());
        assert_eq!(waiting(&place, host, &["--key", "k3"])["unread"].as_array().unwrap().len(), 1);
    };
    check(Some(&host));
    let metric = r#"waiting_messages{handler="first"}"#;
    host.until("the metric says so", async |host| host.metric(metric).await == 9).await;
    let table = typed(&place, &host, &["handlers", "list"]);
    let line = table.lines().find(|line| line.starts_with("first")).unwrap();
    assert!(line.split_whitespace().any(|cell| cell == "9"), "{table}");
    host.stop();
    check(None);
}

#[tokio::test]
async fn nothing_waits_after_a_clean_stop_whatever_others_published() {
    let place = place(HOUR);
    let host = place.start();
    for number in 0..30 {
        publish(&host, &format!("k{number}"), "ok").await;
        assert!(host.publish("foreign", None, None, "x").await);
    }
    until(&host, "done", 30).await;
    host.stop();
    let (code, output, said) = place.command(&["status", "--json"]);
    assert_eq!(code, 0, "{said}");
    let status: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(status["handlers"][0]["waiting"], json!({ "messages": 0, "at_least": false }), "{status}");
    assert!(place.command(&["handlers", "show", "first"]).1.contains("no message waits"));
}

#[tokio::test]
async fn the_last_error_is_shown_where_people_look_and_says_why_a_breaker_is_open() {
    let breaker = "breaker = { trip = \"consecutive\", failures = 2, wait = \"1h\", max_wait = \"1h\" }\n";
    let place = place(&format!("{}{breaker}", HOUR.replace("breaker = false\n", "")));
    let host = place.start_heard();
    for number in 0..8 {
        publish(&host, &format!("k{number}"), "wait 2").await;
    }
    let open = r#"breaker_state{handler="first"}"#;
    host.until("the breaker is open", async |host| host.metric(open).await == 2).await;
    let error = "a later version can do it";
    let shown = typed(&place, &host, &["handlers", "show", "first"]);
    let breaker = shown.lines().find(|line| line.starts_with("breaker")).unwrap();
    assert!(breaker.contains("open until") && breaker.contains(error), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("last error") && line.contains(error)), "{shown}");
    assert!(typed(&place, &host, &["status"]).contains(error));
    let status: Value = serde_json::from_str(&host.get("/v1/status").await).unwrap();
    let failure = &status["handlers"][0]["last_failure"];
    assert_eq!(
        (&failure["kind"], &failure["error"], &failure["attempts"]),
        (&json!("retry"), &json!(error), &json!(1))
    );
    host.stop();
    // The first of its kind at once, and not one line a failure.
    let heard = place.heard();
    let lines: Vec<&str> = heard.lines().filter(|line| line.contains("a run failed")).collect();
    assert!(lines.len() == 1 && lines[0].contains(error), "{heard}");
    assert!(heard.lines().any(|line| line.contains("breaker tripped") && line.contains(error)), "{heard}");
    assert!(place.command(&["handlers", "show", "first"]).1.contains(error), "also without a host");
}
