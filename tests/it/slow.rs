//! One slow handler delays nobody and costs no memory.

use crate::harness::guests::guest;
use crate::harness::process::{Place, Process};

/// Half of them fill the caches of the database; the other half must not make a difference.
const MESSAGES: usize = 200_000;

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

/// Resident memory of a process.
fn memory_bytes(host: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn a_slow_handler_delays_nobody_and_costs_no_memory() {
    let place = Place::new(SETTINGS, &[&guest("ledger")]);
    let host = place.start();
    let mut half_bytes = 0;
    for chunk in 0..MESSAGES / 2000 {
        let lines: String = (0..2000)
            .map(|number| {
                let key = (chunk * 2000 + number) % 5000;
                // A body of some size, so that what is held shows.
                format!("{{\"key\":\"k{key}\",\"body\":\"ok {}\"}}\n", "x".repeat(500))
            })
            .collect();
        let request =
            host.client.post(format!("{}/v1/topics/in", host.url)).header("content-type", "application/x-ndjson");
        let answer = request.body(lines).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        if chunk == MESSAGES / 2000 / 2 {
            half_bytes = memory_bytes(&host);
        }
    }
    host.until("the fast handler is done", async |host| done(host, "fast").await == MESSAGES as u64).await;
    let (slow, late_bytes) = (done(&host, "slow").await, memory_bytes(&host));
    println!("fast {MESSAGES}, slow {slow}; memory {half_bytes} bytes at half, {late_bytes} at the end");
    // Four at a time, 20 ms each: it cannot have come far; all it can cost is a few percent of a disturbed machine.
    assert!(slow > 0 && slow < MESSAGES as u64 / 4, "the slow handler did {slow}");
    // The bodies of the second half alone are 50 MB: what the slow one has not handled is not in memory.
    assert!(late_bytes < half_bytes + 24 * 1024 * 1024, "memory grew from {half_bytes} to {late_bytes} bytes");
}
