//! The files that settings name, also settings with errors: one of them may be what has to change.

use super::{global, source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Every file that the settings are made of: the settings file, the modules, secrets in files. Of a file that cannot be
/// read it is all that can be told of.
pub fn files(file: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::from([file.to_owned()]);
    // What is wrong with the file is for `load` to say.
    if let Ok(text) = source::read(file) {
        let directory = global::directory_of(file);
        files.extend(named(&text).into_iter().map(|path| directory.join(path)));
    }
    files
}

fn named(text: &str) -> Vec<String> {
    let (root, _) = DeTable::parse_recoverable(text);
    let root = root.get_ref();
    let mut named = vec![];
    if let Some(token) = table(root, "http").and_then(|http| http.get("token_file")) {
        named.extend(token.get_ref().as_str().map(str::to_owned));
    }
    let handlers = table(root, "handlers").into_iter().flat_map(|handlers| handlers.values());
    for handler in handlers.filter_map(|handler| handler.get_ref().as_table()) {
        named.extend(handler.get("module").and_then(|module| module.get_ref().as_str()).map(str::to_owned));
        let config = table(handler, "config").into_iter().flat_map(|config| config.values());
        let secrets = config.filter_map(|value| value.get_ref().as_table()?.get("file")?.get_ref().as_str());
        named.extend(secrets.map(str::to_owned));
    }
    named
}

fn table<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t DeTable<'i>> {
    match table.get(name)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = r#"
[http]
token_file = "token"
[handlers.order]
module = "build/order.wasm"
surprise = 1
[handlers.order.config]
key = { file = "/run/secrets/key" }
plain = "x"
[handlers.half]
subscribe = 7
module = "half.wasm"
"#;

    #[test]
    fn every_file_is_known_although_the_settings_have_errors() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sluicebox.toml");
        let at = |name: &str| folder.path().join(name);
        for cut in ["", "\n[handlers.cut"] {
            std::fs::write(&file, format!("{SETTINGS}{cut}")).unwrap();
            let expected = ["sluicebox.toml", "token", "build/order.wasm", "/run/secrets/key", "half.wasm"].map(at);
            assert_eq!(files(&file), BTreeSet::from(expected), "{cut:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(files(&file), BTreeSet::from([file]));
    }
}
