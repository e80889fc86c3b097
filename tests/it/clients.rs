//! What hostile clients cost a real host in memory, and whether another client notices.

use crate::harness::PATIENCE;
use crate::harness::guests::guest;
use crate::harness::process::{Place, Process};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const MESSAGES: usize = 40;
const BODY_BYTES: usize = 500_000;
/// What all of them together may cost (MiB), the sum of the host's bounds: room for bodies 128, tails with two messages each
/// 120, large answers 32, the caches of the database that they fill 112, buffers of the connections 60; and what an
/// allocator keeps of it. Without bounds the answers alone would take 4 GiB.
const GROWTH_MIB_MAX: u64 = 512;

/// Memory that the process has in use, in MiB.
fn resident_mib(host: &Process) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", host.pid())).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * rustix::param::page_size() as u64) >> 20
}

/// Connections that each send this and never read.
async fn open(host: &Process, count: usize, request: &str) -> Vec<TcpStream> {
    let address = host.url.strip_prefix("http://").unwrap();
    let mut streams = vec![];
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // As much as goes: a host that does not read it all is right.
        let _ = tokio::time::timeout(Duration::from_millis(20), stream.write_all(request.as_bytes())).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn slow_and_huge_clients_cost_little_memory_and_nobody_else_notices() {
    let settings = "[handlers.first]\nmodule = \"ledger.wasm\"\nsubscribe = [\"in\"]\npublish = [\"out\"]\nlimit = { body = \"1KiB\" }\n";
    let place = Place::new(settings, &[&guest("ledger")]);
    let host = place.start();
    let body = "x".repeat(BODY_BYTES);
    for _ in 0..MESSAGES {
        assert!(host.publish("in", None, None, &body).await);
    }
    host.until("all are dead letters", async |host| host.get("/v1/dead/count").await.contains(":40,")).await;
    // What the first look costs is not the clients' doing.
    host.get("/v1/dead").await;
    let before = resident_mib(&host);

    let head = "HTTP/1.1\r\nHost: localhost\r\n";
    let get = |path: &str| format!("GET {path} {head}\r\n");
    let post =
        |kind: &str| format!("POST /v1/topics/a {head}Content-Type: {kind}\r\nContent-Length: 520000\r\n\r\n{body}");
    let mut hostile = vec![];
    for (count, request) in [
        (120, get("/v1/topics/in/tail?from=earliest")),
        (80, get("/v1/dead").repeat(50)),
        (80, get("/metrics").repeat(1000)),
        (60, post("text/plain")),
        (60, post("application/x-ndjson")),
        (60, String::new()),
    ] {
        hostile.extend(open(&host, count, &request).await);
        let published = tokio::time::timeout(PATIENCE, host.publish("b", None, None, "1")).await;
        assert_eq!(published, Ok(true), "a publisher is kept out");
    }
    host.until("the tails are open", async |host| host.metric("http_tails").await == 120).await;
    let after = resident_mib(&host);
    println!("resident: {before} MiB before, {after} MiB with {} hostile connections", hostile.len());
    assert!(after.saturating_sub(before) < GROWTH_MIB_MAX, "{before} MiB became {after} MiB");
    drop(hostile);
    host.until("they are gone", async |host| host.metric("http_connections").await < 5).await;
}
