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

/// The module of a handler in `handlers`.
pub fn handler(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("handlers")).join(format!("{name}.wasm"))
}

/// Builds a workspace of guests for Wasm, in a target folder of its own below the one of the tests.
fn build(workspace: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(workspace);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests").join(workspace.replace('/', "-"));
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(&root)
        .status()
        .expect("cargo can be run");
    assert!(built.success(), "the guests in {} do not build", root.display());
    target.join("wasm32-wasip2/release")
}
