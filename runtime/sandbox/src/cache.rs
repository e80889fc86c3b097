//! Compiled modules on disk, so that a restart does not compile again, and so that their code is mapped from a file: what
//! an idle handler does not run takes no memory.
//!
//! A compiled module is machine code that wasmtime runs as it is. So the directory belongs to the host: others must not be
//! able to write to it, or it is not used. The name of an entry ends with the sha-256 of its content, which tells one that
//! was cut short or damaged; such an entry is compiled anew. The cache is a convenience: no failure of it fails a load.

use crate::atomic_file;
use sluicebox_core::handler::Digest;
use std::fs::{self, DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use wasmtime::Engine;
use wasmtime::component::Component;
use xxhash_rust::xxh3::Xxh3;

/// Most bytes of all entries (2 GiB): some thousand handlers in Rust, some hundred with a language runtime inside. The
/// longest unused go first.
const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
const SUFFIX: &str = ".compiled";

pub(super) struct Cache {
    directory: PathBuf,
}

/// Why a directory cannot hold compiled modules.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("failed to open the directory of compiled modules {}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "{} holds compiled modules, which the host runs as they are, but others may write to it: \
         make it this user's alone (`chmod 700`)",
        path.display()
    )]
    NotOurs { path: PathBuf },
    #[error(
        "{} holds compiled modules, which the host runs as they are, but others may put another directory in its place: {} \
         {wrong}",
        path.display(),
        parent.display()
    )]
    ParentNotOurs { path: PathBuf, parent: PathBuf, wrong: String },
}

impl Cache {
    /// Opens the directory, which is made if it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self, CacheError> {
        let path = directory.to_owned();
        let failed = |source| CacheError::Open { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let metadata = fs::metadata(directory).map_err(failed)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(CacheError::NotOurs { path });
        }
        // From here on by its real place: no link on the way can come to mean another one.
        let directory = directory.canonicalize().map_err(failed)?;
        for parent in directory.ancestors().skip(1) {
            let metadata = fs::metadata(parent).map_err(failed)?;
            if let Some(wrong) = who_may_replace(metadata.uid(), metadata.mode()) {
                return Err(CacheError::ParentNotOurs { path, parent: parent.to_owned(), wrong });
            }
        }
        Ok(Self { directory })
    }

    /// The compiled module, if there is a whole one made by this wasmtime with these settings on such a processor.
    pub(super) fn get(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        match self.find(&name(engine, digest)) {
            Ok(entry) => open(engine, &entry?),
            Err(error) => {
                tracing::warn!(path = %self.directory.display(), %error, "cannot look for a compiled module");
                None
            }
        }
    }

    /// Keeps a compiled module and returns it as mapped from its file. A failure is only told.
    pub(super) fn put(&self, engine: &Engine, digest: &Digest, component: &Component) -> Option<Component> {
        let name = name(engine, digest);
        let written = component.serialize().map_err(io::Error::other).and_then(|code| self.write(&name, &code));
        if let Err(error) = written.and_then(|()| self.prune()) {
            tracing::warn!(path = %self.directory.display(), %error, "cannot keep a compiled module");
        }
        self.get(engine, digest)
    }

    /// The entry whose name begins so.
    fn find(&self, name: &str) -> io::Result<Option<PathBuf>> {
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            if file.starts_with(name) && file.ends_with(SUFFIX) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn write(&self, name: &str, code: &[u8]) -> io::Result<()> {
        let path = self.directory.join(format!("{name}{}{SUFFIX}", Digest::of(code)));
        // The process id keeps two hosts on one directory apart.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        atomic_file::write(&path, &temporary, code)
    }

    fn prune(&self) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.path().to_string_lossy().ends_with(SUFFIX) {
                let metadata = entry.metadata()?;
                entries.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, entry_bytes, path) in entries {
            if bytes <= BYTES_MAX {
                break;
            }
            // A handler that runs it keeps it: the file goes when the last mapping does.
            fs::remove_file(path)?;
            bytes -= entry_bytes;
        }
        Ok(())
    }
}

/// Who else may rename what is in a directory of this owner and mode, and what to do; `None`: nobody. As sshd looks at the
/// way to its keys, but for `/tmp` and the like, where only its owner may rename an entry (the sticky bit).
fn who_may_replace(owner: u32, mode: u32) -> Option<String> {
    const STICKY: u32 = 0o1000;
    let us = rustix::process::geteuid().as_raw();
    if owner != us && owner != 0 {
        return Some(format!(
            "belongs to user {owner}: set `data` in [host] to a directory below ones of this user or root"
        ));
    }
    (mode & 0o022 != 0 && mode & STICKY == 0).then(|| {
        "may be written to by others: take that from them (`chmod go-w`), or set `data` in [host] elsewhere".into()
    })
}

/// How the name of an entry begins.
fn name(engine: &Engine, digest: &Digest) -> String {
    let mut hasher = Xxh3::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{digest}-{:016x}-", hasher.finish())
}

/// Opens an entry if it is whole, and removes it otherwise: what is compiled anew has another name.
fn open(engine: &Engine, entry: &Path) -> Option<Component> {
    let opened = is_whole(entry).map_err(wasmtime::Error::from).and_then(|whole| match whole {
        true => deserialize(engine, entry),
        false => Err(wasmtime::Error::msg("it is damaged")),
    });
    match opened {
        Ok(component) => {
            // Only decides which entry goes first when there are too many.
            let _ = File::open(entry).and_then(|file| file.set_modified(sluicebox_core::clock::system_time()));
            Some(component)
        }
        Err(error) => {
            tracing::warn!(path = %entry.display(), %error, "cannot use a compiled module, compiling it anew");
            // If it stays it is found damaged again.
            let _ = fs::remove_file(entry);
            None
        }
    }
}

/// Whether the content has the sum that is at the end of the name.
fn is_whole(entry: &Path) -> io::Result<bool> {
    let sum = format!("{}{SUFFIX}", Digest::of(&fs::read(entry)?));
    Ok(entry.to_string_lossy().ends_with(&sum))
}

#[allow(unsafe_code, reason = "wasmtime cannot check compiled code: that it is what we wrote is for us to know")]
fn deserialize(engine: &Engine, entry: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file is what `Component::serialize` gave `put`: it has the sum that `put` wrote into its name, in a
    // directory that only this user can write to, and entries are never changed in place, only renamed into it and
    // removed. wasmtime itself checks that version, settings and processor fit.
    unsafe { Component::deserialize_file(engine, entry) }
}

/// Lets go of the pages of a module that was mapped from its entry. What runs again is mapped again, from the kernel's own
/// copy of the file if it still has it.
#[allow(unsafe_code, reason = "wasmtime cannot know that nothing was written to the mapping: that is for us to know")]
pub(super) fn release(component: &Component) -> io::Result<()> {
    let image = component.image_range();
    let (start, bytes) = (image.start.cast_mut().cast(), image.end.addr() - image.start.addr());
    // SAFETY: the caller says that this is a mapping of an entry. It is private, wasmtime makes it read-only before it hands
    // it out and never writes to it, and entries are never changed in place: so whenever a page is touched again, it has
    // the same content as before. Code may run in it meanwhile.
    unsafe { rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxDontNeed)? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn compiled() -> (Engine, Digest, Component) {
        let engine = Engine::default();
        let component = Component::new(&engine, EMPTY).unwrap();
        (engine, Digest::of(EMPTY), component)
    }

    fn entry_path(directory: &Path) -> PathBuf {
        let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(entries.len(), 1, "one entry and no leftovers: {entries:?}");
        entries.remove(0)
    }

    #[test]
    fn a_damaged_entry_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let (engine, digest, component) = compiled();
        assert!(cache.get(&engine, &digest).is_none());
        cache.put(&engine, &digest, &component);
        assert!(cache.get(&engine, &digest).is_some());

        let path = entry_path(directory.path());
        let whole = fs::read(&path).unwrap();
        let damages: [fn(&mut Vec<u8>); 5] = [
            |entry| entry.clear(),
            |entry| entry.truncate(entry.len() - 1),
            |entry| entry.push(0),
            |entry| entry[0] ^= 1,
            |entry| *entry.last_mut().unwrap() ^= 1,
        ];
        for damage in damages {
            let mut damaged = whole.clone();
            damage(&mut damaged);
            fs::write(&path, &damaged).unwrap();
            assert!(cache.get(&engine, &digest).is_none());
            assert!(cache.put(&engine, &digest, &component).is_some(), "a new entry must take its place");
            assert_eq!(fs::read(entry_path(directory.path())).unwrap(), whole);
        }
    }

    #[test]
    fn an_entry_of_other_settings_is_another_entry() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let (engine, digest, component) = compiled();
        cache.put(&engine, &digest, &component);
        let other = Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        assert!(cache.get(&other, &digest).is_none());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Cache::open(directory.path()).err().unwrap().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_directory_below_one_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (parent, inner) = (folder.path().join("shared"), folder.path().join("shared/own/compiled"));
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
        Cache::open(&inner).unwrap();
        for (mode, refused) in [(0o777, true), (0o775, true), (0o1777, false), (0o755, false)] {
            fs::set_permissions(&parent, fs::Permissions::from_mode(mode)).unwrap();
            let error = Cache::open(&inner).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), refused, "{mode:o}: {error:?}");
            assert!(
                error.is_none_or(|error| error.contains("shared may be written to") && error.contains("chmod go-w"))
            );
        }
        // A link does not lead around the look.
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        assert!(matches!(Cache::open(&link), Err(CacheError::ParentNotOurs { .. })));
        assert!(who_may_replace(rustix::process::geteuid().as_raw() + 1, 0o755).is_some());
    }

    #[test]
    fn the_longest_unused_entry_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        for n in 0..3 {
            // Sparse: it takes no room on the disk.
            let file = File::create(directory.path().join(format!("{n}{SUFFIX}"))).unwrap();
            file.set_len(BYTES_MAX / 2).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(1000 - n)).unwrap();
        }
        cache.prune().unwrap();
        assert!(!directory.path().join(format!("0{SUFFIX}")).exists());
        assert!(directory.path().join(format!("1{SUFFIX}")).exists());
    }
}
