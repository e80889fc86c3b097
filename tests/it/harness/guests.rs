//! Components built once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The module of a guest in `tests/guests`.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("tests/guests")).join(format!("{name}.wasm"))
}

/// The bytes of a guest in `tests/guests`.
pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(guest(name)).expect("the guest was just built")
}

/// A version of the guest `ledger`, which says its number in what it publishes: the same code, another module.
pub fn ledger(version: u64) -> Vec<u8> {
    const MARK: &[u8] = b"version=00000000";
    let mut module = bytes("ledger");
    let found: Vec<usize> = (0..module.len() - MARK.len()).filter(|at| module[*at..].starts_with(MARK)).collect();
    assert_eq!(found.len(), 1, "the guest holds its version once");
    module[found[0]..][..MARK.len()].copy_from_slice(format!("version={version:08}").as_bytes());
    module
}

/// The module of a handler in `handlers`.
pub fn handler(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("handlers")).join(format!("{name}.wasm"))
}

/// Builds a workspace of guests for Wasm, in a target folder of its own below the one of the tests.
fn build(workspace: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(workspace);
    let target = target(workspace);
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(&root)
        .status()
        .expect("cargo can be run");
    assert!(built.success(), "the guests in {} do not build", root.display());
    target.join("wasm32-wasip2/release")
}

/// Where the guests of a workspace are built; what else is built there the same way finds the dependencies built.
pub fn target(workspace: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests").join(workspace.replace('/', "-"))
}
