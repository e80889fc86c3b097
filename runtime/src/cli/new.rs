//! `sluicebox new`: a workspace with one handler, which builds and tests itself; inside one, a handler more.
//!
//! The SDK is not on crates.io. Its sources are carried in the program and written beside the handlers, so that a new
//! workspace needs nothing but Rust, and the SDK is that of the program that will run the handlers. `--sdk` names another
//! one, for who has this repository.
//!
//! Nothing is overwritten, and nothing half-made is left: the workspace is made under another name and then renamed.

mod handler;
mod sdk;

use super::failure::{Exit, Failure};
use super::output::Output;
use crate::config::Namespace;
use clap::Args;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};

/// Make a workspace with one handler, its tests and its settings; inside one, add a handler to it.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The name: of the folder, and of the namespace in its settings or of the handler
    name: String,
    /// Make a workspace in this folder instead of one called NAME, also inside another one
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Use the SDK in this folder instead of writing its sources to `sdk`
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

/// Why there is no new workspace.
#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error("`{name}` is not a name for a workspace or a handler: use a-z, then up to 62 of a-z 0-9 _ -{}", near(name))]
    Name { name: String },
    #[error(
        "`{path}` is there already and is not empty: nothing was changed; choose another name, or another folder with --path"
    )]
    Exists { path: PathBuf },
    #[error(
        "there is no sluicebox-sdk in `{path}`: --sdk names the folder with its Cargo.toml, such as `guest-sdk` of the repository"
    )]
    NoSdk { path: PathBuf },
    #[error("the path of the SDK `{path}` is not UTF-8, which a Cargo.toml needs: choose another folder")]
    SdkPath { path: PathBuf },
    #[error("failed to make `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to add the handler to `{path}`: {reason}")]
    Add { path: PathBuf, reason: String },
}

/// A name that is probably meant, as the end of a sentence.
fn near(name: &str) -> String {
    let plain: String =
        name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let plain = plain.trim_matches(|c: char| c == '-' || c.is_ascii_digit());
    match Namespace::parse(plain) {
        Some(near) => format!(", such as `{near}`"),
        None => String::new(),
    }
}

pub(super) fn run(args: &NewArgs, output: &mut Output) -> Result<Exit, Failure> {
    let failed = |error| match error {
        NewError::Name { .. } => Failure::new(Exit::Usage, error),
        error => Failure::from(error),
    };
    let here = std::env::current_dir()?;
    if let (None, Some(root)) = (&args.path, handler::enclosing(&here)) {
        if args.sdk.is_some() {
            return Err(Failure::usage(format!(
                "the workspace in `{}` says itself which SDK its handlers use: leave --sdk out, or make a workspace of its \
                 own with --path",
                root.display()
            )));
        }
        let files = handler::add(&args.name, &root).map_err(failed)?;
        return added(&args.name, &root, &files, output);
    }
    let folder = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = make(&args.name, &folder, args.sdk.as_deref()).map_err(failed)?;
    let shown = folder.display();
    let next = [format!("cd {shown}"), "cargo test".into(), "sluicebox dev".into()];
    if output.json {
        output.json(&json!({ "path": folder, "files": files, "next": next }))?;
        return Ok(Exit::Done);
    }
    output.line(format!("made {shown}: a workspace with the handler `visits`"))?;
    output.line("\nnext:")?;
    for (command, effect) in next.iter().zip(["", "# the handler, natively", "# build it, run it, and what to try"]) {
        output.line(format!("  {command:28}{effect}").trim_end())?;
    }
    output.line("\nor step by step: sluicebox build, sluicebox check, sluicebox run")?;
    Ok(Exit::Done)
}

/// Says what was added to a workspace, and what is next.
fn added(name: &str, root: &Path, files: &[PathBuf], output: &mut Output) -> Result<Exit, Failure> {
    let next = [format!("cargo test --package {name}"), format!("sluicebox dev {}", root.display())];
    if output.json {
        output.json(&json!({ "path": root.join(name), "workspace": root, "files": files, "next": next }))?;
        return Ok(Exit::Done);
    }
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    output.line(format!("added the handler `{name}` to the workspace in {}: {}", root.display(), files.join(", ")))?;
    output.line(format!("\nnext:\n  {}\n  {}\n", next[0], next[1]))?;
    output.line(format!("it listens to {name}.event: say in sluicebox.toml what else it should"))?;
    Ok(Exit::Done)
}

/// Makes a workspace; the files in it.
pub fn make(name: &str, folder: &Path, sdk: Option<&Path>) -> Result<Vec<PathBuf>, NewError> {
    let Some(namespace) = Namespace::parse(name) else { return Err(NewError::Name { name: name.into() }) };
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NewError::Write { path, source }
    };
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(false) => return Err(NewError::Exists { path: folder.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(NewError::Exists { path: folder.into() });
        }
        Err(error) => return Err(failed(folder)(error)),
    }
    let files = content(namespace.as_str(), sdk)?;
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(failed(parent))?;
    let making = parent.join(format!(".{namespace}.new-{}", std::process::id()));
    let made = write_all(&making, folder, &files).and_then(|()| {
        // Onto an empty folder, or onto nothing; a folder that was filled meanwhile refuses.
        std::fs::rename(&making, folder).map_err(failed(folder))
    });
    if let Err(error) = made {
        // What was half made is in nobody's way but ours; that it cannot be removed would hide the reason.
        let _ = std::fs::remove_dir_all(&making);
        return Err(error);
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// Writes files below `root`, which will be called `shown`: its own name would say nothing to anyone.
fn write_all(root: &Path, shown: &Path, files: &[(PathBuf, String)]) -> Result<(), NewError> {
    for (file, content) in files {
        let path = root.join(file);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(root))?;
            std::fs::write(&path, content)
        };
        write().map_err(|source| NewError::Write { path: shown.join(file), source })?;
    }
    Ok(())
}

/// The files of a workspace with their contents.
fn content(name: &str, own_sdk: Option<&Path>) -> Result<Vec<(PathBuf, String)>, NewError> {
    let own_sdk = own_sdk.map(sdk_path).transpose()?;
    let (path, exclude, told) = match &own_sdk {
        Some(path) => (path.as_str(), "", format!("The SDK is the one in `{path}`.")),
        None => (
            "sdk",
            "# The SDK is a workspace of its own.\nexclude = [\"sdk\"]\n",
            "`sdk` is the SDK, written by `sluicebox new`; take a newer one from a new workspace.".into(),
        ),
    };
    // A path may hold what ends a text in TOML.
    let path = path.replace('\\', "\\\\").replace('"', "\\\"");
    let manifest =
        include_str!("new/template/workspace.toml").replace("{{exclude}}", exclude).replace("{{sdk}}", &path);
    let settings = include_str!("new/template/sluicebox.toml").replace("{{name}}", name);
    let readme = include_str!("new/template/README.md").replace("{{name}}", name).replace("{{sdk}}", &told);
    let mut files: Vec<(PathBuf, String)> = vec![
        (".gitignore".into(), include_str!("new/template/gitignore").into()),
        ("Cargo.toml".into(), manifest),
        ("README.md".into(), readme),
        ("rust-toolchain.toml".into(), include_str!("../../../rust-toolchain.toml").into()),
        ("sluicebox.toml".into(), settings),
        ("visits/Cargo.toml".into(), include_str!("new/template/handler.toml").into()),
        ("visits/src/lib.rs".into(), include_str!("new/template/visits.rs").into()),
    ];
    if own_sdk.is_none() {
        files.extend(sdk::FILES.iter().map(|(path, content)| {
            let content = if *path == "Cargo.toml" { sdk::manifest() } else { (*content).into() };
            (Path::new("sdk").join(path), content)
        }));
    }
    Ok(files)
}

/// The whole path of an SDK, as a Cargo.toml elsewhere can name it.
fn sdk_path(path: &Path) -> Result<String, NewError> {
    let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap_or_default();
    if !manifest.lines().any(|line| line.trim() == "name = \"sluicebox-sdk\"") {
        return Err(NewError::NoSdk { path: path.into() });
    }
    let whole = std::fs::canonicalize(path).map_err(|source| NewError::Write { path: path.into(), source })?;
    whole.into_os_string().into_string().map_err(|whole| NewError::SdkPath { path: whole.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_workspace_is_whole_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("deep/shop");
        let files = make("shop", &folder, None).unwrap();
        assert!(files.iter().all(|file| folder.join(file).is_file()));
        assert!(std::fs::read_to_string(folder.join("sluicebox.toml")).unwrap().contains("namespace = \"shop\""));
        let error = make("shop", &folder, None).unwrap_err().to_string();
        assert!(
            error.ends_with("is not empty: nothing was changed; choose another name, or another folder with --path")
        );
        let file = directory.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(matches!(make("shop", &file, None), Err(NewError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        let empty = directory.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        make("shop", &empty, None).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "{left:?}");
    }

    #[test]
    fn what_cannot_be_written_is_named_as_it_would_be_called() {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("taken");
        std::fs::write(&taken, "").unwrap();
        let error = write_all(&taken, Path::new("shop"), &[("Cargo.toml".into(), String::new())]).unwrap_err();
        assert_eq!(error.to_string(), "failed to make `shop/Cargo.toml`");
    }

    #[test]
    fn no_placeholder_is_left() {
        for sdk in [None, Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk")))] {
            for (path, content) in content("shop", sdk).unwrap() {
                assert!(path.starts_with("sdk") || !content.contains("{{"), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_bad_name_gets_a_better_one() {
        for (name, near) in [("My Shop", "`my-shop`"), ("../shop", "`shop`"), ("1shop", "`shop`"), ("Shop", "`shop`")] {
            let error = make(name, Path::new("/gone/never"), None).unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}` is not a name")) && error.ends_with(near), "{error}");
        }
        let error = make("", Path::new("/gone/never"), None).unwrap_err().to_string();
        assert!(error.ends_with("0-9 _ -"), "{error}");
    }

    #[test]
    fn a_folder_without_the_sdk_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = make("shop", &directory.path().join("shop"), Some(directory.path())).unwrap_err().to_string();
        assert!(error.contains("there is no sluicebox-sdk in"), "{error}");
    }
}
