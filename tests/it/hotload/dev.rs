//! `sluicebox dev` takes up what an author writes.

use super::handled;
use crate::harness::guests;
use crate::harness::process::{Place, Process};
use std::path::Path;

/// Named as no guest is: it is built in the same target folder, so that its dependencies need not be built again.
const SETTINGS: &str = r#"
[handlers.written]
module = "written.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["out"]
"#;

const MANIFEST: &str = r#"
[package]
name = "written"
version = "0.1.0"
edition = "2024"

[lib]
crate-type = ["cdylib"]

[dependencies]
serde_json = "1"
sluicebox-sdk = { path = "SDK" }

[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
strip = true

[workspace]
"#;

const SOURCE: &str = r#"
use sluicebox_sdk::{Context, Failure, Text};

#[sluicebox_sdk::handler]
fn written(_body: Text, cx: &mut Context) -> Result<(), Failure> {
    let fact = serde_json::json!({ "source": cx.message().offset, "version": VERSION });
    cx.publish("out").json(&fact)?;
    Ok(())
}
"#;

fn write(place: &Place, version: &str) {
    std::fs::write(place.path().join("src/lib.rs"), SOURCE.replace("VERSION", version)).unwrap();
}

async fn until_said(place: &Place, host: &Process, what: &str) {
    host.until(&format!("`{what}` is said: {}", place.heard()), async |_| place.heard().contains(what)).await;
}

#[tokio::test]
async fn a_changed_source_is_built_and_swapped_in_and_a_broken_one_is_said_and_changes_nothing() {
    let place = Place::new(SETTINGS, &[]);
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk").canonicalize().unwrap();
    std::fs::write(place.path().join("Cargo.toml"), MANIFEST.replace("SDK", sdk.to_str().unwrap())).unwrap();
    // The versions of the dependencies are those of the guests, so nothing is downloaded.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/Cargo.lock");
    std::fs::copy(lock, place.path().join("Cargo.lock")).unwrap();
    std::fs::create_dir(place.path().join("src")).unwrap();
    write(&place, "not_yet");
    guests::guest("ledger");
    let target = guests::target("tests/guests");
    let variables = [("CARGO_TARGET_DIR", target.as_path())];
    // Broken at first: it waits, and nothing has to be typed again.
    let mend = async {
        let mut pace = tokio::time::interval(std::time::Duration::from_millis(50));
        while !place.heard().contains("failed to build the handlers in `.`; waiting for a source to change") {
            pace.tick().await;
        }
        write(&place, "1");
    };
    let (host, ()) = tokio::join!(place.dev(&variables), mend);
    assert_eq!(handled(&place, &host, "ok").await.version, 1);

    write(&place, "2");
    super::until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 2);
    assert!(place.heard().contains("built ./written.wasm in"), "{}", place.heard());

    write(&place, "not_there");
    until_said(&place, &host, "failed to build the handlers in `.`; what was built before goes on").await;
    assert!(place.heard().contains("cannot find value `not_there` in this scope"), "{}", place.heard());
    assert_eq!(handled(&place, &host, "ok").await.version, 2);

    write(&place, "3");
    super::until_taken(&host, 2).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 3);
    assert!(host.stop().success());
}
