//! One handler more in a workspace that is there: its crate, its name among the members, its section in the settings.
//!
//! Both files are only added to. What they would be is read again before anything is written, so that what cannot be added
//! to leaves everything as it was and says what to write by hand.

use super::{NewError, write_all};
use crate::config;
use crate::handler::HandlerName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Spanned, Table, Value};

const MANIFEST: &str = "Cargo.toml";
/// What the crate of a handler takes from its workspace.
const DEPENDENCIES: [&str; 3] = ["serde", "serde_json", "sluicebox-sdk"];

#[derive(Deserialize)]
struct Manifest {
    workspace: Option<Workspace>,
}

#[derive(Deserialize)]
struct Workspace {
    members: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
}

/// The workspace of handlers that a folder is in: the nearest with settings, if it is a workspace of Cargo too.
pub(super) fn enclosing(folder: &Path) -> Option<PathBuf> {
    let root = folder.ancestors().find(|folder| folder.join(config::FILE_NAME).is_file())?;
    let manifest = std::fs::read_to_string(root.join(MANIFEST)).ok()?;
    // One that is broken may be one: the reason is said when it is read again.
    let is_workspace = toml::from_str(&manifest).map_or(true, |manifest: Manifest| manifest.workspace.is_some());
    is_workspace.then(|| root.into())
}

/// Adds a handler to the workspace in `root`; the files that were made and changed, relative to it.
pub(super) fn add(name: &str, root: &Path) -> Result<Vec<PathBuf>, NewError> {
    let Ok(handler) = HandlerName::parse_public(name) else { return Err(NewError::Name { name: name.into() }) };
    let name = handler.as_str();
    let folder = root.join(name);
    if std::fs::symlink_metadata(&folder).is_ok() {
        return Err(NewError::Exists { path: folder });
    }
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|source| NewError::Read { path: path.into(), source });
    let (manifest, settings) = (root.join(MANIFEST), root.join(config::FILE_NAME));
    let old_manifest = read(&manifest)?;
    let new_manifest =
        with_member(&old_manifest, name).map_err(|reason| NewError::Add { path: manifest.clone(), reason })?;
    let new_settings =
        with_section(&read(&settings)?, name).map_err(|reason| NewError::Add { path: settings.clone(), reason })?;

    let fill = |template: &str| template.replace("{{name}}", name);
    let files: [(PathBuf, String); 2] = [
        (MANIFEST.into(), include_str!("template/handler.toml").replace("\"visits\"", &format!("\"{name}\""))),
        ("src/lib.rs".into(), fill(include_str!("template/handler.rs"))),
    ];
    // Whoever watches the folder never sees half a crate.
    let making = root.join(format!(".{name}.new-{}", std::process::id()));
    let made = write_all(&making, &folder, &files).and_then(|()| {
        std::fs::rename(&making, &folder).map_err(|source| NewError::Write { path: folder.clone(), source })
    });
    let added = made.and_then(|()| replace(&manifest, &new_manifest)).and_then(|()| replace(&settings, &new_settings));
    if let Err(error) = added {
        // A moment ago none of it was there. That it cannot be put back would hide the reason.
        let _ = std::fs::remove_dir_all(&making);
        let _ = std::fs::remove_dir_all(&folder);
        let _ = replace(&manifest, &old_manifest);
        return Err(error);
    }
    let made = files.into_iter().map(|(path, _)| Path::new(name).join(path));
    Ok(made.chain([MANIFEST.into(), config::FILE_NAME.into()]).collect())
}

/// Writes a file whole: a host may be watching it.
fn replace(path: &Path, content: &str) -> Result<(), NewError> {
    let failed = |source| NewError::Write { path: path.into(), source };
    let new = path.with_added_extension("new");
    std::fs::write(&new, content).map_err(failed)?;
    let permissions = std::fs::metadata(path).map_err(failed)?.permissions();
    std::fs::set_permissions(&new, permissions).and_then(|()| std::fs::rename(&new, path)).map_err(failed)
}

/// A Cargo.toml with one member more.
fn with_member(text: &str, name: &str) -> Result<String, String> {
    let manifest: Manifest = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let workspace = manifest.workspace.ok_or("it is no workspace")?;
    if let Some(missing) = DEPENDENCIES.iter().find(|name| !workspace.dependencies.contains_key(**name)) {
        return Err(format!(
            "[workspace.dependencies] has no `{missing}`, which a new handler takes from there: add it"
        ));
    }
    if workspace.dependencies.contains_key(name) {
        return Err(format!("a dependency is called `{name}`: choose another name"));
    }
    let members = workspace.members.ok_or_else(|| format!("[workspace] has no members: add members = [\"{name}\"]"))?;
    let named =
        |member: &Spanned<String>| matches!(member.get_ref().trim_start_matches("./"), "*") || member.get_ref() == name;
    if members.get_ref().iter().any(named) {
        return Ok(text.into());
    }
    let (at, added) = match members.get_ref().last() {
        None => (members.span().start + 1, format!("\"{name}\"")),
        Some(last) => {
            let line = text[..last.span().start].rsplit('\n').next().unwrap_or_default();
            // Members that have a line each go on having one.
            let apart = if line.trim().is_empty() { format!(",\n{line}") } else { ", ".into() };
            (last.span().end, format!("{apart}\"{name}\""))
        }
    };
    Ok(format!("{}{added}{}", &text[..at], &text[at..]))
}

/// Settings with one handler more.
fn with_section(text: &str, name: &str) -> Result<String, String> {
    let settings: Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    if settings.get("handlers").and_then(|handlers| handlers.get(name)).is_some() {
        return Err(format!("there is a handler `{name}` already"));
    }
    let section = include_str!("template/handler.settings.toml").replace("{{name}}", name);
    let added = format!("{}\n\n{section}", text.trim_end());
    match added.parse::<Table>() {
        Ok(_) => Ok(added),
        // Handlers as one value, which a section cannot add to.
        Err(error) => Err(format!("{}; write this there:\n{section}", error.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::new::make;

    #[test]
    fn a_handler_more_has_a_crate_a_member_and_a_section_and_nothing_else_changed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("shop");
        make("shop", &root, None).unwrap();
        let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
        let (manifest, settings) = (read(MANIFEST), read(config::FILE_NAME));
        assert_eq!(enclosing(&root.join("visits/src")), Some(root.clone()));
        let files = add("word-count", &root).unwrap();
        assert!(files.iter().all(|file| root.join(file).is_file()), "{files:?}");
        assert_eq!(read(MANIFEST), manifest.replace("[\"visits\"]", "[\"visits\", \"word-count\"]"));
        assert!(read(config::FILE_NAME).starts_with(&settings));
        std::fs::write(root.join("visits.wasm"), "").unwrap();
        std::fs::write(root.join("word-count.wasm"), "").unwrap();
        let loaded = config::load(&root.join(config::FILE_NAME), &config::Overrides::default()).unwrap();
        assert_eq!((loaded.settings.handlers.len(), loaded.warnings.len()), (2, 0));
        for file in &files {
            assert!(!read(file.to_str().unwrap()).contains("{{"), "{file:?}");
        }

        let again = add("word-count", &root).unwrap_err().to_string();
        assert!(again.contains("word-count` is there already"), "{again}");
        std::fs::remove_dir_all(root.join("word-count")).unwrap();
        let again = add("word-count", &root).unwrap_err().to_string();
        assert!(again.contains("there is a handler `word-count` already"), "{again}");
        assert!(!root.join("word-count").exists());
        let clash = add("serde", &root).unwrap_err().to_string();
        assert!(clash.contains("choose another name") && !root.join("serde").exists(), "{clash}");
    }

    #[test]
    fn members_are_added_as_they_are_written() {
        let rest = "[workspace.dependencies]\nserde = \"1\"\nserde_json = \"1\"\nsluicebox-sdk = { path = \"sdk\" }\n";
        #[track_caller]
        fn check(rest: &str, members: &str, expected: &str) {
            let text = |members: &str| format!("# é\n[workspace]\nmembers = {members}\n{rest}");
            assert_eq!(with_member(&text(members), "b"), Ok(text(expected)));
        }
        check(rest, "[]", "[\"b\"]");
        check(rest, "[\"a\"]", "[\"a\", \"b\"]");
        check(rest, "['a',]", "['a', \"b\",]");
        check(rest, "[\n  \"a\", # first\n]", "[\n  \"a\",\n  \"b\", # first\n]");
        check(rest, "[\"*\"]", "[\"*\"]");
        check(rest, "[\"b\"]", "[\"b\"]");
        let none = with_member("[workspace]\nmembers = []\n", "b").unwrap_err();
        assert!(none.contains("has no `serde`"), "{none}");
    }

    #[test]
    fn only_a_workspace_with_settings_is_added_to() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert_eq!(enclosing(root), None);
        std::fs::write(root.join(config::FILE_NAME), "namespace = \"a\"\n").unwrap();
        assert_eq!(enclosing(root), None);
        std::fs::write(root.join(MANIFEST), "[package]\nname = \"a\"\n").unwrap();
        assert_eq!(enclosing(root), None);
        std::fs::write(root.join(MANIFEST), "[workspace\n").unwrap();
        assert_eq!(enclosing(root), Some(root.into()));
        assert!(add("b", root).unwrap_err().to_string().contains("failed to add the handler to"));
    }

    #[test]
    fn handlers_as_one_value_are_left_alone_with_what_to_write() {
        let error = with_section("handlers = { a = { module = \"a.wasm\" } }\n", "b").unwrap_err();
        assert!(error.contains("write this there:\n[handlers.b]"), "{error}");
    }
}
