//! The SDK's sources, carried in the program so that a new workspace builds without this repository.

/// The manifest of this repository's workspace, from which the SDK inherits.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");

macro_rules! sdk {
    ($($path:literal)*) => {
        /// Paths in the SDK's folder, and contents.
        pub(super) const FILES: &[(&str, &str)] =
            &[$(($path, include_str!(concat!("../../../../guest-sdk/", $path)))),*];
    };
}

sdk! {
    "Cargo.toml"
    "macros/Cargo.toml"
    "macros/src/lib.rs"
    "src/context.rs"
    "src/diagnostics.rs"
    "src/errors.rs"
    "src/failure.rs"
    "src/host.rs"
    "src/host/native.rs"
    "src/host/wasm.rs"
    "src/lib.rs"
    "src/limits.rs"
    "src/message.rs"
    "src/publish.rs"
    "src/testing.rs"
    "wit/counters.wit"
    "wit/deps/config/store.wit"
    "wit/deps/keyvalue/atomics.wit"
    "wit/deps/keyvalue/store.wit"
    "wit/deps/logging/logging.wit"
    "wit/handler.wit"
    "wit/outbox.wit"
    "wit/types.wit"
}

/// The SDK's manifest as that of a workspace of its own: what it inherits here stands in it.
pub(super) fn manifest() -> String {
    let own = FILES.iter().find(|(path, _)| *path == "Cargo.toml").map_or("", |(_, content)| content);
    let macros = FILES.iter().find(|(path, _)| *path == "macros/Cargo.toml").map_or("", |(_, content)| content);
    let inherits = |line: &str| {
        let name = line.split([' ', '=']).next().unwrap_or_default();
        let inherited = format!("{name}.workspace = true");
        !name.is_empty() && (own.lines().any(|line| line == inherited) || macros.lines().any(|line| line == inherited))
    };
    let mut text = format!("{own}\n[workspace]\nresolver = \"3\"\nmembers = [\"macros\"]\n");
    let mut section = "";
    for line in WORKSPACE.lines() {
        if line.starts_with('[') {
            section = line;
            if is_inherited(section) {
                text += &format!("\n{section}\n");
            }
        } else if section == "[workspace.dependencies]" && inherits(line) {
            text += &format!("{}\n", line.replace("guest-sdk/macros", "macros"));
        } else if section != "[workspace.dependencies]" && is_inherited(section) && !line.trim().is_empty() {
            text += &format!("{line}\n");
        }
    }
    text
}

fn is_inherited(section: &str) -> bool {
    matches!(section, "[workspace.package]" | "[workspace.dependencies]") || section.starts_with("[workspace.lints")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn collect(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.path() {
                path if path.ends_with("target") => {}
                path if path.is_dir() => collect(&path, root, found),
                path => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }

    #[test]
    fn every_file_of_the_sdk_is_carried() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk");
        let mut found = vec![];
        collect(&root, &root, &mut found);
        found.sort();
        let carried: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        assert_eq!(carried, found, "name every file of guest-sdk in `sdk!`");
    }

    #[test]
    fn the_manifest_stands_alone() {
        let manifest = manifest();
        for expected in ["[workspace]", "\nversion = \"", "\nwit-bindgen = {", "path = \"macros\"", "\nunsafe_code = "]
        {
            assert!(manifest.contains(expected), "no {expected:?} in:\n{manifest}");
        }
        assert!(!manifest.contains("wasmtime") && !manifest.contains("guest-sdk"), "{manifest}");
    }
}
