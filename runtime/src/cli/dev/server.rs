//! Whether the server of the log is there: whoever develops is told in one line what to start, and how.

use crate::cli::failure::Failure;
use crate::config::LogSettings;
use anyhow::anyhow;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A server that is there answers at once; one that is far away may take so long.
const WAIT: Duration = Duration::from_secs(3);
const NATS_PORT: u16 = 4222;
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A failure that says what to start, if nobody listens.
pub(super) fn check_there(log: &LogSettings) -> Result<(), Failure> {
    let (name, url, port, command) = match log {
        LogSettings::Embedded { .. } => return Ok(()),
        LogSettings::Nats { url, .. } => ("NATS server", url, NATS_PORT, "nats-server -js -sd nats-data"),
        LogSettings::Redis { url, .. } => {
            ("Redis server", url, redis_port(url), "redis-server --appendonly yes --appendfsync always")
        }
    };
    if url.split(',').any(|url| is_there(url.trim(), port)) {
        return Ok(());
    }
    Err(anyhow!("no {name} listens at {url}: start one with `{command}` and then this again").into())
}

/// Where it listens unless the address says.
fn redis_port(url: &str) -> u16 {
    let is_of_sentinels = url.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("+sentinel"));
    if is_of_sentinels { SENTINEL_PORT } else { REDIS_PORT }
}

fn is_there(url: &str, port: u16) -> bool {
    if let Some(path) = url.strip_prefix("unix://") {
        return UnixStream::connect(path.split('?').next().unwrap_or(path)).is_ok();
    }
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split(['/', '?']).next().unwrap_or(rest);
    // An address of IPv6 has colons within its brackets.
    let place = if place.ends_with(']') || !place.contains(':') { format!("{place}:{port}") } else { place.to_owned() };
    let Ok(addresses) = place.to_socket_addrs() else { return false };
    addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, WAIT).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_by_its_address_with_or_without_a_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_there(&format!("nats://127.0.0.1:{port}"), 1));
        assert!(is_there("tls://127.0.0.1", port));
        assert!(is_there(&format!("redis://127.0.0.1:{port}/3"), 1));
        assert!(is_there(&format!("redis+sentinel://127.0.0.1:{port}/mine"), 1));
        drop(listener);
        assert!(!is_there(&format!("nats://127.0.0.1:{port}"), 1));
        assert!(!is_there("unix:///nowhere/at/all", 1));
    }

    #[test]
    fn sentinels_without_a_port_are_on_their_own() {
        for (url, port) in
            [("redis://a/3", 6379), ("redis+sentinel://a,b/mine", 26379), ("rediss+sentinel://a/m", 26379)]
        {
            assert_eq!(redis_port(url), port, "{url}");
        }
    }
}
