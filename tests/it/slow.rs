//! One slow handler delays nobody and costs no memory.

use crate::harness::guests::guest;
use crate::harness::process::{Place, Process};

/// Half of them fill every bounded queue and cache; the other half must not make a difference. With bodies of
/// [`BODY_BYTES`] the second half alone is a multiple of what an allocator keeps or gives back as it likes.
const MESSAGES: usize = 120_000;
const BODY_BYTES: usize = 4096;

const SETTINGS: &str = r#"
[handlers.slow]
module = "ledger.wasm"
subscribe = ["in"]
key = ["/key"]
start = "earliest"
publish = ["out.slow"]
limit = { concurrency = 4 }
config = { output = "out.slow", wait_ms = 20 }

[handlers.fast]
module = "ledger.wasm"
subscribe = ["in"]
key = ["/key"]
start = "earliest"
publish = ["out.fast"]
sandbox = "warm"
config = { output = "out.fast" }
"#;

async fn done(host: &Process, handler: &str) -> u64 {
    host.metric(&format!(r#"messages_total{{handler="{handler}",outcome="done",topic="in"}}"#)).await
}

/// Memory of a process that is no file's: pages of mapped files come and go with the machine's cache.
fn memory_bytes(host: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_slow_handler_delays_nobody_and_costs_no_memory() {
    let place = Place::new(SETTINGS, &[&guest("ledger")]);
    let host = place.start();
    let mut half_bytes = 0;
    for chunk in 0..MESSAGES / 1000 {
        let lines: String = (0..1000)
            .map(|number| {
                let key = (chunk * 1000 + number) % 5000;
                format!("{{\"key\":\"k{key}\",\"body\":\"ok {}\"}}\n", "x".repeat(BODY_BYTES))
            })
            .collect();
        let request =
            host.client.post(format!("{}/v1/topics/in", host.url)).header("content-type", "application/x-ndjson");
        let answer = request.body(lines).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        if chunk == MESSAGES / 1000 / 2 {
            half_bytes = memory_bytes(&host);
        }
    }
    host.until("the fast handler is done", async |host| done(host, "fast").await == MESSAGES as u64).await;
    let (slow, late_bytes) = (done(&host, "slow").await, memory_bytes(&host));
    println!("fast {MESSAGES}, slow {slow}; memory {half_bytes} bytes at half, {late_bytes} at the end");
    // Four at a time, 20 ms each: it cannot have come far; all it can cost is a few percent of a disturbed machine.
    assert!(slow > 0 && slow < MESSAGES as u64 / 4, "the slow handler did {slow}");
    // The slow one has handled next to nothing of the second half (240 MB), and its bodies are not in memory.
    let second_half_bytes = (MESSAGES / 2 * BODY_BYTES) as u64;
    assert!(late_bytes < half_bytes + second_half_bytes / 3, "memory grew from {half_bytes} to {late_bytes} bytes");
}
