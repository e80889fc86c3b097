//! Heartbeats over a channel of the server.

use super::server::Server;
use crate::error::LogError;
use crate::members::Members;
use futures_util::StreamExt as _;
use redis::aio::PubSub;
use std::time::Duration;

/// Between two tries to hear others, after the subscription ended.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a connection may take to be made and the channel to be joined.
const JOIN: Duration = Duration::from_secs(5);

/// Asks to hear everyone from here on.
pub(super) async fn subscribe(server: &Server) -> Result<PubSub, LogError> {
    let subscribed = tokio::time::timeout(JOIN, async {
        let mut heard = server.client.get_async_pubsub().await?;
        heard.subscribe(server.key("members")).await?;
        Ok::<_, redis::RedisError>(heard)
    });
    let unavailable = |reason: String| LogError::Unavailable { reason: format!("hosts cannot be heard: {reason}") };
    match subscribed.await {
        Ok(subscribed) => subscribed.map_err(|error| unavailable(error.to_string())),
        Err(_) => Err(unavailable("the server does not answer".into())),
    }
}

/// Hears until it is dropped.
pub(super) async fn listen(server: Server, mut heard: PubSub, members: Members) {
    loop {
        let mut messages = heard.on_message();
        while let Some(message) = messages.next().await {
            if let Err(error) = members.hear_encoded(message.get_payload_bytes().to_vec().into()) {
                tracing::debug!(%error, "a heartbeat of another host cannot be read");
            }
        }
        drop(messages);
        // The connection ended.
        heard = loop {
            tokio::time::sleep(AGAIN).await;
            match subscribe(&server).await {
                Ok(heard) => break heard,
                Err(error) => tracing::debug!(%error, "other hosts cannot be heard, trying again"),
            }
        };
    }
}
