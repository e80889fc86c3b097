//! Full boxes, rates and circles.

use super::{attempts, messages, outcome, place, publish, typed, until};

async fn dead_letters(host: &crate::harness::process::Process) -> u64 {
    host.metric(r#"dead_letters{handler="first"}"#).await
}

#[tokio::test]
async fn a_full_box_of_dead_letters_lets_the_oldest_go_and_counts_them() {
    let place = place("dead = { max = 3, full = \"drop-oldest\" }\n");
    let host = place.start();
    for number in 0..5 {
        publish(&host, "a", &format!("reject {number}")).await;
    }
    until(&host, "dead", 5).await;
    host.until("two were dropped", async |host| {
        host.metric(r#"dead_letters_dropped_total{handler="first"}"#).await == 2
    })
    .await;
    assert_eq!(dead_letters(&host).await, 3);
    let listed = typed(&place, &host, &["dead", "list", "--json"]);
    for (number, kept) in [(0, false), (1, false), (2, true), (3, true), (4, true)] {
        assert_eq!(listed.contains(&format!("reject {number}")), kept, "{number}: {listed}");
    }
}

#[tokio::test]
async fn a_full_box_of_dead_letters_can_stop_the_handler_instead() {
    let place = place("dead = { max = 3, full = \"stop\" }\n");
    let host = place.start();
    for number in 0..3 {
        publish(&host, "a", &format!("reject {number}")).await;
    }
    until(&host, "dead", 3).await;
    host.kill();
    let host = place.start();
    assert_eq!(dead_letters(&host).await, 3);
    for number in 0..20 {
        publish(&host, &format!("k{number}"), "ok").await;
    }
    assert_eq!(attempts(&host).await, 0, "it stands still");
    typed(&place, &host, &["dead", "drop", "--all", "--yes"]);
    until(&host, "done", 20).await;
}

#[tokio::test]
async fn a_rate_lets_so_many_begin_and_the_rest_waits_without_losing_a_try() {
    let place = place("limit = { rate = \"1/h\" }\n");
    let host = place.start();
    for number in 0..10 {
        publish(&host, &format!("k{number}"), "ok").await;
    }
    until(&host, "done", 1).await;
    assert_eq!(attempts(&host).await, 1);
    let settings = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    place.put("sluicebox.toml", settings.replace("1/h", "100000/s"));
    until(&host, "done", 10).await;
    assert_eq!((attempts(&host).await, outcome(&host, "retry").await), (10, 0));
}

#[tokio::test]
async fn a_handler_that_feeds_itself_ends_in_a_dead_letter() {
    let place = place("config = { output = \"in\" }\n");
    let settings = std::fs::read_to_string(place.path().join("sluicebox.toml")).unwrap();
    place.put("sluicebox.toml", settings.replace("publish = [\"out\"]", "publish = [\"in\"]"));
    let host = place.start();
    publish(&host, "a", "ok").await;
    // 0 to 32 hops are handled, the 33rd is not.
    until(&host, "dead", 1).await;
    assert_eq!(outcome(&host, "done").await, 33);
    assert!(typed(&place, &host, &["dead", "list"]).contains("looks like a loop"));
    host.stop();
    assert_eq!(messages(&place, "in").await.len(), 34);
}
