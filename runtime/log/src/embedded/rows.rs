//! How values are kept in columns.

use super::failure::Failure;
use bytes::{Bytes, BytesMut};
use rusqlite::Row;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::commit::{Control, Deaths, HeadScope, Mark};
use sluicebox_core::handler::Digest;
use sluicebox_core::message::{Headers, IdHash, Key, Offset};
use sluicebox_core::topic::Topic;
use std::sync::Arc;

/// Bytes of a mark in its blob.
const MARK_BYTES: usize = 24;

/// SQLite's integers are signed: an unsigned one is kept bit for bit.
pub(super) fn int(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) fn uint(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
    Ok(row.get_ref(column)?.as_i64()?.cast_unsigned())
}

/// A number of a narrower type than SQLite keeps.
pub(super) fn narrow<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, Failure> {
    let value = row.get_ref(column)?.as_i64()?;
    T::try_from(value).map_err(|_| Failure::damaged(format_args!("{value} is out of range")))
}

pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, Failure> {
    Ok(row.get_ref(column)?.as_str()?)
}

pub(super) fn topic(text: &str) -> Result<Topic, Failure> {
    Topic::parse(text).map_err(Failure::damaged)
}

pub(super) fn key(row: &Row<'_>, column: usize) -> Result<Option<Key>, Failure> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(text) => Key::parse(text).map_err(Failure::damaged),
        None => Ok(None),
    }
}

pub(super) fn id(row: &Row<'_>, column: usize) -> Result<Option<Arc<str>>, Failure> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map(Into::into))
}

pub(super) fn bytes(row: &Row<'_>, column: usize) -> Result<Bytes, Failure> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

/// Bodies of many messages in few allocations. A message that is kept keeps its whole buffer, so buffers are small and
/// longer bodies have memory of their own.
#[derive(Default)]
pub(super) struct Bodies(BytesMut);

impl Bodies {
    const BUFFER_BYTES: usize = 32 * 1024;
    const SHARED_BYTES_MAX: usize = 4 * 1024;

    pub(super) fn read(&mut self, row: &Row<'_>, column: usize) -> Result<Bytes, Failure> {
        let body = row.get_ref(column)?.as_blob()?;
        if body.len() > Self::SHARED_BYTES_MAX {
            return Ok(Bytes::copy_from_slice(body));
        }
        if self.0.capacity() < body.len() {
            self.0 = BytesMut::with_capacity(Self::BUFFER_BYTES);
        }
        self.0.extend_from_slice(body);
        Ok(self.0.split().freeze())
    }
}

pub(super) fn digest(row: &Row<'_>, column: usize) -> Result<Option<Digest>, Failure> {
    let Some(blob) = row.get_ref(column)?.as_blob_or_null()? else { return Ok(None) };
    let digest = <[u8; 32]>::try_from(blob).map_err(|_| Failure::damaged("a digest does not have 32 bytes"))?;
    Ok(Some(Digest(digest)))
}

/// From the columns deaths, first_offset, first_given_up and returns, the first of which is `first`.
pub(super) fn deaths(row: &Row<'_>, first: usize) -> Result<Deaths, Failure> {
    Ok(Deaths {
        count: narrow(row, first)?,
        first_offset: Offset(uint(row, first + 1)?),
        first_time: Timestamp(uint(row, first + 2)?),
        returns: narrow(row, first + 3)?,
    })
}

pub(super) fn identity(row: &Row<'_>, column: usize) -> Result<Option<IdHash>, Failure> {
    let Some(blob) = row.get_ref(column)?.as_blob_or_null()? else { return Ok(None) };
    let hash = <[u8; 16]>::try_from(blob).map_err(|_| Failure::damaged("an identity does not have 16 bytes"))?;
    Ok(Some(IdHash(u128::from_le_bytes(hash))))
}

/// These numbers are in the files: they do not change.
pub(super) fn scope_number(scope: HeadScope) -> i64 {
    match scope {
        HeadScope::Lane => 0,
        HeadScope::Message => 1,
        HeadScope::After => 2,
    }
}

pub(super) fn scope(row: &Row<'_>, column: usize) -> Result<HeadScope, Failure> {
    match row.get_ref(column)?.as_i64()? {
        0 => Ok(HeadScope::Lane),
        1 => Ok(HeadScope::Message),
        2 => Ok(HeadScope::After),
        other => Err(Failure::damaged(format_args!("a head has the unknown scope {other}"))),
    }
}

pub(super) fn control_text(control: &Control) -> String {
    serde_json::to_string(control).expect("text, numbers and lists can always be written as JSON")
}

pub(super) fn control(row: &Row<'_>, column: usize) -> Result<Control, Failure> {
    serde_json::from_str(text(row, column)?).map_err(Failure::damaged)
}

/// Names and values, each with its length (u32, little-endian) before it; `None` for no headers.
pub(super) fn headers_blob(headers: &Headers) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut blob = Vec::with_capacity(headers.bytes() + 8 * headers.iter().count());
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        let length = u32::try_from(text.len()).expect("headers are checked to be far below 4 GiB");
        blob.extend(length.to_le_bytes());
        blob.extend(text.as_bytes());
    }
    Some(blob)
}

pub(super) fn headers(row: &Row<'_>, column: usize) -> Result<Headers, Failure> {
    match row.get_ref(column)?.as_blob_or_null()? {
        Some(blob) => parse_headers(blob).ok_or_else(|| Failure::damaged("headers that cannot be read")),
        None => Ok(Headers::default()),
    }
}

fn parse_headers(mut blob: &[u8]) -> Option<Headers> {
    let mut next = || {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        blob = rest;
        Some((std::str::from_utf8(text).ok()?.to_owned(), rest.is_empty()))
    };
    let mut pairs = vec![];
    loop {
        let (name, _) = next()?;
        let (value, is_last) = next()?;
        pairs.push((name, value));
        if is_last {
            return Some(Headers::new(pairs));
        }
    }
}

pub(super) fn marks_blob(marks: &[Mark]) -> Vec<u8> {
    let mut blob = Vec::with_capacity(marks.len() * MARK_BYTES);
    for mark in marks {
        blob.extend(mark.id.0.to_le_bytes());
        blob.extend(mark.time.0.to_le_bytes());
    }
    blob
}

/// Adds the marks of a blob to `marks`.
pub(super) fn read_marks(blob: &[u8], marks: &mut Vec<Mark>) -> Result<(), Failure> {
    let (chunks, rest) = blob.as_chunks::<MARK_BYTES>();
    if !rest.is_empty() {
        return Err(Failure::damaged("marks that cannot be read"));
    }
    marks.extend(chunks.iter().map(|chunk| {
        let (id, time) = chunk.split_at(16);
        Mark {
            id: IdHash(u128::from_le_bytes(id.try_into().expect("16 of 24 bytes"))),
            time: Timestamp(u64::from_le_bytes(time.try_into().expect("the other 8 of 24 bytes"))),
        }
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(pairs in proptest::collection::vec((".{0,8}", ".{0,8}"), 0..5)) {
            let headers = Headers::new(pairs);
            let read = headers_blob(&headers).map_or(Some(Headers::default()), |blob| parse_headers(&blob));
            prop_assert_eq!(read, Some(headers));
        }

        #[test]
        fn damaged_headers_and_marks_are_errors_and_no_panic(blob in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_headers(&blob);
            prop_assert_eq!(read_marks(&blob, &mut vec![]).is_ok(), blob.len() % 24 == 0);
        }
    }
    #[test]
    fn short_bodies_share_a_buffer_and_long_ones_have_their_own() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let mut select = connection.prepare("SELECT zeroblob(?1)").unwrap();
        let mut bodies = Bodies::default();
        let mut read = |bytes: usize| select.query_row([bytes as i64], |row| Ok(bodies.read(row, 0).unwrap())).unwrap();
        let short: Vec<Bytes> = (0..100).map(|_| read(1024)).collect();
        assert!(short.iter().all(|body| body.len() == 1024));
        let follows = |pair: &&[Bytes]| pair[1].as_ptr().addr() == pair[0].as_ptr().addr() + pair[0].len();
        let shared = short.windows(2).filter(follows).count();
        assert!((90..99).contains(&shared), "{shared} of 99 lie behind the one before, in buffers of 32");
        let (before, long, after) = (read(1024), read(Bodies::SHARED_BYTES_MAX + 1), read(1024));
        assert!(follows(&&[before.clone(), after][..]) && long.len() == Bodies::SHARED_BYTES_MAX + 1);
        let longest_short = read(Bodies::SHARED_BYTES_MAX);
        let lies_behind = longest_short.as_ptr().addr().wrapping_sub(before.as_ptr().addr()) == 2 * 1024;
        assert!(lies_behind, "the longest that shares does");
    }
}
