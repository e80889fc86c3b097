//! The components of `tests/guests`, built once for each process that asks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The bytes of a guest by the name of its crate.
pub fn bytes(name: &str) -> Vec<u8> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(build).join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{} was not built: {error}", path.display()))
}

/// Builds them below the host's own target directory; cargo's lock keeps processes apart. Returns where they are.
fn build() -> PathBuf {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../guests");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
        .current_dir(&guests)
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .expect("cargo can be run");
    assert!(built.success(), "the guests in {} do not build", guests.display());
    target.join("wasm32-wasip2/release")
}
