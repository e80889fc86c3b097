//! State of keys: each key has a hash, whose fields are its entries. Values bear the sequence of the commit that wrote them,
//! and so does the note that an entry was deleted, which goes once nobody has an older value to write.

use super::server::Server;
use crate::error::LogError;
use crate::inspect::StateQuery;
use crate::replicated::engine::{Value, ValueSize};
use bytes::Bytes;
use redis::Value as Answer;
use sluicebox_core::handler::HandlerName;
use sluicebox_core::message::Key;

/// Of values written at once: so long the server does nothing else.
const WRITE_BYTES: usize = 1024 * 1024;

fn key_of(server: &Server, handler: &HandlerName, key: &Key) -> String {
    server.key(&format!("value:{handler}:{}", key.as_str()))
}

fn unreadable() -> LogError {
    LogError::Refused { reason: "a value in the log cannot be read".into() }
}

fn text(answer: Answer) -> Result<String, LogError> {
    match answer {
        Answer::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unreadable()),
        _ => Err(unreadable()),
    }
}

fn flat(answer: Answer) -> Vec<Answer> {
    match answer {
        Answer::Array(answers) => answers,
        Answer::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        _ => vec![],
    }
}

/// `VERSION=value`, or `VERSION!` where it was deleted.
fn decode(stored: Bytes) -> Option<(u64, Option<Bytes>)> {
    let digits = stored.iter().position(|byte| !byte.is_ascii_digit())?;
    let version = std::str::from_utf8(&stored[..digits]).ok()?.parse().ok()?;
    match stored[digits] {
        b'=' => Some((version, Some(stored.slice(digits + 1..)))),
        b'!' => Some((version, None)),
        _ => None,
    }
}

pub(super) async fn of_keys(server: &Server, handler: &HandlerName, keys: &[Key]) -> Result<Vec<Value>, LogError> {
    let mut all = redis::pipe();
    for key in keys {
        all.cmd("HGETALL").arg(key_of(server, handler, key));
    }
    let established = server.link.established()?;
    let answers = server.link.ask_all(&established, &all).await?;
    let mut values = vec![];
    for (key, answer) in keys.iter().zip(answers) {
        let mut fields = flat(answer).into_iter();
        while let (Some(entry), Some(Answer::BulkString(stored))) = (fields.next(), fields.next()) {
            let (version, value) = decode(stored.into()).ok_or_else(unreadable)?;
            values.push(Value { version, key: key.clone(), entry: text(entry)?.into(), value });
        }
    }
    Ok(values)
}

pub(super) async fn write(server: &Server, values: &[(HandlerName, Value)]) -> Result<(), LogError> {
    let mut rest = values;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(_, value)| {
            bytes += value.value.as_ref().map_or(0, Bytes::len);
            bytes <= WRITE_BYTES
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let written = server.call("write", |command| {
            for (handler, Value { version, key, entry, value }) in now {
                command.arg(handler.as_str()).arg(key.as_str()).arg(&**entry).arg(*version);
                command.arg(if value.is_some() { "=" } else { "!" }).arg(value.as_deref().unwrap_or_default());
            }
            command
        });
        written.await?;
    }
    Ok(())
}

/// Every value up to this version was written.
pub(super) async fn written(server: &Server, version: u64) -> Result<(), LogError> {
    while server.call("written", |command| command.arg(version)).await? == Answer::Int(1) {}
    Ok(())
}

pub(super) async fn sizes(
    server: &Server,
    query: &StateQuery,
    keys_max: usize,
    take: &mut (dyn FnMut(ValueSize) + Send),
) -> Result<(), LogError> {
    let StateQuery { handler, prefix, after, .. } = query;
    let mut from = match after {
        Some(after) if after.as_str() >= prefix.as_str() => format!("({}", after.as_str()),
        _ => format!("[{prefix}"),
    };
    let mut keys = 0;
    while keys < keys_max {
        let page = server.look("sizes", |command| command.arg(handler.as_str()).arg(&from).arg(prefix));
        let page = flat(page.await?);
        if page.is_empty() {
            return Ok(());
        }
        for of_key in page {
            let mut parts = flat(of_key).into_iter();
            let key = text(parts.next().ok_or_else(unreadable)?)?;
            let key = Key::parse(&key).ok().flatten().ok_or_else(unreadable)?;
            let mut has_value = false;
            while let (Some(entry), Some(version), Some(bytes)) = (parts.next(), parts.next(), parts.next()) {
                let version = text(version)?.parse().map_err(|_| unreadable())?;
                let bytes = text(bytes)?.parse().ok();
                has_value |= bytes.is_some();
                take(ValueSize { version, key: key.clone(), entry: text(entry)?.into(), bytes });
            }
            keys += usize::from(has_value);
            from = format!("({}", key.as_str());
        }
    }
    Ok(())
}

/// Values of a handler go that are older.
pub(super) async fn purge(server: &Server, handler: &HandlerName, version: u64) -> Result<(), LogError> {
    let mut from = "-".to_owned();
    loop {
        let last = server.call("forget", |command| command.arg(handler.as_str()).arg(version).arg(&from));
        match last.await? {
            Answer::BulkString(last) => from = format!("({}", String::from_utf8_lossy(&last)),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_read_and_other_bytes_are_an_error() {
        let decoded = |stored: &'static [u8]| decode(Bytes::from_static(stored));
        assert_eq!(decoded(b"12=a=b"), Some((12, Some("a=b".into()))));
        assert_eq!(decoded(b"12="), Some((12, Some("".into()))));
        assert_eq!(decoded(b"3!"), Some((3, None)));
        for bad in [&b""[..], b"12", b"=a", b"12?a", b"99999999999999999999=a"] {
            assert_eq!(decode(Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
