//! The edges of a log: where plain clients of its engine, which know nothing of it, send messages in and get them.
//!
//! A [`Source`] is a durable, ordered place beside the log where such clients publish. Whoever takes it up remembers the
//! [`Position`] together with what was taken, in one commit, so that a message which is delivered twice is taken once. A
//! [`Sink`] publishes a message to such clients, after its commit. Neither makes anything of the log durable.

use crate::error::LogError;
use futures_util::future::BoxFuture;
use sluicebox_core::message::{Message, NewMessage};
use std::fmt;
use std::sync::Arc;

/// How far a source was taken up; its text is the source's own business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub String);

/// Where plain clients send messages in.
pub trait Source: Send + Sync + 'static {
    /// What people call it.
    fn name(&self) -> String;

    /// Everything after this position, or everything that is there.
    fn read_after(&self, position: Option<Position>) -> BoxFuture<'_, Result<Box<dyn Arrivals>, LogError>>;

    /// What is taken up to here is durable in the log: the source may let go of it when it is old.
    fn taken(&self, position: Position) -> BoxFuture<'_, Result<(), LogError>>;

    /// How many messages it had from who does not wait until they are taken, and could not keep until then; perhaps some of
    /// them were taken.
    fn lost(&self) -> u64 {
        0
    }
}

/// What arrives, in the order of the source.
pub trait Arrivals: Send {
    /// The next ones, never none. Safe to cancel. After an error the source is to be read anew.
    fn next(&mut self) -> BoxFuture<'_, Result<Arrived, LogError>>;
}

/// Some messages, few enough for one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub messages: Vec<Result<NewMessage, Unfit>>,
    /// All of them are up to here.
    pub upto: Position,
    /// Messages in the source after these, about.
    pub waiting: u64,
}

/// Something that no message of the log can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Where it is: enough to get it from the source; empty where it is nowhere.
    pub place: String,
    /// Where it was published to, as far as that can be said.
    pub subject: String,
    pub bytes: usize,
    pub reason: String,
}

/// Where plain clients get messages.
pub trait Sink: Send + Sync + 'static {
    /// Publishes it; the engine has it when this returns. After an error, or when it is dropped, it may have been published.
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, Result<(), SinkError>>;
}

/// Why a message may not have been published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkError {
    /// The engine does not take anything now, which says nothing about the message.
    Away(String),
    /// It did not take this message now.
    Refused(String),
    /// It can never take this message.
    Impossible(String),
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(reason) | Self::Refused(reason) | Self::Impossible(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for SinkError {}
