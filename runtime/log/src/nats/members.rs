//! Heartbeats over NATS: plain messages on a subject of the namespace that no stream takes.

use super::server::Server;
use crate::error::LogError;
use crate::members::Members;
use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt as _;
use std::time::Duration;

/// Between two tries to hear others, after the subscription ended.
const AGAIN: Duration = Duration::from_millis(500);

/// Asks to hear everyone from here on. The client asks again by itself whenever it connects anew.
pub(super) async fn subscribe(server: &Server) -> Result<Subscriber, LogError> {
    let subscribed = server.client.subscribe(server.names.members()).await;
    subscribed.map_err(|error| LogError::Unavailable { reason: format!("hosts cannot be heard: {error}") })
}

/// Hears until it is dropped.
pub(super) async fn listen(server: Server, mut subscriber: Subscriber, members: Members) {
    loop {
        while let Some(message) = subscriber.next().await {
            if let Err(error) = members.hear_encoded(message.payload) {
                tracing::debug!(%error, "a heartbeat of another host cannot be read");
            }
        }
        // It ends only with the client, or when the server refused it.
        tokio::time::sleep(AGAIN).await;
        match subscribe(&server).await {
            Ok(again) => subscriber = again,
            Err(error) => tracing::warn!(%error, "other hosts cannot be heard, trying again"),
        }
    }
}

pub(super) async fn beat(server: &Server, beat: Bytes) -> Result<(), LogError> {
    // What is sent without a connection would be sent when it is old.
    server.reachable()?;
    let bytes_max = server.payload_bytes_max();
    if beat.len() > bytes_max {
        let bytes = beat.len();
        return Err(LogError::Refused {
            reason: format!("a heartbeat takes {bytes} bytes, the server takes {bytes_max}: raise its `max_payload`"),
        });
    }
    let sent = server.client.publish(server.names.members(), beat).await;
    sent.map_err(|error| LogError::Unavailable { reason: format!("a heartbeat was not sent: {error}") })
}
