//! `sluicebox build`: builds every handler crate of a directory for WebAssembly.
//!
//! A handler crate is a package with a `cdylib` target. The directory is a Cargo workspace or package, or holds some one
//! level below. Each module is put next to the directory's settings under the package's name, `word-count.wasm`, by a
//! rename, and only when its bytes changed: whoever watches it sees whole modules and no idle changes.

use super::failure::{Exit, Failure};
use super::output::{Output, note};
use crate::clock;
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What handlers are compiled for.
const TARGET: &str = "wasm32-wasip2";

/// Build every handler crate in a directory for WebAssembly and put the modules next to its settings.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The directory with sluicebox.toml and the crates
    #[arg(default_value = ".")]
    dir: PathBuf,
}

/// A module that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub package: String,
    /// Next to the settings.
    pub module: PathBuf,
    /// Its bytes are not those of before.
    pub changed: bool,
}

/// Why handlers could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("there is no Cargo.toml in `{dir}` or one level below: go to the directory of the handlers, or name it")]
    NoCrates { dir: PathBuf },
    #[error("no crate in `{dir}` is a handler: a handler has crate-type = [\"cdylib\"] under [lib] in its Cargo.toml")]
    NoHandlers { dir: PathBuf },
    #[error("failed to run `{program}`: install Rust from https://rustup.rs")]
    Start { program: &'static str, source: std::io::Error },
    #[error("failed to add the target {TARGET}: run `rustup target add {TARGET}` in `{dir}` and see why")]
    NoTarget { dir: PathBuf },
    #[error("failed to build the handlers in `{dir}`")]
    Failed { dir: PathBuf },
    #[error("cargo said what is not expected: {what}")]
    Unexpected { what: String },
    #[error("failed to write the module `{module}`")]
    Write { module: PathBuf, source: std::io::Error },
    #[error("two packages are called `{package}` and would both become `{module}`: rename one")]
    Clash { package: String, module: PathBuf },
}

pub(super) fn run(args: &BuildArgs, output: &mut Output) -> Result<Exit, Failure> {
    let begun = clock::instant();
    let built = build_handlers(&args.dir)?;
    for Built { package, module, changed } in &built {
        match output.json {
            true => output.json(&json!({ "package": package, "module": module, "changed": changed }))?,
            false => {
                let state = if *changed { "built" } else { "unchanged" };
                output.line(format!("{state:9} {}", module.display()))?;
            }
        }
    }
    let took = clock::instant().duration_since(begun);
    note(format!("{} modules in {:.1} s", built.len(), took.as_secs_f64()));
    Ok(Exit::Done)
}

/// Builds every handler crate in `dir`; modules in the order of their packages' names. Blocks for as long as cargo takes;
/// cargo's own words go to standard error.
pub fn build_handlers(dir: &Path) -> Result<Vec<Built>, BuildError> {
    let roots = cargo_roots(dir)?;
    let mut modules: BTreeMap<PathBuf, Built> = BTreeMap::new();
    for root in roots {
        let handlers = handler_packages(&root)?;
        if handlers.is_empty() {
            continue;
        }
        add_target(&root)?;
        for (package, artifact) in compile(&root, &handlers)? {
            let module = dir.join(format!("{package}.wasm"));
            if modules.contains_key(&module) {
                return Err(BuildError::Clash { package, module });
            }
            let changed = put(&artifact, &module)?;
            modules.insert(module.clone(), Built { package, module, changed });
        }
    }
    match modules.is_empty() {
        true => Err(BuildError::NoHandlers { dir: dir.into() }),
        false => Ok(modules.into_values().collect()),
    }
}

/// The directory itself, or those one level below that have a manifest.
pub(super) fn cargo_roots(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let has_manifest = |dir: &Path| dir.join("Cargo.toml").is_file();
    if has_manifest(dir) {
        return Ok(vec![dir.into()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|_| BuildError::NoCrates { dir: dir.into() })?;
    let mut roots: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| has_manifest(path)).collect();
    roots.sort();
    match roots.is_empty() {
        true => Err(BuildError::NoCrates { dir: dir.into() }),
        false => Ok(roots),
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
}

impl Target {
    fn is_handler(&self) -> bool {
        self.crate_types.iter().any(|kind| kind == "cdylib")
    }
}

/// Names of the packages that are handlers, by the name of the target that becomes the module.
fn handler_packages(root: &Path) -> Result<BTreeMap<String, String>, BuildError> {
    let output = command("cargo", root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| BuildError::Start { program: "cargo", source })?;
    if !output.status.success() {
        return Err(BuildError::Failed { dir: root.into() });
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| BuildError::Unexpected { what: error.to_string() })?;
    Ok(handlers_of(metadata))
}

fn handlers_of(metadata: Metadata) -> BTreeMap<String, String> {
    let of_package = |package: Package| {
        let Package { name, targets } = package;
        targets.into_iter().find(Target::is_handler).map(|target| (target.name, name))
    };
    metadata.packages.into_iter().filter_map(of_package).collect()
}

/// Adds the target unless the toolchain of this directory has it.
fn add_target(root: &Path) -> Result<(), BuildError> {
    let found = command("rustc", root)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .map_err(|source| BuildError::Start { program: "rustc", source })?;
    let library = String::from_utf8_lossy(&found.stdout);
    if found.status.success() && Path::new(library.trim()).is_dir() {
        return Ok(());
    }
    let added = command("rustup", root)
        .args(["target", "add", TARGET])
        .stdout(Stdio::null())
        .status()
        .map_err(|source| BuildError::Start { program: "rustup", source })?;
    if added.success() { Ok(()) } else { Err(BuildError::NoTarget { dir: root.into() }) }
}

#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// Compiles the handlers; package and compiled file of each.
fn compile(root: &Path, handlers: &BTreeMap<String, String>) -> Result<Vec<(String, PathBuf)>, BuildError> {
    let mut cargo = command("cargo", root);
    cargo.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    for package in handlers.values() {
        cargo.args(["--package", package]);
    }
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().map_err(|source| BuildError::Start { program: "cargo", source })?;
    let mut artifacts = vec![];
    for line in BufReader::new(child.stdout.take().expect("standard output is piped")).lines() {
        let line = line.map_err(|error| BuildError::Unexpected { what: error.to_string() })?;
        // Build scripts and macros may print anything; only what cargo itself says is JSON of this form.
        let Ok(message) = serde_json::from_str::<CargoMessage>(&line) else { continue };
        artifacts.extend(artifact(message, handlers));
    }
    let status = child.wait().map_err(|error| BuildError::Unexpected { what: error.to_string() })?;
    if status.success() { Ok(artifacts) } else { Err(BuildError::Failed { dir: root.into() }) }
}

fn artifact(message: CargoMessage, handlers: &BTreeMap<String, String>) -> Option<(String, PathBuf)> {
    let target = message.target.filter(|target| message.reason == "compiler-artifact" && target.is_handler())?;
    let package = handlers.get(&target.name)?;
    let file = message.filenames.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "wasm"))?;
    Some((package.clone(), file))
}

/// Puts a compiled module in its place; whether its bytes changed.
fn put(artifact: &Path, module: &Path) -> Result<bool, BuildError> {
    let fail = |source| BuildError::Write { module: module.into(), source };
    let bytes = std::fs::read(artifact).map_err(fail)?;
    if std::fs::read(module).is_ok_and(|before| before == bytes) {
        return Ok(false);
    }
    let whole = module.with_extension("wasm.new");
    std::fs::write(&whole, bytes).map_err(fail)?;
    std::fs::rename(&whole, module).map_err(fail)?;
    Ok(true)
}

/// A tool of the Rust toolchain that belongs to a directory.
pub(super) fn command(program: &'static str, root: &Path) -> Command {
    let mut command = Command::new(program);
    // A toolchain chosen for this process would win over the one that the directory chooses.
    command.current_dir(root).env_remove("RUSTUP_TOOLCHAIN").stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_with_a_cdylib_are_handlers_under_their_own_names() {
        let metadata = r#"{"packages":[
            {"name":"word-count","targets":[{"name":"word_count","crate_types":["cdylib","rlib"]}]},
            {"name":"helper","targets":[{"name":"helper","crate_types":["lib"]}]},
            {"name":"tool","targets":[{"name":"tool","crate_types":["bin"]}]}
        ]}"#;
        let handlers = handlers_of(serde_json::from_str(metadata).unwrap());
        assert_eq!(handlers, BTreeMap::from([("word_count".to_owned(), "word-count".to_owned())]));

        let line = r#"{"reason":"compiler-artifact","target":{"name":"word_count","crate_types":["cdylib"]},
            "filenames":["/t/libword_count.rlib","/t/word_count.wasm"]}"#;
        let found = artifact(serde_json::from_str(line).unwrap(), &handlers);
        assert_eq!(found, Some(("word-count".to_owned(), PathBuf::from("/t/word_count.wasm"))));
    }

    #[test]
    fn a_module_is_put_whole_and_only_when_it_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (artifact, module) = (directory.path().join("a"), directory.path().join("order.wasm"));
        std::fs::write(&artifact, "1").unwrap();
        assert!(put(&artifact, &module).unwrap());
        assert!(!put(&artifact, &module).unwrap());
        std::fs::write(&artifact, "2").unwrap();
        assert!(put(&artifact, &module).unwrap());
        assert_eq!(std::fs::read(&module).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_without_crates_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = build_handlers(directory.path()).unwrap_err().to_string();
        assert!(error.contains("no Cargo.toml") && error.contains("or name it"), "{error}");
        assert!(build_handlers(&directory.path().join("gone")).is_err());
    }
}
