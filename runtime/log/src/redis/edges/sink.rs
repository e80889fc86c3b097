//! Publishes to channels. The message is its body alone, as subscribers of Redis expect it: who needs more has it in the body.
//! The server keeps nothing of it: who does not listen at that moment does not get it.

use crate::edges::{Sink, SinkError};
use crate::redis::RedisLog;
use crate::redis::failure::Failure;
use crate::redis::server::Server;
use futures_util::future::BoxFuture;
use sluicebox_core::message::Message;
use std::sync::Arc;

/// The channels of a Redis server.
pub struct RedisSink(Server);

impl RedisSink {
    /// Those of the server that has the log.
    pub fn beside(log: &RedisLog) -> Self {
        Self(log.engine().clone())
    }
}

impl Sink for RedisSink {
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, Result<(), SinkError>> {
        let server = self.0.clone();
        Box::pin(async move {
            let mut command = redis::cmd("PUBLISH");
            command.arg(message.topic.as_str()).arg(&message.body[..]);
            server.ask(&command).await.map(drop).map_err(|failure| match failure {
                Failure::Denied(reason) => SinkError::Refused(format!(
                    "{reason}: let the user of the host have `&{}`, or a pattern of channels with it",
                    message.topic
                )),
                // It says nothing about this message.
                other => SinkError::Away(other.reason()),
            })
        })
    }
}
