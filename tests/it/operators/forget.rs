//! A handler that was taken out of the settings can be deleted, and no other.

use super::{place, publish, typed, until};
use serde_json::Value;

#[tokio::test]
async fn a_handler_is_forgotten_only_when_the_settings_no_longer_name_it() {
    let place = place("retry = { attempts = 1 }\n");
    let host = place.start();
    publish(&host, "a", "reject").await;
    until(&host, "dead", 1).await;
    let (exit, _, said) = place.command(&["handlers", "forget", "first", "--yes", "--url", &host.url]);
    assert_eq!(exit, 1);
    assert!(said.contains("handler `first` is in the settings: take it out of the settings file"), "{said}");

    place.settings("");
    let shown =
        || serde_json::from_str::<Value>(&typed(&place, &host, &["handlers", "show", "first", "--json"])).unwrap();
    host.until("the host runs it no longer", async |_| shown()["running"].is_null()).await;
    let (exit, _, said) = place.command(&["dead", "retry", "--handler", "first", "--url", &host.url]);
    assert_eq!(exit, 1);
    assert!(said.contains("no settings name handler `first`, so nothing would execute it"), "{said}");
    assert_eq!(typed(&place, &host, &["handlers", "forget", "first", "--yes"]), "first is forgotten\n");
    assert_eq!(typed(&place, &host, &["dead", "count"]), "0\n");
    assert_eq!(typed(&place, &host, &["handlers", "list"]), "no handlers\n");
    host.kill();
    let host = place.start();
    assert_eq!(typed(&place, &host, &["handlers", "list"]), "no handlers\n");
}
