//! `sluicebox new` through the real program: what it makes tests itself, builds, is checked, and runs.

use crate::harness::guests::handler;
use crate::harness::process::{PROGRAM, Place};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a command of a user in a folder, without network (what a workspace needs is what the handlers of this repository
/// need, so building these fetches it), in a target folder that later runs find again.
fn typed(program: &str, arguments: &[&str], folder: &Path) -> Output {
    handler("order");
    let target: PathBuf = [env!("CARGO_TARGET_TMPDIR"), "new"].iter().collect();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env("CARGO_TARGET_DIR", target).env("CARGO_NET_OFFLINE", "true");
    // A toolchain chosen for the tests would win over the one of the workspace.
    command.env_remove("RUSTUP_TOOLCHAIN").output().unwrap()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn a_new_workspace_tests_itself_builds_is_good_and_handles_messages() {
    // The settings of the place are replaced by those of the new workspace.
    let place = Place::new("", &[]);
    std::fs::remove_file(place.path().join("sluicebox.toml")).unwrap();
    let shop = place.path().to_owned();
    let said = succeeded(&typed(PROGRAM, &["new", "shop", "--path", shop.to_str().unwrap()], Path::new("/")));
    for command in ["cd ", "cargo test", "sluicebox dev", "sluicebox build, sluicebox check, sluicebox run"] {
        assert!(said.contains(command), "{said}");
    }
    let said = succeeded(&typed(PROGRAM, &["new", "greet"], &shop.join("visits")));
    assert!(said.starts_with("added the handler `greet` to the workspace in "), "{said}");
    assert!(said.contains("it listens to greet.event"), "{said}");
    let tested = succeeded(&typed("cargo", &["test", "--quiet"], &shop));
    assert!(tested.contains("2 passed") && tested.contains("1 passed"), "{tested}");

    let early = typed(PROGRAM, &["check"], &shop);
    assert_eq!(early.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&early.stderr).contains("`sluicebox build` builds the handlers next to it"));
    succeeded(&typed(PROGRAM, &["build"], &shop));
    let checked = succeeded(&typed(PROGRAM, &["check"], &shop));
    assert_eq!(checked, "sluicebox.toml: good, 2 handlers, every module starts\n");

    let host = place.start_with(&[("SLUICEBOX_LISTEN", "127.0.0.1:0")]);
    for id in ["v-1", "v-1", "v-2"] {
        let body = format!(r#"{{"page":"/home","id":"{id}"}}"#);
        assert!(host.publish("web.visit", None, None, &body).await);
    }
    assert!(host.publish("greet.event", None, None, r#"{"user":"ada"}"#).await);
    let greeted = r#"messages_total{handler="greet",outcome="done",topic="greet.event"}"#;
    host.until("the event was counted", async |host| host.metric(greeted).await == 1).await;
    let counted = r#"messages_total{handler="visits",outcome="done",topic="web.visit"}"#;
    host.until("both visits were counted", async |host| host.metric(counted).await == 2).await;
    let (exit, tail, _) =
        place.command(&["tail", "visits.counted", "--from", "earliest", "--no-follow", "--url", &host.url]);
    assert_eq!(exit, 0);
    assert!(tail.contains(r#"{"page":"/home","visits":2}"#), "{tail}");
    assert!(host.stop().success());
}

#[test]
fn a_workspace_on_the_sdk_of_this_repository_has_no_copy_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let sdk = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk");
    let said = succeeded(&typed(PROGRAM, &["new", "shop", "--sdk", sdk, "--json"], folder.path()));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["next"][0], "cd shop");
    assert!(!folder.path().join("shop/sdk").exists());
    succeeded(&typed("cargo", &["metadata", "--format-version", "1"], &folder.path().join("shop")));
}
