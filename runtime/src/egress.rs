//! Publishes committed messages to plain clients of the log's engine: the code of the host's own handler for it.
//!
//! It is a handler like any other, so its records are the positions, keys keep their order, and what is not published yet
//! holds old messages back. A message is published at least once: after a kill some may be published again, with the same
//! id. What the sink does not take now is tried for ever, and only later messages of its key wait; what it can never take is
//! a dead letter.

use crate::effects::Effects;
use crate::handler::{Digest, Policy, Retry};
use crate::invoke::{Call, Failure, Invoke};
use crate::log::edges::{Sink, SinkError};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Messages on their way at a time: enough to fill the time until a server answers.
const CONCURRENCY: usize = 512;

/// The code of the host's own handler.
pub struct Egress {
    sink: Arc<dyn Sink>,
}

impl Egress {
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }

    /// How its messages are treated.
    pub fn policy() -> Policy {
        Policy {
            // What comes twice was committed twice.
            dedup: None,
            retry: Retry { attempts: u32::MAX, ..Retry::default() },
            // While the sink is away nothing is an attempt; and one stream that takes nothing says nothing about others.
            breaker: None,
            concurrency: CONCURRENCY,
            ..Policy::default()
        }
    }
}

impl Invoke for Egress {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let published = self.sink.publish(call.message);
        let result = |published: Result<(), SinkError>| match published {
            Ok(()) => Ok(Effects::default()),
            Err(SinkError::Away(reason)) => Err(Failure::Host { reason }),
            Err(SinkError::Refused(reason)) => Err(Failure::Retry { reason, after: None }),
            Err(SinkError::Impossible(reason)) => Err(Failure::Reject { reason }),
        };
        published.map(result).boxed()
    }

    fn uses_state(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}
