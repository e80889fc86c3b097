//! Dead letters return or go: one, some, all; in their order, once.

use super::{handled_keys, messages, outcome, place, publish, typed, until};
use crate::harness::guests;

/// Messages that version 1 of the guest gives up at once and version 2 handles.
const BROKEN: &str = "wait 2";
const ONE_TRY: &str = "retry = { attempts = 1 }\nbreaker = false\n";

fn numbers(place: &crate::harness::process::Place, host: &crate::harness::process::Process) -> Vec<u64> {
    let listed = typed(place, host, &["dead", "list", "--json", "--limit", "1000"]);
    let page: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut numbers: Vec<u64> =
        page["letters"].as_array().unwrap().iter().map(|letter| letter["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn all_dead_letters_return_behind_what_came_meanwhile_in_the_order_they_died() {
    let place = place(ONE_TRY);
    let host = place.start();
    for number in 0..200 {
        publish(&host, &format!("k{}", number % 5), &format!("{BROKEN} {number}")).await;
    }
    until(&host, "dead", 200).await;
    place.put("ledger.wasm", guests::ledger(2));
    host.until("the fix is in force", async |host| host.metric("reloads_total{result=\"ok\"}").await == 1).await;
    publish(&host, "k0", "ok after").await;
    until(&host, "done", 1).await;
    typed(&place, &host, &["dead", "retry", "--all", "--yes"]);
    // Handled under the topic they had.
    until(&host, "done", 201).await;
    assert_eq!(numbers(&place, &host), [0; 0]);
    host.stop();
    let bodies: Vec<String> = messages(&place, "_retry.first")
        .await
        .iter()
        .map(|message| String::from_utf8(message.body.to_vec()).unwrap())
        .collect();
    for key in 0..5 {
        let order: Vec<u32> = bodies
            .iter()
            .filter_map(|body| body.rsplit(' ').next().unwrap().parse().ok())
            .filter(|number| number % 5 == key)
            .collect();
        assert_eq!(order, (0..40).map(|at| at * 5 + key).collect::<Vec<u32>>());
    }
    assert_eq!(handled_keys(&place).await.len(), 201);
}

#[tokio::test]
async fn a_command_means_the_letters_of_its_filter_and_no_others() {
    let place = place(ONE_TRY);
    let host = place.start();
    for key in ["ada", "bob", "cyd"] {
        publish(&host, key, BROKEN).await;
        publish(&host, key, "reject").await;
    }
    until(&host, "dead", 6).await;
    typed(&place, &host, &["dead", "drop", "--key", "ada", "--yes"]);
    assert_eq!(numbers(&place, &host).len(), 4);
    typed(&place, &host, &["dead", "drop", "--kind", "reject", "--yes"]);
    let left = numbers(&place, &host);
    assert_eq!(left.len(), 2);
    typed(&place, &host, &["dead", "drop", "--number", &left[0].to_string(), "--yes"]);
    assert_eq!(numbers(&place, &host), left[1..]);
    host.kill();
    let host = place.start();
    assert_eq!(numbers(&place, &host), left[1..], "what was dropped stays dropped");
}

#[tokio::test]
async fn letters_that_die_again_are_not_retried_for_ever() {
    let place = place(ONE_TRY);
    let host = place.start();
    for number in 0..50 {
        publish(&host, &format!("k{number}"), "reject").await;
    }
    until(&host, "dead", 50).await;
    let before = numbers(&place, &host);
    typed(&place, &host, &["dead", "retry", "--all", "--yes"]);
    until(&host, "dead", 100).await;
    let after = numbers(&place, &host);
    assert_eq!(after.len(), 50);
    assert!(after[0] > before[49], "they are new letters");
    assert_eq!(outcome(&host, "done").await, 0);
}

#[tokio::test]
async fn a_command_that_was_answered_is_done_although_the_host_dies() {
    let place = place(ONE_TRY);
    let host = place.start();
    for number in 0..600 {
        publish(&host, &format!("k{number}"), "reject").await;
    }
    until(&host, "dead", 600).await;
    typed(&place, &host, &["dead", "drop", "--all", "--yes", "--no-wait"]);
    host.kill();
    let host = place.start();
    host.until("all of them are gone", async |host| host.metric("dead_letters{handler=\"first\"}").await == 0).await;
    assert_eq!(numbers(&place, &host), [0; 0]);
}

#[tokio::test]
async fn a_letter_says_how_often_it_died_and_a_mistyped_name_is_no_empty_list() {
    let place = place(ONE_TRY);
    let host = place.start();
    for _ in 0..2 {
        assert!(host.publish("in", Some("k"), Some("same"), "reject").await);
    }
    until(&host, "dead", 2).await;
    typed(&place, &host, &["dead", "retry", "--all", "--yes"]);
    until(&host, "dead", 3).await;
    let number = numbers(&place, &host)[0].to_string();
    assert_eq!(typed(&place, &host, &["dead", "count"]), "1\n");
    let shown = typed(&place, &host, &["dead", "show", &number]);
    assert!(shown.contains("deaths    3 in all, the first ") && shown.contains("returns   1\n"), "{shown}");
    let shown: serde_json::Value =
        serde_json::from_str(&typed(&place, &host, &["dead", "show", &number, "--json"])).unwrap();
    assert_eq!((&shown["deaths"], &shown["returns"], &shown["first_offset"]), (&3.into(), &1.into(), &1.into()));
    let listed = typed(&place, &host, &["dead", "list"]);
    assert!(listed.contains("DEATHS"), "{listed}");
    host.stop();
    // Without a host too.
    let (code, _, said) = place.command(&["dead", "list", "--handler", "frist"]);
    assert_ne!(code, 0);
    assert!(said.contains("there is no handler `frist`: did you mean `first`?"), "{said}");
    let (code, _, said) = place.command(&["dead", "count", "--kind", "rejected"]);
    assert_ne!(code, 0);
    assert!(said.contains("did you mean `reject`?"), "{said}");
}
