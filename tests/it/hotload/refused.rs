//! Changes that cannot be: each is refused with what a person sees, and what ran goes on.

use super::{ONE, fact, handled, messages, place, reloads, until_refused, until_taken};
use crate::harness::guests;
use crate::harness::process::{Place, Process};

/// The header of an empty component.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

/// A change is refused with these words, what ran goes on, and what is good again is taken up.
async fn check(change: impl Fn(&Place), told: &[&str]) {
    let place = place(ONE);
    let host = place.start_heard();
    assert_eq!(handled(&place, &host, "ok").await.version, 1);
    change(&place);
    until_refused(&host, 1).await;
    for told in told {
        host.until(&format!("`{told}` is said"), async |_| place.heard().contains(told)).await;
    }
    let shown = problem(&host).await.unwrap();
    assert!(shown.lines().all(|line| place.heard().contains(line)), "{shown}");
    let fact = handled(&place, &host, "ok").await;
    assert_eq!((fact.version, fact.mode.as_deref()), (1, Some("a")), "what ran goes on");
    is_good_again(&place, &host).await;
}

/// Why what is in force is not what should be, as the API shows it.
async fn problem(host: &Process) -> Option<String> {
    let view: serde_json::Value = serde_json::from_str(&host.get("/v1/handlers/first").await).unwrap();
    view["running"]["problem"].as_str().map(str::to_owned)
}

async fn is_good_again(place: &Place, host: &Process) {
    let before = reloads(host, "ok").await;
    place.settings(&ONE.replace("mode = \"a\"", "mode = \"good\""));
    place.put("ledger.wasm", guests::ledger(9));
    host.until("the good change is in force", async |host| reloads(host, "ok").await > before).await;
    host.until("both changes are in force", async |host| {
        let fact = handled(place, host, "ok").await;
        (fact.version, fact.mode.as_deref()) == (9, Some("good"))
    })
    .await;
    assert_eq!(problem(host).await, None);
}

fn settings(from: &'static str, to: &'static str) -> impl Fn(&Place) {
    assert!(ONE.contains(from));
    move |place| place.settings(&ONE.replace(from, to))
}

fn module(bytes: Vec<u8>) -> impl Fn(&Place) {
    move |place| place.put("ledger.wasm", &bytes)
}

const MODULE: &str = "failed to load handler `first` from ";
const STAYS: &str = "the version in force goes on";

#[tokio::test]
async fn a_truncated_module_is_refused() {
    let whole = guests::ledger(2);
    check(module(whole[..whole.len() / 2].to_vec()), &[MODULE, "not a WebAssembly component", STAYS]).await;
}

#[tokio::test]
async fn a_file_that_is_no_module_is_refused() {
    check(module(b"\x7fELF and so on".to_vec()), &[MODULE, "not a WebAssembly component", STAYS]).await;
}

#[tokio::test]
async fn a_module_of_another_world_is_refused() {
    let told = [MODULE, "it exports no `sluicebox:handler/handler` of a version this host knows", STAYS];
    check(module(EMPTY.to_vec()), &told).await;
}

#[tokio::test]
async fn a_core_module_is_refused() {
    let told = [MODULE, "it is a core module, not a component: build it for the target wasm32-wasip2", STAYS];
    check(module(b"\0asm\x01\0\0\0".to_vec()), &told).await;
}

#[tokio::test]
async fn a_module_that_is_gone_is_refused() {
    let change = |place: &Place| std::fs::remove_file(place.path().join("ledger.wasm")).unwrap();
    let place = place(ONE);
    let host = place.start_heard();
    handled(&place, &host, "ok").await;
    change(&place);
    host.until("it is said of settings and handler", async |host| reloads(host, "refused").await == 2).await;
    for told in ["failed to find the module", "`sluicebox build` builds", MODULE, "the module cannot be read", STAYS] {
        assert!(place.heard().contains(told), "{told}: {}", place.heard());
    }
    assert_eq!(handled(&place, &host, "ok").await.version, 1);
    place.put("ledger.wasm", guests::ledger(2));
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 2);
}

#[tokio::test]
async fn a_module_whose_import_is_not_granted_is_refused() {
    let told = [
        "the changed settings are refused, those in force go on",
        "it imports `sluicebox:handler/outbox@0.1.0`, which is not there for this handler",
        "`publish = [\"…\"]` in [handlers.first]",
    ];
    check(settings("publish = [\"out\"]\n", ""), &told).await;
}

#[tokio::test]
async fn a_settings_file_cut_in_the_middle_is_refused() {
    let cut = |place: &Place| {
        let file = place.path().join("sluicebox.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let at = text.find("config").unwrap() + "config = { out".len();
        std::fs::write(&file, &text[..at]).unwrap();
    };
    check(
        cut,
        &["the changed settings are refused, those in force go on", "sluicebox.toml:14:", "errors in the settings"],
    )
    .await;
}

#[tokio::test]
async fn an_emptied_settings_file_is_refused() {
    check(
        |place| std::fs::write(place.path().join("sluicebox.toml"), "").unwrap(),
        &["the settings are empty", "was it cut off?", "those in force go on"],
    )
    .await;
}

#[tokio::test]
async fn a_settings_file_that_is_gone_is_refused() {
    let told = ["failed to read the settings: No such file or directory", "name the file with --config"];
    check(|place| std::fs::remove_file(place.path().join("sluicebox.toml")).unwrap(), &told).await;
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_refused_with_its_place() {
    let told = ["`timeout`: `soon` is not a duration", "sluicebox.toml:14:11", "timeout = \"soon\""];
    check(settings("config =", "timeout = \"soon\"\nconfig ="), &told).await;
}

#[tokio::test]
async fn changed_shards_are_refused() {
    let told = ["handler `first` was started with shards = 2, the settings now say 4", "give the handler a new name"];
    check(settings("shards = 2", "shards = 4"), &told).await;
}

#[tokio::test]
async fn a_changed_key_is_refused() {
    let told = ["handler `first` was started with key = the message's own key, the settings now say \"*\""];
    check(settings("shards = 2", "shards = 2\nkey = \"*\""), &told).await;
}

#[tokio::test]
async fn one_handler_that_cannot_be_refuses_the_whole_file() {
    const BAD: &str = "\n[handlers.bad]\nmodule = \"bad.wasm\"\nsubscribe = [\"in\"]\n";
    let change = |place: &Place| {
        place.put("bad.wasm", EMPTY);
        place.settings(&format!("{}{BAD}", ONE.replace("mode = \"a\"", "mode = \"b\"")));
    };
    check(change, &["failed to load handler `bad` from `", "bad.wasm`: it exports no"]).await;
}

#[tokio::test]
async fn a_module_that_comes_after_its_settings_is_taken_up_when_it_is_there() {
    const LATE: &str = r#"
[handlers.late]
module = "build/late.wasm"
subscribe = ["in"]
start = "earliest"
publish = ["late"]
config = { output = "late" }
"#;
    let place = place(ONE);
    let host = place.start_heard();
    handled(&place, &host, "ok").await;
    place.settings(&format!("{ONE}{LATE}"));
    until_refused(&host, 1).await;
    assert!(place.heard().contains("failed to find the module"), "{}", place.heard());
    std::fs::create_dir(place.path().join("build")).unwrap();
    std::fs::write(place.path().join("build/late.wasm"), guests::ledger(7)).unwrap();
    until_taken(&host, 1).await;
    host.until("it runs", async |_| messages(&place, "late").await.len() == 1).await;
    assert_eq!(fact(&messages(&place, "late").await[0]).version, 7);
}

#[tokio::test]
async fn a_module_is_taken_up_although_the_settings_are_broken() {
    let place = place(ONE);
    let host = place.start_heard();
    handled(&place, &host, "ok").await;
    place.put("sluicebox.toml", "[handlers");
    until_refused(&host, 1).await;
    place.put("ledger.wasm", guests::ledger(2));
    until_taken(&host, 1).await;
    assert_eq!(handled(&place, &host, "ok").await.version, 2);
    assert_eq!(reloads(&host, "refused").await, 1, "the broken settings are said once");
}
