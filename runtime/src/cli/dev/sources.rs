//! What the handlers of a folder are built from, on this machine: their packages and the local ones that these use.

use crate::cli::build::{BuildError, cargo_roots, command};
use crate::watch::Scope;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Beside a package's manifest, and beside that of its workspace.
const FILES: &[&str] = &["Cargo.toml", "build.rs", ".cargo/config.toml", "rust-toolchain.toml", "rust-toolchain"];
const TREES: &[&str] = &["src", "wit"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    /// Where it was downloaded from; absent: it is here.
    source: Option<String>,
}

/// The sources of every handler in `dir`. Blocks for as long as cargo takes.
pub(super) fn sources(dir: &Path) -> Result<Scope, BuildError> {
    let mut scope = Scope::default();
    for root in cargo_roots(dir)? {
        scope.files.extend(FILES.iter().map(|file| root.join(file)));
        // Local dependencies are known only where everything is resolved, which needs no network after a build.
        let packages = match packages(&root, &["--offline"]) {
            Ok(packages) => packages,
            Err(_) => packages(&root, &["--no-deps"])?,
        };
        for package in packages.into_iter().filter(|package| package.source.is_none()) {
            let Some(folder) = package.manifest_path.parent() else { continue };
            scope.files.extend(FILES.iter().map(|file| folder.join(file)));
            scope.trees.extend(TREES.iter().map(|tree| folder.join(tree)));
        }
    }
    Ok(scope)
}

/// What can be followed although cargo cannot read a manifest: what stands in the folder and one level below.
pub(super) fn files_at_hand(dir: &Path) -> Result<Scope, BuildError> {
    let mut scope = Scope::default();
    for root in cargo_roots(dir)? {
        let below = std::fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
        for folder in below.filter(|path| path.join("Cargo.toml").is_file()).chain([root.clone()]) {
            scope.files.extend(FILES.iter().map(|file| folder.join(file)));
            scope.trees.extend(TREES.iter().map(|tree| folder.join(tree)));
        }
    }
    Ok(scope)
}

fn packages(root: &Path, arguments: &[&str]) -> Result<Vec<Package>, BuildError> {
    let output = command("cargo", root)
        .args(["metadata", "--format-version", "1"])
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .map_err(|source| BuildError::Start { program: "cargo", source })?;
    if !output.status.success() {
        return Err(BuildError::Failed { dir: root.into() });
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| BuildError::Unexpected { what: error.to_string() })?;
    Ok(metadata.packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_those_of_the_packages_and_their_local_dependencies_and_no_data() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (package, dependencies) in
            [("order", "[dependencies]\nshared = { path = \"../../shared\" }\n"), ("notify", "")]
        {
            let manifest = format!("[package]\nname = \"{package}\"\nedition = \"2024\"\n{dependencies}");
            std::fs::create_dir_all(at("handlers").join(package).join("src")).unwrap();
            std::fs::write(at("handlers").join(package).join("Cargo.toml"), manifest).unwrap();
            std::fs::write(at("handlers").join(package).join("src/lib.rs"), "").unwrap();
        }
        std::fs::create_dir_all(at("shared/src")).unwrap();
        std::fs::write(at("shared/Cargo.toml"), "[package]\nname = \"shared\"\nedition = \"2024\"\n").unwrap();
        std::fs::write(at("shared/src/lib.rs"), "").unwrap();
        let members = "[workspace]\nresolver = \"3\"\nmembers = [\"order\", \"notify\"]\n";
        std::fs::write(at("handlers/Cargo.toml"), members).unwrap();

        let Scope { files, trees } = sources(&at("handlers")).unwrap();
        for package in ["handlers/order", "handlers/notify", "shared"] {
            assert!(trees.contains(&at(package).join("src")), "{package}: {trees:?}");
            assert!(files.contains(&at(package).join("Cargo.toml")), "{package}: {files:?}");
        }
        assert!(files.contains(&at("handlers/Cargo.toml")));
        assert!(trees.iter().all(|tree| tree.ends_with("src") || tree.ends_with("wit")), "{trees:?}");
    }
}
