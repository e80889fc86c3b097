//! The connection over which messages go out, and whether what was published over it was passed on.
//!
//! The server takes what comes over a connection in order, so once an echo that was published later came back, all before it
//! was passed on or refused, and what was refused was told. One echo answers for all who wait.

use crate::edges::SinkError;
use crate::error::LogError;
use crate::nats::names::Names;
use crate::nats::options::{Connection, Options};
use crate::nats::told::Told;
use async_nats::client::Client;
use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use sluicebox_core::topic::Pattern;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, watch};

/// How long the server may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// Stands for any token of a pattern.
const SAMPLE: &str = "sluicebox-asks";
const CUT: &str = "the connection was cut, and what was sent may be lost";

/// One connection, which is not the same any more once the client made it anew.
pub(super) struct Wire {
    pub(super) client: Client,
    pub(super) context: Context,
    told: Told,
    _connection: Connection,
    id: Id,
    /// Where echoes go. Nobody reads there: the second one and all after it are told to find it full.
    echo: String,
    _unread: Subscriber,
    /// Echoes that were sent, but for the first.
    sent: AtomicU64,
    asked: AtomicU64,
    /// Who asked up to here was answered.
    answered: AsyncMutex<u64>,
    is_left: AtomicBool,
}

/// Another one after each time that a connection is made.
type Id = (String, u64);

fn id(client: &Client) -> Id {
    let info = client.server_info();
    (info.server_id, info.client_id)
}

/// Whether the server passed something on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Yes,
    Refused,
    /// So much was refused that not all of it was told.
    Unsure,
}

impl Wire {
    pub(super) async fn open(options: &Options) -> Result<Self, LogError> {
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable { reason: error.to_string() };
        let connection = options.connect_unread().await?;
        let (client, told) = (connection.client.clone(), connection.told.clone());
        let id = id(&client);
        let echo = Names::new(&options.namespace).echo(rand::random());
        let unread = client.subscribe(echo.clone()).await.map_err(|error| unavailable(&error))?;
        client.publish(echo.clone(), Bytes::new()).await.map_err(|error| unavailable(&error))?;
        let context = jetstream::new(client.clone());
        let (sent, asked, answered, is_left) = Default::default();
        Ok(Self {
            client,
            context,
            told,
            _connection: connection,
            id,
            echo,
            _unread: unread,
            sent,
            asked,
            answered,
            is_left,
        })
    }

    /// Nothing more goes over it once it was cut, or an echo did not come back.
    pub(super) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire) || id(&self.client) != self.id
    }

    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Release);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What the server did not permit, from the beginning.
    pub(super) fn denied(&self) -> watch::Receiver<Option<String>> {
        self.told.denied.clone()
    }

    /// The first of these patterns to which nothing may be published, by one subject of each. Nobody gets what is asked with: it
    /// is for being traced alone, and nobody is where traces go.
    pub(super) async fn first_denied<'a>(
        &self,
        names: &Names,
        patterns: &'a [Pattern],
    ) -> Result<Option<&'a Pattern>, SinkError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Trace-Dest", names.nothing());
        headers.insert("Nats-Trace-Only", "true");
        for pattern in patterns {
            let subject = pattern.as_str().replace(['*', '>'], SAMPLE);
            let place = self.place();
            let sent = self.client.publish_with_headers(subject.clone(), headers.clone(), Bytes::new());
            sent.await.map_err(|error| SinkError::Away(error.to_string()))?;
            if self.passed(&subject, place).await? == Passed::Refused {
                return Ok(Some(pattern));
            }
        }
        Ok(None)
    }

    /// What is published from here on is refused after this place.
    pub(super) fn place(&self) -> u64 {
        self.told.refusals.borrow().place()
    }

    /// Returns once something that was published on the subject after this place was refused, for what is answered otherwise.
    pub(super) async fn refused(&self, subject: &str, after: u64) {
        let mut refusals = self.told.refusals.clone();
        if refusals.wait_for(|refusals| refusals.holds(subject, after)).await.is_err() {
            std::future::pending().await
        }
    }

    /// What became of all that was published on the subject after this place, and before this was asked.
    pub(super) async fn passed(&self, subject: &str, after: u64) -> Result<Passed, SinkError> {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let mut answered = self.answered.lock().await;
        if *answered < asked {
            if self.is_left() {
                return Err(SinkError::Away(CUT.to_owned()));
            }
            let upto = self.asked.load(Ordering::Acquire);
            let echoed = tokio::time::timeout(ANSWER, self.echoed()).await;
            echoed.map_err(|_| "the server does not answer".to_owned()).flatten().map_err(|reason| {
                // Whether echoes that are late are of before or after nobody could say.
                self.leave();
                SinkError::Away(reason)
            })?;
            *answered = upto;
        }
        drop(answered);
        if self.is_left() {
            return Err(SinkError::Away(CUT.to_owned()));
        }
        let refusals = self.told.refusals.borrow();
        Ok(if refusals.holds(subject, after) {
            Passed::Refused
        } else if refusals.may_miss(after) {
            Passed::Unsure
        } else {
            Passed::Yes
        })
    }

    /// Returns when an echo came back that was sent after this was called. One at a time. Safe to cancel: all that were sent
    /// are counted, and this one is back when as many are.
    async fn echoed(&self) -> Result<(), String> {
        let mut refusals = self.told.refusals.clone();
        let sent = self.client.publish(self.echo.clone(), Bytes::new());
        sent.await.map_err(|error| error.to_string())?;
        let number = self.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let back = refusals.wait_for(|refusals| refusals.echoes() >= number).await;
        back.map(drop).map_err(|_| CUT.to_owned())
    }
}
