//! Heartbeats over a channel of the server.

use super::server::Server;
use crate::error::LogError;
use crate::members::Members;
use futures_util::StreamExt as _;
use redis::aio::{PubSubSink, PubSubStream};
use std::time::Duration;

/// Between two tries to hear others, after the subscription ended.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a connection may take to be made and the channel to be joined.
const JOIN: Duration = Duration::from_secs(5);

/// When nobody is heard for so long, this host's own heartbeats neither, the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

/// A connection that joined the channel.
pub(super) struct Heard {
    sink: PubSubSink,
    stream: PubSubStream,
}

/// Asks to hear everyone from here on.
pub(super) async fn subscribe(server: &Server) -> Result<Heard, LogError> {
    let subscribed = tokio::time::timeout(JOIN, async {
        let (mut sink, stream) = server.subscriber().await?.split();
        sink.subscribe(server.key("members"))
            .await
            .map_err(|error| LogError::Unavailable { reason: error.to_string() })?;
        Ok::<_, LogError>(Heard { sink, stream })
    });
    let unavailable = |reason: String| LogError::Unavailable { reason: format!("hosts cannot be heard: {reason}") };
    match subscribed.await {
        Ok(subscribed) => subscribed.map_err(|error| unavailable(error.to_string())),
        Err(_) => Err(unavailable("the server does not answer".into())),
    }
}

/// Hears until it is dropped.
pub(super) async fn listen(server: Server, mut heard: Heard, members: Members) {
    loop {
        heard.until_it_ends(&members).await;
        heard = loop {
            tokio::time::sleep(AGAIN).await;
            match subscribe(&server).await {
                Ok(heard) => break heard,
                Err(error) => tracing::debug!(%error, "other hosts cannot be heard, trying again"),
            }
        };
    }
}

impl Heard {
    async fn until_it_ends(&mut self, members: &Members) {
        loop {
            let Self { sink, stream } = self;
            let silence = async {
                tokio::time::sleep(SILENCE).await;
                tokio::time::timeout(ANSWER, sink.ping::<redis::Value>()).await
            };
            tokio::select! {
                // Safe to cancel, both: what comes is handed over whole.
                message = stream.next() => {
                    let Some(message) = message else { return };
                    if let Err(error) = members.hear_encoded(message.get_payload_bytes().to_vec().into()) {
                        tracing::debug!(%error, "a heartbeat of another host cannot be read");
                    }
                }
                answer = silence => if !matches!(answer, Ok(Ok(_))) {
                    return tracing::debug!("the server is silent, so other hosts are heard over another connection");
                }
            }
        }
    }
}
