//! Question: what do reader, shards, pipeline and committer cost per message, without sandbox and without disk?
//! Expected: one to three microseconds, so that they never are the bottleneck beside the sandbox and SQLite.

use futures_util::future::BoxFuture;
use sluicebox::bench::{Identity, Load, OUTPUT, machine, run};
use sluicebox::effects::{Effects, Outgoing, StateWrite};
use sluicebox::handler::Digest;
use sluicebox::invoke::{Call, Failure, Invoke};
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::Headers;
use sluicebox::topic::Topic;
use std::sync::Arc;

/// Output + state + mark, as the benchmarks with Wasm do.
struct Native {
    output: Topic,
}

impl Invoke for Native {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Effects, Failure>> {
        let output = Outgoing {
            topic: self.output.clone(),
            key: call.key.clone(),
            id: None,
            headers: Headers::default(),
            body: call.message.body.clone(),
            delay: None,
        };
        let write = StateWrite { entry: "totals".into(), value: Some(call.message.body.slice(0..16)) };
        Box::pin(async move { Ok(Effects { outputs: vec![output], writes: vec![write], counts: vec![] }) })
    }

    fn uses_state(&self) -> bool {
        true
    }

    fn digest(&self) -> Option<Digest> {
        None
    }
}

fn main() -> anyhow::Result<()> {
    println!("pipeline over the in-memory log, native handler, 10,000 keys, 100-byte body: {}", machine());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for shards in [1, 8] {
        for publishing in [false, true] {
            let invoke = Arc::new(Native { output: Topic::parse(OUTPUT)? });
            let identity = Identity::Given;
            let load = Load { identity, shards, publishing, ..Load::new(500_000, invoke) };
            let ran = runtime.block_on(run(Arc::new(MemoryLog::new()), &load))?;
            let took = ran.took;
            let rate = load.messages as f64 / took.as_secs_f64();
            println!("shards {shards}, publishing in the time: {publishing:5}  {rate:>10.0} messages/s");
        }
    }
    Ok(())
}
