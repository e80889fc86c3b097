//! The host behind the component's imports.

use super::Outgoing;
use crate::Context;
use crate::diagnostics::Level;
use crate::errors::{CountError, PublishError, StateError};
use crate::failure::Failure;
use crate::message::{FromMessage, Message};
use bindings::sluicebox::handler::{counters, outbox, types};
use bindings::wasi;
use bindings::wasi::keyvalue::store;
use std::cell::OnceCell;

/// Generated from `wit/`; public only for the code behind `#[handler]`.
#[allow(unsafe_code, unreachable_pub, clippy::all, missing_docs, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        world: "guest",
        generate_all,
        pub_export_macro: true,
    });
}

/// Runs a handler function on a message from the host.
pub fn handle<A: FromMessage, E: Into<Failure>>(
    function: fn(A, &mut Context) -> Result<(), E>,
    message: types::Message,
) -> Result<(), types::Failure> {
    let types::Message { id, topic, key, headers, body, time, attempt, offset } = message;
    let message = Message { id, topic, key, headers, body, time_ms: time, attempt, offset };
    let outcome = A::from_message(&message)
        .and_then(|argument| function(argument, &mut Context::new(message, Host::default())).map_err(Into::into));
    outcome.map_err(|failure| match failure {
        Failure::Reject { reason } => types::Failure::Reject(reason),
        Failure::Retry { reason, after } => types::Failure::Retry(types::RetryLater {
            reason,
            delay_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        }),
    })
}

thread_local! {
    /// The bucket, opened once for all runs of a sandbox: there is only one, and the host checks each use by itself.
    static BUCKET: OnceCell<store::Bucket> = const { OnceCell::new() };
}

/// The component's imports.
#[derive(Default)]
pub(crate) struct Host(());

impl Host {
    pub(crate) fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let Outgoing { topic, key, id, headers, body, delay_ms } = outgoing;
        outbox::publish(&outbox::Outgoing { topic, key, id, headers, body, delay_ms }).map_err(|error| match error {
            outbox::PublishError::Invalid(reason) => PublishError::Invalid(reason),
            outbox::PublishError::NotGranted(reason) => PublishError::NotGranted(reason),
            outbox::PublishError::TooLarge(reason) => PublishError::TooLarge(reason),
            outbox::PublishError::TooMany(reason) => PublishError::TooMany(reason),
            outbox::PublishError::Other(reason) => PublishError::Other(reason),
        })
    }

    pub(crate) fn get(&self, entry: &str) -> Result<Option<Vec<u8>>, StateError> {
        bucket(|bucket| bucket.get(entry))
    }

    pub(crate) fn set(&self, entry: &str, value: &[u8]) -> Result<(), StateError> {
        bucket(|bucket| bucket.set(entry, value))
    }

    pub(crate) fn delete(&self, entry: &str) -> Result<(), StateError> {
        bucket(|bucket| bucket.delete(entry))
    }

    pub(crate) fn names(&self) -> Result<Vec<String>, StateError> {
        let mut names = Vec::new();
        let mut cursor = None;
        loop {
            let page = bucket(|bucket| bucket.list_keys(cursor.as_deref()))?;
            names.extend(page.keys);
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(names),
            }
        }
    }

    pub(crate) fn count(&self, name: &str, by: u64) -> Result<(), CountError> {
        counters::count(name, by).map_err(|error| match error {
            counters::CountError::InvalidName(reason) => CountError::InvalidName(reason),
            counters::CountError::TooMany(reason) => CountError::TooMany(reason),
        })
    }

    pub(crate) fn config(&self, name: &str) -> Option<String> {
        wasi::config::store::get(name).ok().flatten()
    }
}

fn bucket<T>(action: impl FnOnce(&store::Bucket) -> Result<T, store::Error>) -> Result<T, StateError> {
    BUCKET.with(|cell| {
        if cell.get().is_none() {
            // A single thread: nobody opened it meanwhile.
            let _ = cell.set(store::open("").map_err(refused)?);
        }
        action(cell.get().expect("opened above")).map_err(refused)
    })
}

fn refused(error: store::Error) -> StateError {
    StateError::Refused(match error {
        store::Error::NoSuchStore => "no such store".to_owned(),
        store::Error::AccessDenied => "access denied".to_owned(),
        store::Error::Other(reason) => reason,
    })
}

pub(crate) fn diagnostic(level: Level, text: &str) {
    use wasi::logging::logging::{Level as Wasi, log};
    let level = match level {
        Level::Debug => Wasi::Debug,
        Level::Info => Wasi::Info,
        Level::Warn => Wasi::Warn,
        Level::Error => Wasi::Error,
    };
    log(level, "", text);
}
