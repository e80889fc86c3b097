//! What the commands about dead letters say, and that they return when it is done.

use super::{place, publish, typed, until};

#[tokio::test]
async fn an_order_says_how_many_it_means_asks_and_returns_when_they_are_gone() {
    let place = place("retry = { attempts = 1 }\nbreaker = false\n");
    let host = place.start();
    for number in 0..100 {
        let key = format!("k{}", number % 5);
        publish(&host, &key, "reject").await;
        publish(&host, &key, "trap").await;
    }
    until(&host, "dead", 200).await;
    let drop = ["dead", "drop", "--kind", "reject", "--url", &host.url];
    let (exit, _, said) = place.command(&drop);
    let expected = "error: to drop 100 dead letters: 100 of first without being asked on a terminal, add --yes\n";
    assert_eq!((exit, said.as_str()), (2, expected));
    assert_eq!(typed(&place, &host, &["dead", "count"]), "200\n");
    let dropped = typed(&place, &host, &["dead", "drop", "--kind", "reject", "--yes"]);
    assert_eq!(dropped, "dropped 100 dead letters: 100 of first\n");
    assert_eq!(typed(&place, &host, &["dead", "count"]), "100\n");
    // They trap again: each is a new letter, which this order is not about, or it would not return.
    let retried = typed(&place, &host, &["dead", "retry", "--key", "k0", "--yes", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&retried).unwrap()["letters"], 20);
    until(&host, "dead", 220).await;
    assert_eq!(typed(&place, &host, &["dead", "count"]), "100\n");
    assert_eq!(typed(&place, &host, &["dead", "retry", "--kind", "reject", "--yes"]), "no dead letters are meant\n");
}
