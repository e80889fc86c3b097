//! NATS JetStream as an engine.

use super::following::Following;
use super::server::{self, Server};
use super::{members, modules, snapshots, values};
use crate::contract::Guarantees;
use crate::error::LogError;
use crate::inspect::StateQuery;
use crate::members::Members;
use crate::replicated::engine::{Engine, Holds, Page, PublishError, Room, Stored, Subject, Value, ValueSize};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluicebox_core::clock::Timestamp;
use sluicebox_core::handler::{Digest, HandlerName};
use sluicebox_core::message::Key;
use std::collections::HashSet;
use std::time::Duration;

/// Entries and bytes asked for at once.
const ENTRIES_MAX: u64 = 512;
const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The latest time that a server understands: the end of the year 9999.
const TIME_MAX: Timestamp = Timestamp(253_402_300_799_000);

impl Server {
    fn subject(&self, subject: Subject<'_>) -> String {
        match subject {
            Subject::Messages => self.names.messages(),
            Subject::Control => self.names.control(),
            Subject::Part => self.names.part(),
            Subject::Journal(shard) => self.names.journal(shard),
        }
    }

    fn entry(&self, stored: server::Stored) -> Stored {
        let server::Stored { sequence, subject, time, payload } = stored;
        Stored { sequence, holds: self.holds(&subject), time, payload }
    }

    pub(super) fn holds(&self, subject: &str) -> Holds {
        if subject == self.names.part() { Holds::Part } else { Holds::Entry }
    }
}

impl Engine for Server {
    type Following = Following;
    /// As long as another server takes to lead.
    const UNKNOWN: Duration = Duration::from_secs(30);

    fn guarantees(&self) -> Guarantees {
        let copies = self.log.cached_info().config.num_replicas;
        let summary = match copies {
            0 | 1 => {
                "what is acknowledged is on one server, which syncs it within two minutes: kill -9 loses nothing, \
                      loss of power or of the server may"
                    .to_owned()
            }
            copies => format!(
                "what is acknowledged is on most of {copies} servers, which sync it within two minutes: the loss of one \
                 loses nothing, loss of power of all at once may"
            ),
        };
        Guarantees {
            kind: "nats",
            survives_process_death: true,
            // Not even where the server is told to sync always: nobody here can see that.
            survives_power_loss: false,
            // They are the server's, and its clock may be set.
            times_never_fall: false,
            several_hosts: true,
            lag_is_exact: false,
            measures_bytes: false,
            summary,
        }
    }

    fn reachable(&self) -> Result<(), LogError> {
        self.reachable()
    }

    fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max()
    }

    async fn publish(&self, subject: Subject<'_>, payload: Bytes, expected: Option<u64>) -> Result<u64, PublishError> {
        self.publish(self.subject(subject), payload, expected).await
    }

    async fn follow(&self, from: u64) -> Result<Following, LogError> {
        Following::begin(self, from).await
    }

    async fn read(&self, from: u64, last: u64) -> Result<Page, LogError> {
        let batch = ENTRIES_MAX.min(last - from + 1);
        let question = format!(r#"{{"seq":{from},"batch":{batch},"max_bytes":{BYTES_MAX}}}"#);
        let found = self.get_many(&self.names.log_stream(), &question).await?;
        if let Some(next) = found.entries.last().map(|end| end.sequence + 1) {
            let entries = found.entries.into_iter().filter(|entry| entry.sequence <= last);
            return Ok(Page { entries: entries.map(|entry| self.entry(entry)).collect(), next });
        }
        // Whoever answered may not have it yet, where the stream has more than one copy: the leader knows.
        match Engine::get(self, from).await? {
            Some(entry) => Ok(Page { entries: vec![entry], next: from + 1 }),
            None => {
                let (first, _) = Engine::ends(self).await?;
                Ok(Page { entries: vec![], next: first.max(from + 1) })
            }
        }
    }

    async fn get(&self, sequence: u64) -> Result<Option<Stored>, LogError> {
        Ok(self.get(&self.log, sequence).await?.map(|found| self.entry(found)))
    }

    async fn first_since(&self, time: Timestamp) -> Result<Option<u64>, LogError> {
        if time >= TIME_MAX {
            return Ok(None);
        }
        let question = format!(r#"{{"start_time":"{time}","batch":1}}"#);
        let found = self.get_many(&self.names.log_stream(), &question).await?;
        Ok(found.entries.first().map(|entry| entry.sequence))
    }

    async fn ends(&self) -> Result<(u64, u64), LogError> {
        self.ends(&self.log).await
    }

    async fn time(&self) -> Result<Timestamp, LogError> {
        self.time().await
    }

    async fn room(&self) -> Result<Option<Room>, LogError> {
        self.room().await
    }

    async fn purge_before(&self, sequence: u64) -> Result<(), LogError> {
        self.purge_before(sequence).await
    }

    async fn values(&self, handler: &HandlerName, keys: &[Key], place: u64) -> Result<Vec<Value>, LogError> {
        values::of_keys(self, handler, keys, place).await
    }

    async fn write_values(&self, values: &[(HandlerName, Value)], in_hand_since: Duration) -> Result<u64, LogError> {
        values::write(self, values, in_hand_since).await
    }

    /// The server lets what was deleted go by itself.
    async fn values_written(&self, _version: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn value_sizes(
        &self,
        query: &StateQuery,
        _keys_max: usize,
        take: &mut (dyn FnMut(ValueSize) + Send),
    ) -> Result<(), LogError> {
        values::sizes(self, &query.handler, take).await
    }

    async fn values_end(&self) -> Result<u64, LogError> {
        Ok(self.ends(&self.state).await?.1)
    }

    async fn purge_values(&self, handler: &HandlerName, place: u64, _version: u64) -> Result<(), LogError> {
        self.purge_values(handler, place + 1).await
    }

    async fn put_letter(&self, handler: &HandlerName, number: u64, letter: Bytes) -> Result<(), LogError> {
        match self.publish(self.names.letter(handler, number), letter, Some(0)).await {
            // Another host copied it.
            Ok(_) | Err(PublishError::Stale) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn letter(&self, handler: &HandlerName, number: u64) -> Result<Option<Bytes>, LogError> {
        let found = self.last(&self.state, &self.names.letter(handler, number)).await?;
        Ok(found.map(|found| found.payload))
    }

    async fn letters(&self) -> Result<HashSet<(HandlerName, u64)>, LogError> {
        let subjects = self.subjects(&self.state, &self.names.all_letters()).await?;
        Ok(subjects.iter().filter_map(|subject| super::names::Names::letter_of(subject)).collect())
    }

    async fn drop_letter(&self, handler: &HandlerName, number: u64) -> Result<(), LogError> {
        self.purge_state(&self.names.letter(handler, number)).await
    }

    async fn put_snapshot(&self, sequence: u64, snapshot: Bytes) -> Result<u64, LogError> {
        snapshots::put(self, sequence, snapshot).await
    }

    async fn newest_snapshot(&self) -> Result<Option<Bytes>, LogError> {
        snapshots::newest(self).await
    }

    async fn put_module(
        &self,
        handler: &HandlerName,
        digest: Digest,
        said: Bytes,
        module: Bytes,
    ) -> Result<(), LogError> {
        modules::put(self, handler, digest, said, module).await
    }

    async fn module(&self, handler: &HandlerName, digest: Digest) -> Result<Option<Bytes>, LogError> {
        modules::get(self, handler, digest).await
    }

    async fn modules(&self) -> Result<Vec<(HandlerName, Digest, Bytes)>, LogError> {
        modules::all(self).await
    }

    async fn drop_module(&self, handler: &HandlerName, digest: Digest) -> Result<(), LogError> {
        modules::delete(self, handler, digest).await
    }

    async fn beat(&self, beat: Bytes) -> Result<(), LogError> {
        members::beat(self, beat).await
    }

    async fn listen(&self, members: Members) -> Result<BoxFuture<'static, ()>, LogError> {
        let heard = members::subscribe(self).await?;
        Ok(Box::pin(members::listen(self.clone(), heard, members)))
    }
}
