//! The consumer that a good engineer would write: it reads many messages of its group at once, and publishes all outputs and
//! acknowledges in one pipeline.

use super::Redis;
use crate::engine::{Engine as _, Took, Work};
use crate::order::Orders;
use anyhow::Context as _;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use sluicebox::bench::{INPUT, OUTPUT, Used, body, key};
use sluicebox::clock;
use std::time::Duration;

/// Messages that are read, handled and acknowledged together.
pub const TOGETHER: usize = 256;
const GROUP: &str = "order";

/// An entry of a stream: its id and its body.
type Entry = (Vec<u8>, Vec<u8>);

async fn begin(redis: &Redis) -> anyhow::Result<()> {
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(INPUT).arg(GROUP).arg("0").arg("MKSTREAM");
    Ok(create.exec_async(&mut redis.connect().await?).await?)
}

fn publish(pipeline: &mut redis::Pipeline, stream: &str, body: &[u8]) {
    pipeline.cmd("XADD").arg(stream).arg("*").arg("d").arg(body).ignore();
}

/// A client that publishes fast.
async fn fill(mut connection: MultiplexedConnection, work: Work) -> anyhow::Result<()> {
    for first in (0..work.messages).step_by(TOGETHER) {
        let mut pipeline = redis::pipe();
        for number in first..work.messages.min(first + TOGETHER) {
            publish(&mut pipeline, INPUT, body(number, key(number, work.keys)).as_bytes());
        }
        pipeline.exec_async(&mut connection).await?;
    }
    Ok(())
}

/// Handles so many messages.
async fn consume(mut connection: MultiplexedConnection, messages: usize) -> anyhow::Result<()> {
    let mut orders = Orders::default();
    let mut handled = 0;
    while handled < messages {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(GROUP).arg("consumer").arg("COUNT").arg(TOGETHER).arg("BLOCK").arg(10_000);
        let entries = entries(&mut connection, read.arg("STREAMS").arg(INPUT).arg(">")).await?;
        let mut pipeline = redis::pipe();
        let mut acknowledge = redis::cmd("XACK");
        acknowledge.arg(INPUT).arg(GROUP);
        for (id, body) in &entries {
            publish(&mut pipeline, OUTPUT, &orders.handle(body)?);
            acknowledge.arg(&id[..]);
        }
        // After the outputs: a server that dies in between gives the messages out again.
        pipeline.add_command(acknowledge).ignore();
        pipeline.exec_async(&mut connection).await?;
        handled += entries.len();
    }
    Ok(())
}

/// What a read of one stream answers with.
async fn entries(connection: &mut MultiplexedConnection, read: &Cmd) -> anyhow::Result<Vec<Entry>> {
    let array = |value| match value {
        Value::Array(values) => values,
        _ => vec![],
    };
    let bytes = |value| match value {
        Some(Value::BulkString(bytes)) => Some(bytes),
        _ => None,
    };
    let streams = array(read.query_async::<Value>(connection).await?);
    let stream = streams.into_iter().next().context("nothing came for long")?;
    let found = array(array(stream).pop().context("a stream has entries")?);
    let entry = |entry| {
        let mut entry = array(entry);
        let fields = array(entry.pop()?);
        Some((bytes(entry.pop())?, bytes(fields.into_iter().nth(1))?))
    };
    found.into_iter().map(entry).collect::<Option<_>>().context("an entry has an id and a body")
}

pub async fn run(redis: &Redis, work: Work) -> anyhow::Result<Took> {
    begin(redis).await?;
    let (publisher, consumer) = (redis.connect().await?, redis.connect().await?);
    if !work.publishing {
        fill(publisher.clone(), work).await?;
    }
    let (began, used, server_used) = (clock::instant(), Used::now(), Used::of(redis.process()));
    let filling = tokio::spawn(async move { if work.publishing { fill(publisher, work).await } else { Ok(()) } });
    let consuming = tokio::spawn(consume(consumer, work.messages));
    filling.await??;
    consuming.await??;
    Ok(Took {
        time: began.elapsed(),
        used: Used::now().since(&used),
        server_used: Used::of(redis.process()).since(&server_used),
    })
}

pub async fn latencies(redis: &Redis, messages: usize) -> anyhow::Result<Vec<Duration>> {
    begin(redis).await?;
    let mut publisher = redis.connect().await?;
    let mut reader = redis.connect().await?;
    let consuming = tokio::spawn(consume(redis.connect().await?, messages));
    let mut took = Vec::with_capacity(messages);
    let mut seen = b"0".to_vec();
    for number in 0..messages {
        let began = clock::instant();
        let mut pipeline = redis::pipe();
        publish(&mut pipeline, INPUT, body(number, key(number, messages)).as_bytes());
        pipeline.exec_async(&mut publisher).await?;
        let mut read = redis::cmd("XREAD");
        read.arg("BLOCK").arg(10_000).arg("STREAMS").arg(OUTPUT).arg(&seen[..]);
        (seen, _) = entries(&mut reader, &read).await?.pop().context("an output")?;
        took.push(began.elapsed());
    }
    consuming.await??;
    took.sort();
    Ok(took)
}
