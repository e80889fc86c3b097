//! The versions of modules that were in force, on disk, so that an operator can go back to one whatever became of the
//! file it came from.
//!
//! `<digest>.wasm` are the bytes of a version, whoever uses it; `<handler>.json` says which versions a handler had. Both
//! are written whole or not at all, and bytes are compared with their digest when they are read. A version that no handler
//! names any more is deleted.

use crate::clock::Timestamp;
use crate::handler::{Digest, HandlerName};
use crate::sandbox::atomic_file;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Versions of a handler that are kept beyond those in force: a day of work, some 20 MiB of modules in Rust.
pub const VERSIONS_MAX: usize = 10;
const MODULE: &str = "wasm";
const INDEX: &str = "json";
const TEMPORARY: &str = "tmp";

/// A version of a handler's module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub digest: Digest,
    /// When this host first put it in force.
    #[serde(rename = "first_seen_ms", with = "milliseconds")]
    pub first_seen: Timestamp,
}

/// What a handler's index says.
#[derive(Default, Serialize, Deserialize)]
struct Index {
    /// The version that was in the file last is the last one.
    versions: Vec<Version>,
}

/// Why versions cannot be kept, or one cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("failed to open the directory of module versions `{}`", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("failed to read module version {digest} from `{}`", path.display())]
    Read { digest: Digest, path: PathBuf, source: io::Error },
    #[error("module version {digest} is damaged: `{}` holds other bytes", path.display())]
    Damaged { digest: Digest, path: PathBuf },
}

/// The bytes of a version that a host keeps in this directory, not compared with the digest; `None`: it has none such.
pub fn version_in(directory: &Path, digest: Digest) -> Option<Vec<u8>> {
    fs::read(directory.join(format!("{digest}.{MODULE}"))).ok()
}

/// The directory of versions. One host at a time uses it: a lock of its directory sees to that.
pub struct Store {
    directory: PathBuf,
    handlers: Mutex<BTreeMap<HandlerName, Vec<Version>>>,
    /// Held while files are written, which nobody who only asks waits for.
    writing: Mutex<()>,
    /// Kept and not yet noted: a handler that takes them is being prepared.
    kept: Mutex<BTreeSet<Digest>>,
    /// An index that cannot be read may name any version, so none is deleted.
    complete: bool,
}

impl Store {
    /// Opens the directory, which is made if it is not there.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let (mut handlers, mut complete) = (BTreeMap::new(), true);
        for path in entries(directory).map_err(failed)? {
            if path.extension().is_none_or(|kind| kind != INDEX) {
                continue;
            }
            match read_index(&path) {
                Ok((name, index)) => {
                    handlers.insert(name, index.versions);
                }
                Err(error) => {
                    complete = false;
                    tracing::warn!(path = %path.display(), %error, "cannot read which module versions a handler had: until the next start all are kept");
                }
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            handlers: Mutex::new(handlers),
            writing: Mutex::default(),
            kept: Mutex::default(),
            complete,
        })
    }

    /// Keeps the bytes of a version until the next [`Store::note`], which says whose it is. Blocks for the disk.
    pub fn keep(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let _writing = lock(&self.writing);
        lock(&self.kept).insert(digest);
        let path = self.path_of(digest);
        match fs::metadata(&path) {
            // Its content is compared when it is needed.
            Ok(metadata) if metadata.len() == bytes.len() as u64 => Ok(()),
            _ => self.write(&path, bytes),
        }
    }

    /// The bytes of a version. Blocks for the disk.
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path_of(digest);
        let bytes = fs::read(&path).map_err(|source| StoreError::Read { digest, path: path.clone(), source })?;
        if Digest::of(&bytes) != digest {
            return Err(StoreError::Damaged { digest, path });
        }
        Ok(bytes)
    }

    /// The versions of a handler; the one that was in the file last is the last one.
    pub fn versions(&self, handler: &HandlerName) -> Vec<Version> {
        lock(&self.handlers).get(handler).cloned().unwrap_or_default()
    }

    /// Notes for each handler the version in its file and the one in force, and deletes what is not needed any more.
    /// Handlers that are not named keep what they have. Blocks for the disk.
    pub(super) fn note(&self, handlers: &BTreeMap<HandlerName, InForce>, now: Timestamp) -> io::Result<()> {
        let _writing = lock(&self.writing);
        let before = lock(&self.handlers).clone();
        let mut after = before.clone();
        for (name, in_force) in handlers {
            let versions = after.entry(name.clone()).or_default();
            *versions = noted(versions, *in_force, now);
            if before.get(name) != Some(versions) {
                self.write_index(name, versions)?;
            }
        }
        *lock(&self.handlers) = after.clone();
        let noted: BTreeSet<Digest> = after.values().flatten().map(|version| version.digest).collect();
        lock(&self.kept).retain(|digest| !noted.contains(digest));
        if after != before { self.prune(&after) } else { Ok(()) }
    }

    /// Deletes what it knows of a handler. Blocks for the disk.
    pub fn forget(&self, handler: &HandlerName) -> io::Result<()> {
        let _writing = lock(&self.writing);
        let mut known = lock(&self.handlers).clone();
        if known.remove(handler).is_some() {
            fs::remove_file(self.directory.join(format!("{handler}.{INDEX}")))?;
        }
        *lock(&self.handlers) = known.clone();
        self.prune(&known)
    }

    fn prune(&self, known: &BTreeMap<HandlerName, Vec<Version>>) -> io::Result<()> {
        if !self.complete {
            return Ok(());
        }
        let noted = known.values().flatten().map(|version| version.digest);
        let kept: Vec<Digest> = lock(&self.kept).iter().copied().collect();
        let needed: BTreeSet<PathBuf> = noted.chain(kept).map(|digest| self.path_of(digest)).collect();
        for path in entries(&self.directory)? {
            let kind = path.extension().unwrap_or_default();
            if kind == TEMPORARY || (kind == MODULE && !needed.contains(&path)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn write_index(&self, handler: &HandlerName, versions: &[Version]) -> io::Result<()> {
        let index = serde_json::to_vec_pretty(&Index { versions: versions.to_vec() })?;
        self.write(&self.directory.join(format!("{handler}.{INDEX}")), &index)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        atomic_file::write(path, &path.with_extension(TEMPORARY), bytes)
    }

    fn path_of(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("{digest}.{MODULE}"))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is replaced as a whole: a panic while it was held left it whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is in force for a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) digest: Digest,
    /// The version in the file: another one while the handler is rolled back or the file is refused.
    pub(super) file: Option<Digest>,
}

/// The versions after this. Only what is in force is added: a file that never ran is no way back.
fn noted(versions: &[Version], in_force: InForce, now: Timestamp) -> Vec<Version> {
    let mut noted = versions.to_vec();
    if !noted.iter().any(|version| version.digest == in_force.digest) {
        noted.push(Version { digest: in_force.digest, first_seen: now });
    }
    if let Some(at) = noted.iter().position(|version| Some(version.digest) == in_force.file) {
        // One that came back is the last again, and the one that it replaced is before it.
        let version = noted.remove(at);
        noted.push(version);
    }
    // The bound is larger than what is in force, which is at the end or was not added now.
    noted.drain(..noted.len().saturating_sub(VERSIONS_MAX));
    noted
}

fn read_index(path: &Path) -> io::Result<(HandlerName, Index)> {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let name = HandlerName::parse(name).map_err(io::Error::other)?;
    Ok((name, serde_json::from_slice(&fs::read(path)?)?))
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

mod milliseconds {
    //! A time as a number.

    use super::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.0)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HandlerName {
        HandlerName::parse(text).unwrap()
    }

    /// Puts the version made of `bytes` in force, from the file.
    fn put(store: &Store, handler: &str, bytes: &str, now: u64) {
        let digest = Digest::of(bytes.as_bytes());
        store.keep(digest, bytes.as_bytes()).unwrap();
        let in_force = InForce { digest, file: Some(digest) };
        store.note(&BTreeMap::from([(name(handler), in_force)]), Timestamp(now)).unwrap();
    }

    fn seen(store: &Store, handler: &str) -> Vec<(Digest, u64)> {
        store.versions(&name(handler)).iter().map(|version| (version.digest, version.first_seen.0)).collect()
    }

    fn d(bytes: &str) -> Digest {
        Digest::of(bytes.as_bytes())
    }

    fn modules(directory: &Path) -> usize {
        entries(directory).unwrap().iter().filter(|path| path.extension().is_some_and(|kind| kind == MODULE)).count()
    }

    #[test]
    fn versions_outlive_the_host_with_the_time_they_were_first_seen() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, "order", "a", 1);
        put(&store, "order", "b", 2);
        put(&store, "order", "a", 3);
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(seen(&store, "order"), [(d("b"), 2), (d("a"), 1)], "the one in the file is the last one");
        assert_eq!(store.read(d("b")).unwrap(), b"b");
    }

    #[test]
    fn the_last_ten_are_kept_and_others_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (0..30).for_each(|number| put(&store, "order", &format!("v{number}"), number));
        let versions = seen(&store, "order");
        assert_eq!(versions.len(), VERSIONS_MAX);
        assert_eq!((versions[0].0, versions[9].0), (d("v20"), d("v29")));
        assert_eq!(modules(folder.path()), VERSIONS_MAX);
        assert!(matches!(store.read(d("v1")), Err(StoreError::Read { .. })));
    }

    #[test]
    fn neither_going_back_nor_a_file_that_never_ran_changes_the_versions() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, "order", "a", 1);
        put(&store, "order", "b", 2);
        let before = seen(&store, "order");
        for file in [Some(d("b")), Some(d("never ran")), None] {
            let in_force = InForce { digest: d("a"), file };
            store.note(&BTreeMap::from([(name("order"), in_force)]), Timestamp(9)).unwrap();
            assert_eq!(seen(&store, "order"), before);
        }
    }

    #[test]
    fn bytes_that_two_handlers_share_go_with_the_last_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, "order", "a", 1);
        put(&store, "notify", "a", 1);
        store.forget(&name("order")).unwrap();
        assert_eq!(store.read(d("a")).unwrap(), b"a");
        store.forget(&name("notify")).unwrap();
        assert_eq!(entries(folder.path()).unwrap(), Vec::<PathBuf>::new());
        store.forget(&name("notify")).unwrap();
    }

    #[test]
    fn a_damaged_version_is_never_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, "order", "a", 1);
        fs::write(folder.path().join(format!("{}.wasm", d("a"))), "b").unwrap();
        let error = store.read(d("a")).unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
    }

    #[test]
    fn a_damaged_index_costs_no_version_while_the_host_runs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, "order", "a", 1);
        fs::write(folder.path().join("order.json"), "{").unwrap();
        let store = Store::open(folder.path()).unwrap();
        put(&store, "order", "b", 2);
        assert_eq!(seen(&store, "order"), [(d("b"), 2)]);
        assert_eq!(modules(folder.path()), 2);
    }
}
