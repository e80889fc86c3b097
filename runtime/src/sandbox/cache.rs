//! Compiled modules on disk, so that a restart does not compile again.
//!
//! A compiled module is machine code that wasmtime runs as it is. So the directory belongs to the host: others must not be
//! able to write to it, or it is not used. A header in front of each entry tells one that was cut short or damaged from a
//! whole one; such an entry is compiled anew. The cache is a convenience: no failure of it fails a load.

use crate::handler::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use wasmtime::Engine;
use wasmtime::component::Component;
use xxhash_rust::xxh3::Xxh3;

/// The first bytes of an entry; the sha-256 of what follows comes next.
const MAGIC: &[u8] = b"sluicebox compiled module 1\n";
const HEADER_BYTES: usize = MAGIC.len() + 32;
/// Most entries kept; the longest unused go first.
const ENTRIES_MAX: usize = 256;
const SUFFIX: &str = "compiled";

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
        Ok(Self { directory: path })
    }

    /// The compiled module, if there is a whole one made by this wasmtime with these settings on such a processor.
    pub(super) fn get(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let path = self.path(engine, digest);
        let entry = match fs::read(&path) {
            Ok(entry) => entry,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot read a compiled module, compiling it anew");
                return None;
            }
        };
        let Some(code) = checked(&entry) else {
            tracing::warn!(path = %path.display(), "a compiled module is damaged, compiling it anew");
            return None;
        };
        match deserialize(engine, code) {
            Ok(component) => {
                // Only decides which entry goes first when there are too many.
                let _ = File::open(&path).and_then(|file| file.set_modified(crate::clock::system_time()));
                Some(component)
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module does not fit, compiling it anew");
                None
            }
        }
    }

    /// Keeps a compiled module. A failure is only told.
    pub(super) fn put(&self, engine: &Engine, digest: &Digest, component: &Component) {
        let path = self.path(engine, digest);
        let written = component.serialize().map_err(io::Error::other).and_then(|code| self.write(&path, &code));
        if let Err(error) = written.and_then(|()| self.prune()) {
            tracing::warn!(path = %path.display(), %error, "cannot keep a compiled module");
        }
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        // The process id keeps two hosts on one directory apart.
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let written = file
            .write_all(MAGIC)
            .and_then(|()| file.write_all(&Sha256::digest(code)))
            .and_then(|()| file.write_all(code))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, path))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if written.is_err() {
            // Nothing else knows its name.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn prune(&self) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == SUFFIX) {
                entries.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        entries.sort();
        let too_many = entries.len().saturating_sub(ENTRIES_MAX);
        entries[..too_many].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, engine: &Engine, digest: &Digest) -> PathBuf {
        let mut hasher = Xxh3::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.directory.join(format!("{digest}-{:016x}.{SUFFIX}", hasher.finish()))
    }
}

/// The code of a whole entry.
fn checked(entry: &[u8]) -> Option<&[u8]> {
    let (header, code) = entry.split_at_checked(HEADER_BYTES)?;
    let sum = header.strip_prefix(MAGIC)?;
    (*sum == *Sha256::digest(code)).then_some(code)
}

#[allow(unsafe_code, reason = "wasmtime cannot check compiled code: that it is what we wrote is for us to know")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are what `Component::serialize` gave `put`: they carry the sum it wrote, in a directory that only
    // this user can write to. wasmtime itself checks that version, settings and processor fit.
    unsafe { Component::deserialize(engine, code) }
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
        for cut in [0, MAGIC.len(), HEADER_BYTES, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(cache.get(&engine, &digest).is_none(), "cut to {cut} bytes");
        }
        for at in [0, MAGIC.len(), HEADER_BYTES, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(cache.get(&engine, &digest).is_none(), "byte {at} changed");
        }
        cache.put(&engine, &digest, &component);
        assert!(cache.get(&engine, &digest).is_some());
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
    fn the_longest_unused_entry_goes_first() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        for n in 0..=ENTRIES_MAX {
            let path = directory.path().join(format!("{n}.{SUFFIX}"));
            fs::write(&path, b"").unwrap();
            let age = std::time::Duration::from_secs(1000 - n as u64);
            File::open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        }
        cache.prune().unwrap();
        assert!(!directory.path().join(format!("0.{SUFFIX}")).exists());
        assert!(directory.path().join(format!("1.{SUFFIX}")).exists());
    }
}
