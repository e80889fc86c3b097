//! How files look from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Most files looked at below trees: sources of handlers are some hundred.
const FILES_MAX: usize = 20_000;

/// What a file looks like from outside: whoever writes or replaces it changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Followed through links; they need not be there.
    pub files: BTreeSet<PathBuf>,
    /// Every file below counts, but what is hidden or in a folder `target`.
    pub trees: BTreeSet<PathBuf>,
}

impl Scope {
    /// Whether it names something that `other` does not.
    pub(super) fn exceeds(&self, other: &Scope) -> bool {
        !self.files.is_subset(&other.files) || !self.trees.is_subset(&other.trees)
    }
}

/// What was seen of each file; `None`: it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<PathBuf, Option<Fingerprint>>);

impl Snapshot {
    pub(super) fn of(scope: &Scope) -> Self {
        // A file that cannot be looked at is as one that is not there: whoever reads it hears the reason.
        let look = |path: &PathBuf| (path.clone(), fs::metadata(path).ok().map(|metadata| Fingerprint::of(&metadata)));
        let mut files = scope.files.iter().map(look).collect();
        for tree in &scope.trees {
            look_below(tree, &mut files);
        }
        Self(files)
    }

    /// This one, with the files of an earlier one as they were then.
    pub(super) fn with_files_of(mut self, earlier: &Snapshot) -> Self {
        for (path, now) in &mut self.0 {
            if let Some(then) = earlier.0.get(path) {
                *now = *then;
            }
        }
        self
    }
}

fn look_below(tree: &Path, files: &mut BTreeMap<PathBuf, Option<Fingerprint>>) {
    let mut left = vec![tree.to_owned()];
    while let Some(directory) = left.pop() {
        // One that is not there, or not yet, has no files.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            if files.len() + left.len() >= FILES_MAX {
                return;
            }
            let (name, path) = (entry.file_name(), entry.path());
            if name.as_encoded_bytes().starts_with(b".") || name == "target" {
                continue;
            }
            let Ok(metadata) = fs::metadata(&path) else { continue };
            // A link to a directory could lead in a circle.
            match metadata.is_dir() {
                true if entry.file_type().is_ok_and(|kind| kind.is_dir()) => left.push(path),
                true => {}
                false => {
                    files.insert(path, Some(Fingerprint::of(&metadata)));
                }
            }
        }
    }
}
