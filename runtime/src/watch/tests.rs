//! What a watch tells, and what it does not.

use super::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PATIENCE: Duration = Duration::from_secs(20);

fn scope(files: &[&Path]) -> Scope {
    Scope { files: files.iter().map(PathBuf::from).collect(), trees: BTreeSet::new() }
}

async fn following(file: &Path) -> Watch {
    let mut watch = Watch::default();
    assert!(watch.follow(scope(&[file])).await);
    watch
}

#[track_caller]
fn told(watch: &mut Watch) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let told = tokio::time::timeout(PATIENCE, watch.changed()).await;
        assert!(told.is_ok(), "a change was not told: {caller}");
    }
}

/// A change of `other` is told although it comes last: so what came before was not.
async fn told_only_of(watch: &mut Watch, other: &Path) {
    let mut changed = std::pin::pin!(watch.changed());
    let waited = tokio::time::timeout(QUIET * 3, changed.as_mut()).await;
    assert!(waited.is_err(), "nothing that matters changed");
    fs::write(other, "now").unwrap();
    assert!(tokio::time::timeout(PATIENCE, changed).await.is_ok());
}

#[tokio::test]
async fn a_file_written_replaced_deleted_and_made_again_is_told_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("order.wasm");
    fs::write(&file, "1").unwrap();
    let mut watch = following(&file).await;
    fs::write(&file, "22").unwrap();
    told(&mut watch).await;
    let beside = folder.path().join("order.wasm.new");
    fs::write(&beside, "333").unwrap();
    fs::rename(&beside, &file).unwrap();
    told(&mut watch).await;
    fs::remove_file(&file).unwrap();
    told(&mut watch).await;
    fs::write(&file, "4").unwrap();
    told(&mut watch).await;
}

#[tokio::test]
async fn a_replaced_link_on_the_way_is_told_as_in_a_config_map() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, text) in [("..1", "one"), ("..2", "two")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("sluicebox.toml"), text).unwrap();
    }
    std::os::unix::fs::symlink("..1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/sluicebox.toml", at("sluicebox.toml")).unwrap();
    let mut watch = following(&at("sluicebox.toml")).await;
    std::os::unix::fs::symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    told(&mut watch).await;
    assert_eq!(fs::read_to_string(at("sluicebox.toml")).unwrap(), "two");
    // The file behind the link is followed too.
    fs::write(at("..2").join("sluicebox.toml"), "two and a half").unwrap();
    told(&mut watch).await;
}

#[tokio::test]
async fn reading_and_other_files_are_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wasm");
    fs::write(&file, "1").unwrap();
    let mut watch = following(&file).await;
    fs::read(&file).unwrap();
    fs::write(folder.path().join("b.wasm"), "1").unwrap();
    told_only_of(&mut watch, &file).await;
}

#[tokio::test]
async fn a_file_whose_directory_comes_later_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target/release/a.wasm");
    let mut watch = following(&file).await;
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "1").unwrap();
    told(&mut watch).await;
    fs::write(&file, "22").unwrap();
    told(&mut watch).await;
}

#[tokio::test]
async fn a_change_between_reading_and_following_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    fs::write(&a, "1").unwrap();
    let mut watch = following(&a).await;
    fs::write(&a, "22").unwrap();
    // Following another file as well must not take the change of the first one for told.
    assert!(watch.follow(scope(&[&a, &b])).await);
    told(&mut watch).await;
    assert!(!watch.follow(scope(&[&a])).await, "nothing is new");
}

#[tokio::test]
async fn a_cancelled_wait_forgets_no_change() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let mut watch = following(&file).await;
    fs::write(&file, "1").unwrap();
    for _ in 0..20 {
        // Long enough to look, too short to see whether the change stays.
        if tokio::time::timeout(Duration::from_millis(5), watch.changed()).await.is_ok() {
            return;
        }
    }
    told(&mut watch).await;
}

#[tokio::test]
async fn new_files_below_a_tree_are_told_and_built_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("src");
    fs::create_dir(&source).unwrap();
    fs::create_dir(folder.path().join("target")).unwrap();
    let mut watch = Watch::default();
    let trees = BTreeSet::from([folder.path().to_owned()]);
    watch.follow(Scope { files: BTreeSet::new(), trees }).await;
    fs::write(folder.path().join("target/built"), "1").unwrap();
    told_only_of(&mut watch, &source.join("lib.rs")).await;
    fs::create_dir(source.join("deep")).unwrap();
    fs::write(source.join("deep/more.rs"), "1").unwrap();
    told(&mut watch).await;
    fs::write(source.join("deep/more.rs"), "22").unwrap();
    told(&mut watch).await;
}
