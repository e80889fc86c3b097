//! `wasi:keyvalue/{store,atomics}`: the state of the key being handled, staged.

use super::bindings::wasi::keyvalue::{atomics, store};
use super::host::{Host, Run};
use super::resources::{Bucket, Cas};
use bytes::Bytes;
use sluicebox_core::effects::Entries;
use store::{Error, KeyResponse};
use wasmtime::component::Resource;

/// Names in one page of `list-keys`.
const PAGE_ENTRIES: usize = 64;

fn refused(reason: impl ToString) -> Error {
    Error::Other(reason.to_string())
}

impl Host {
    /// The run, if its message has a key and with it state.
    fn keyed(&mut self) -> Result<&mut Run, Error> {
        let run = self.run_mut().map_err(Error::Other)?;
        if !run.has_key {
            return Err(refused("the message is handled without a key, and state belongs to a key"));
        }
        Ok(run)
    }

    fn value(&mut self, entry: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.keyed()?.staged.entries().get(entry).cloned())
    }

    fn set_value(&mut self, entry: &str, value: Bytes) -> Result<(), Error> {
        self.keyed()?.staged.set(entry, value).map_err(refused)
    }
}

impl store::Host for Host {
    fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        if !matches!(&*identifier, "" | "default") {
            return Err(Error::NoSuchStore);
        }
        self.keyed()?;
        Ok(Resource::new_own(0))
    }
}

impl store::HostBucket for Host {
    fn get(&mut self, _: Resource<Bucket>, entry: String) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.value(&entry)?.map(Vec::from))
    }

    fn set(&mut self, _: Resource<Bucket>, entry: String, value: Vec<u8>) -> Result<(), Error> {
        self.set_value(&entry, value.into())
    }

    fn delete(&mut self, _: Resource<Bucket>, entry: String) -> Result<(), Error> {
        self.keyed()?.staged.delete(&entry).map_err(refused)
    }

    fn exists(&mut self, _: Resource<Bucket>, entry: String) -> Result<bool, Error> {
        Ok(self.value(&entry)?.is_some())
    }

    fn list_keys(&mut self, _: Resource<Bucket>, cursor: Option<String>) -> Result<KeyResponse, Error> {
        Ok(page(self.keyed()?.staged.entries(), cursor.as_deref()))
    }

    fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// The names after the cursor, which is the last name of the page before. Entries are sorted, so a page stays right when
/// entries come and go between two calls.
fn page(entries: &Entries, cursor: Option<&str>) -> KeyResponse {
    let mut names = entries.iter().map(|(name, _)| &**name).filter(|name| cursor.is_none_or(|cursor| *name > cursor));
    let keys: Vec<String> = names.by_ref().take(PAGE_ENTRIES).map(str::to_owned).collect();
    let cursor = names.next().and_then(|_| keys.last().cloned());
    KeyResponse { keys, cursor }
}

impl atomics::Host for Host {
    fn increment(&mut self, _: Resource<Bucket>, entry: String, delta: i64) -> wasmtime::Result<Result<i64, Error>> {
        Ok(self.add(&entry, delta))
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let Cas { entry, seen } = self.table().delete(cas)?;
        let present = match self.value(&entry) {
            Ok(present) => present,
            Err(error) => return Ok(Err(atomics::CasError::StoreError(error))),
        };
        if present == seen {
            return Ok(self.set_value(&entry, value.into()).map_err(atomics::CasError::StoreError));
        }
        let again = self.table().push(Cas { entry, seen: present.clone() })?;
        Ok(Err(atomics::CasError::CasFailed((again, present.map(Vec::from)))))
    }
}

impl atomics::HostCas for Host {
    fn new(&mut self, bucket: Resource<Bucket>, entry: String) -> wasmtime::Result<Result<Resource<Cas>, Error>> {
        Ok(self.new_with_read(bucket, entry)?.map(|(cas, _)| cas))
    }

    fn new_with_read(
        &mut self,
        _: Resource<Bucket>,
        entry: String,
    ) -> wasmtime::Result<Result<(Resource<Cas>, Option<Vec<u8>>), Error>> {
        let seen = match self.value(&entry) {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error)),
        };
        let cas = self.table().push(Cas { entry, seen: seen.clone() })?;
        Ok(Ok((cas, seen.map(Vec::from))))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table().delete(cas)?;
        Ok(())
    }
}

impl Host {
    /// Numbers are stored as decimal text, which a person reading the state understands and JSON reads too.
    fn add(&mut self, entry: &str, delta: i64) -> Result<i64, Error> {
        let number = match self.value(entry)? {
            None => 0,
            Some(value) => std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.trim().parse::<i64>().ok())
                .ok_or_else(|| refused(format!("entry `{entry}` is not a number")))?,
        };
        let sum =
            number.checked_add(delta).ok_or_else(|| refused(format!("entry `{entry}` would not fit into 64 bits")))?;
        self.set_value(entry, sum.to_string().into())?;
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_name_once() {
        let entries: Entries = (0..150).map(|n| (format!("{n:03}").into(), Bytes::new())).collect();
        let mut names = vec![];
        let mut cursor = None;
        loop {
            let response = page(&entries, cursor.as_deref());
            assert!(response.keys.len() <= PAGE_ENTRIES);
            names.extend(response.keys);
            cursor = response.cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(names, (0..150).map(|n| format!("{n:03}")).collect::<Vec<_>>());
        assert!(page(&Entries::default(), None).keys.is_empty());
    }
}
