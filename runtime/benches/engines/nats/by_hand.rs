//! The consumer that a good engineer would write: a durable pull consumer with explicit acks, many messages in flight, each
//! acknowledged after the server answered the publishing of its output.

use super::Nats;
use crate::engine::{Engine as _, Took, Work};
use crate::order::Orders;
use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sluicebox::bench::{INPUT, OUTPUT, Used, body, key};
use sluicebox::clock;
use std::time::Duration;

/// Messages that are not acknowledged yet.
pub const IN_FLIGHT: usize = 256;
/// Publishes that are not answered yet, of whoever fills the stream.
const FILLING: usize = 1000;

/// A client that publishes fast: it awaits every answer, many at once.
async fn fill(context: &jetstream::Context, work: Work) -> anyhow::Result<()> {
    let published = (0..work.messages).map(|number| async move {
        let body = body(number, key(number, work.keys));
        context.publish(INPUT, body.into()).await?.await?;
        anyhow::Ok(())
    });
    stream::iter(published).buffer_unordered(FILLING).try_collect().await
}

/// Handles so many messages.
async fn consume(context: &jetstream::Context, messages: usize) -> anyhow::Result<()> {
    let config = pull::Config {
        durable_name: Some("order".into()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: i64::try_from(IN_FLIGHT)?,
        ..pull::Config::default()
    };
    let consumer = context.get_stream("input").await?.create_consumer(config).await?;
    let input = consumer.stream().max_messages_per_batch(IN_FLIGHT).messages().await?;
    let mut orders = Orders::default();
    let handled = input.map(|message| {
        // Here and not in the future: in the order of the stream.
        let handled = message.map_err(anyhow::Error::from).and_then(|message| {
            let accepted = orders.handle(&message.payload)?;
            Ok((message, accepted))
        });
        async move {
            let (message, accepted) = handled?;
            context.publish(OUTPUT, accepted.into()).await?.await?;
            message.ack().await.map_err(anyhow::Error::from_boxed)
        }
    });
    handled.buffer_unordered(IN_FLIGHT).take(messages).try_collect().await
}

pub async fn run(nats: &Nats, work: Work) -> anyhow::Result<Took> {
    nats.stream("input", INPUT).await?;
    nats.stream("output", OUTPUT).await?;
    let (publisher, consumer) = (nats.connect().await?, nats.connect().await?);
    if !work.publishing {
        fill(&publisher, work).await?;
    }
    let (began, used, server_used) = (clock::instant(), Used::now(), Used::of(nats.process()));
    let filling = tokio::spawn(async move { if work.publishing { fill(&publisher, work).await } else { Ok(()) } });
    let consuming = tokio::spawn(async move { consume(&consumer, work.messages).await });
    filling.await??;
    consuming.await??;
    Ok(Took {
        time: began.elapsed(),
        used: Used::now().since(&used),
        server_used: Used::of(nats.process()).since(&server_used),
    })
}

pub async fn latencies(nats: &Nats, messages: usize) -> anyhow::Result<Vec<Duration>> {
    nats.stream("input", INPUT).await?;
    let output = nats.stream("output", OUTPUT).await?;
    let (publisher, consumer) = (nats.connect().await?, nats.connect().await?);
    let consuming = tokio::spawn(async move { consume(&consumer, messages).await });
    let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
    let mut outputs = output.create_consumer(config).await?.messages().await?;
    let mut took = Vec::with_capacity(messages);
    for number in 0..messages {
        let began = clock::instant();
        publisher.publish(INPUT, body(number, key(number, messages)).into()).await?.await?;
        outputs.next().await.context("the consumer of outputs ended")??;
        took.push(began.elapsed());
    }
    consuming.await??;
    took.sort();
    Ok(took)
}
