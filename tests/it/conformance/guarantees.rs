//! What a log says of itself in `Guarantees`, held against what it does. A kind that promises less than it keeps fails
//! too: whoever reads the promise at start would arrange for a loss that does not happen.

use crate::harness::logs::{KINDS, Open, message};
use crate::harness::{again, disk, everything};
use crate::tidy::sources;
use sluicebox::log::{Guarantees, Log};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

fn guarantees(open: Open) -> Guarantees {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).unwrap().guarantees()
}

/// Runs `check` for each kind, with a directory that is called after it and what it says of itself.
fn for_each_kind(mut check: impl FnMut(Open, &Path, Guarantees)) {
    for open in KINDS {
        let guarantees = guarantees(open);
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join(guarantees.kind);
        std::fs::create_dir(&directory).unwrap();
        check(open, &directory, guarantees);
    }
}

/// In a child: the log of the kind that its directory is called after.
fn log_of_child(directory: &Path) -> Arc<dyn Log> {
    let open = KINDS.into_iter().find(|open| directory.ends_with(guarantees(*open).kind)).unwrap();
    open(directory).unwrap()
}

#[test]
fn each_kind_has_a_name_of_its_own_and_says_in_one_sentence_what_is_in_force() {
    let mut kinds = BTreeSet::new();
    for_each_kind(|_, _, Guarantees { kind, summary, .. }| {
        assert!(kinds.insert(kind), "two are called {kind}");
        assert!(summary.len() > 20 && !summary.contains('\n') && !summary.ends_with('.'), "{summary}");
    });
}

#[test]
fn what_was_acknowledged_outlives_the_process_where_the_log_says_so() {
    let name = "conformance::guarantees::what_was_acknowledged_outlives_the_process_where_the_log_says_so";
    if let Some(directory) = again::directory_of_child() {
        return Runtime::new().unwrap().block_on(async {
            let log = log_of_child(&directory);
            again::say(log.append(vec![message("a", "x")]).await.unwrap()[0]);
            std::future::pending().await
        });
    }
    for_each_kind(|open, directory, guarantees| {
        let mut child = again::child(name, directory).spawn().unwrap();
        let acknowledged = again::listen(&mut child).next().expect("the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let found = Runtime::new().unwrap().block_on(async { everything(&*open(directory).unwrap()).await });
        let found: Vec<String> = found.iter().map(|message| message.offset.to_string()).collect();
        assert_eq!(found == [acknowledged], guarantees.survives_process_death, "{guarantees:?}");
    });
}

/// Power cannot be cut here; but what was acknowledged although no sync succeeded would be lost with it.
#[test]
fn nothing_is_acknowledged_that_was_not_synced_where_the_log_outlives_the_loss_of_power() {
    let name =
        "conformance::guarantees::nothing_is_acknowledged_that_was_not_synced_where_the_log_outlives_the_loss_of_power";
    if let Some(directory) = again::directory_of_child() {
        return Runtime::new().unwrap().block_on(async {
            let log = log_of_child(&directory);
            log.append(vec![message("a", "x")]).await.unwrap();
            disk::fail_sync(true);
            again::say(log.append(vec![message("a", "x")]).await.is_ok());
        });
    }
    for_each_kind(|_, directory, guarantees| {
        let mut child = again::child(name, directory).spawn().unwrap();
        let is_acknowledged: Vec<String> = again::listen(&mut child).collect();
        assert!(child.wait().unwrap().success());
        let is_careless = is_acknowledged == ["true"];
        assert!(!(is_careless && guarantees.survives_power_loss), "{guarantees:?}");
        // Who outlives it nowhere does not sync; who only does not here, syncs all the same.
        assert!(is_careless || guarantees.survives_process_death, "{guarantees:?}");
    });
}

#[test]
fn a_second_host_works_on_the_same_log_where_the_log_says_so() {
    for_each_kind(|open, directory, guarantees| {
        Runtime::new().unwrap().block_on(async {
            let first = open(directory).unwrap();
            first.append(vec![message("a", "x")]).await.unwrap();
            let is_shared = match open(directory) {
                Ok(second) => everything(&*second).await == everything(&*first).await,
                Err(_) => false,
            };
            assert_eq!(is_shared, guarantees.several_hosts, "{guarantees:?}");
        });
    });
}

#[test]
fn every_guarantee_is_a_parameter_of_the_suite() {
    let contract = sources(&["runtime/log/src"]).into_iter().find(|source| source.path.ends_with("/contract.rs"));
    let contract = contract.expect("the file of the contract").text;
    let (_, fields) = contract.split_once("pub struct Guarantees {").expect("the struct");
    let (fields, _) = fields.split_once("\n}").expect("its end");
    let field = |line: &str| Some(line.trim().strip_prefix("pub ")?.split_once(':')?.0.to_owned());
    let fields: Vec<String> = fields.lines().filter_map(field).collect();
    assert!(fields.len() >= 8, "{fields:?}");
    let suite: String = sources(&["tests/it/conformance"]).into_iter().map(|source| source.text).collect();
    for field in fields {
        // The name and the sentence are taken out of the struct, the others asked for.
        let asked =
            [format!("guarantees.{field}"), format!("guarantees().{field}"), format!("Guarantees {{ {field}, ")];
        let is_taken = suite.contains(&format!(", {field}, .. }}"));
        assert!(
            is_taken || asked.iter().any(|asked| suite.contains(asked)),
            "no claim of the suite depends on `{field}`"
        );
    }
    let by_name = suite.lines().find(|line| line.contains(".kind ==") || line.contains(".kind !="));
    assert!(by_name.is_none_or(|line| line.contains("by_name")), "asks for a kind by its name: {by_name:?}");
}
