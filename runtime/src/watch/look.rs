//! How files look from outside, and where the kernel must be asked to tell about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links on the way to a file, as in the kernel.
const LINKS_MAX: usize = 40;
/// Most files and directories looked at below trees: sources of handlers are some hundred.
const ENTRIES_MAX: usize = 20_000;

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

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// `None`: it is not there.
    pub files: BTreeMap<PathBuf, Option<Fingerprint>>,
    /// Where a change of one of them shows, with device and inode.
    pub(super) directories: BTreeMap<PathBuf, (u64, u64)>,
}

impl Scope {
    /// Whether it names something that `other` does not.
    pub(super) fn exceeds(&self, other: &Scope) -> bool {
        !self.files.is_subset(&other.files) || !self.trees.is_subset(&other.trees)
    }

    pub(super) fn look(&self) -> Look {
        let mut look = Look::default();
        let mut directories = BTreeSet::new();
        for path in &self.files {
            directories_of(path, &mut directories);
            // A file that cannot be looked at is as one that is not there: whoever reads it hears the reason.
            look.files.insert(path.clone(), fs::metadata(path).ok().map(|metadata| Fingerprint::of(&metadata)));
        }
        for tree in &self.trees {
            look_below(tree, &mut look.files, &mut directories);
        }
        let identified = directories.into_iter().filter_map(|path| {
            let metadata = fs::metadata(&path).ok()?;
            Some((path, (metadata.dev(), metadata.ino())))
        });
        look.directories = identified.collect();
        look
    }
}

impl Look {
    /// This look, with the files of an earlier one as they were then.
    pub(super) fn with_files_of(mut self, earlier: &Look) -> Self {
        for (path, now) in &mut self.files {
            if let Some(then) = earlier.files.get(path) {
                *now = *then;
            }
        }
        self
    }
}

/// The directories in which a change would make `path` mean another file: the one it is in, and the one of each symbolic
/// link on the way. Where the way ends early, the last directory there is.
fn directories_of(path: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(path) = std::path::absolute(path) else { return };
    let mut at = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(&path).collect();
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match fs::symlink_metadata(&next) {
            Ok(metadata) if metadata.is_dir() => at = next,
            Ok(metadata) if metadata.is_symlink() && links < LINKS_MAX => {
                links += 1;
                found.insert(at.clone());
                let Ok(target) = fs::read_link(&next) else { break };
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                parts(&target).rev().for_each(|part| rest.push_front(part));
            }
            _ => break,
        }
    }
    found.insert(at);
}

fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(|part| part.as_os_str().to_owned())
}

fn look_below(tree: &Path, files: &mut BTreeMap<PathBuf, Option<Fingerprint>>, directories: &mut BTreeSet<PathBuf>) {
    let mut left = vec![tree.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            directories_of(&directory, directories);
            continue;
        };
        directories.insert(directory);
        for entry in entries.flatten() {
            if files.len() + directories.len() >= ENTRIES_MAX {
                return;
            }
            let (name, path) = (entry.file_name(), entry.path());
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if name.as_encoded_bytes().starts_with(b".") || name == "target" {
                continue;
            }
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
