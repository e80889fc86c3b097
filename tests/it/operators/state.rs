//! What handlers remember can be looked at, as far as their settings let it.

use super::{place, publish, typed, until};
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn keys_and_what_they_remember_are_shown_with_and_without_a_host() {
    let place = place("");
    let host = place.start();
    for key in ["user/a b", "user/ü", "user/ü", "other"] {
        publish(&host, key, "ok").await;
    }
    until(&host, "done", 4).await;
    let list = ["state", "list", "first", "--prefix", "user/", "--json"];
    let expected = json!({ "handler": "first", "keys": [
        { "key": "user/a b", "entries": 1, "bytes": 2 },
        { "key": "user/ü", "entries": 1, "bytes": 2 },
    ] });
    assert_eq!(parsed(&typed(&place, &host, &list)), expected);
    let page = parsed(&typed(&place, &host, &["state", "list", "first", "--limit", "2", "--json"]));
    assert_eq!((&page["keys"][0]["key"], &page["next_after"]), (&json!("other"), &json!("user/a b")));
    let get = ["state", "get", "first", "user/ü", "--json"];
    let state = json!({ "handler": "first", "key": "user/ü", "shown": "values", "entries": [
        { "entry": "n", "bytes": 1, "value": "2" },
    ] });
    assert_eq!(parsed(&typed(&place, &host, &get)), state);
    assert_eq!(typed(&place, &host, &["state", "get", "first", "user/ü", "n"]), "2\n");
    for (arguments, expected) in [
        (&["state", "get", "first", "nobody"][..], "key `nobody` of handler `first` has no state"),
        (&["state", "get", "first", "other", "m"], "key `other` has no entry `m`, there is n"),
        (&["state", "list", "gone"], "there is no handler `gone`"),
    ] {
        let (code, _, said) = place.command(&[arguments, &["--url", &host.url]].concat());
        assert!(code == 1 && said.contains(expected), "{arguments:?}: {said}");
    }
    host.stop();
    for (arguments, expected) in [(&list[..], &expected), (&get[..], &state)] {
        let (code, output, said) = place.command(arguments);
        assert_eq!((code, &parsed(&output)), (0, expected), "{said}");
    }
}

#[tokio::test]
async fn what_the_settings_do_not_let_be_shown_is_not_shown_with_or_without_a_host() {
    for (setting, refused) in [("sizes", false), ("nothing", true)] {
        let place = place(&format!("show_state = \"{setting}\"\n"));
        let host = place.start();
        publish(&host, "ada", "ok").await;
        until(&host, "done", 1).await;
        let check = |url: Option<&str>| {
            for command in [&["state", "get", "first", "ada", "--json"][..], &["state", "list", "first", "--json"]] {
                let url = url.map(|url| vec!["--url", url]).unwrap_or_default();
                let (code, output, said) = place.command(&[command, &url].concat());
                if refused {
                    assert!(code == 1 && said.contains("show_state"), "{said}");
                    continue;
                }
                let shown = parsed(&output);
                assert!(shown["entries"].as_array().is_none_or(|entries| {
                    entries == &vec![json!({ "entry": "n", "bytes": 1 })] && shown["shown"] == "sizes"
                }));
                assert!(shown["keys"].is_array() || shown["entries"].is_array(), "{shown}");
            }
        };
        check(Some(&host.url));
        host.stop();
        check(None);
    }
}
