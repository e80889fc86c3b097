//! What is checked before anything is done on a server, and what it promises.

use super::failure::Failure;
use crate::contract::Guarantees;
use crate::error::LogError;
use redis::aio::MultiplexedConnection;
use std::collections::HashMap;

/// The first version with functions. Valkey began after it.
const VERSION_MIN: u64 = 7;
/// What is said of a replica.
pub(super) const REPLICA: &str = "is a replica";

/// What the server does with what it acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Durability {
    synced: Synced,
    replicas: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Synced {
    /// `appendonly no`.
    Never,
    /// `appendfsync no`: when the system likes.
    Sometime,
    EverySecond,
    Always,
    /// Who connects may not ask.
    Unknown,
}

/// An error where the server cannot keep a log.
pub(super) async fn check(connection: &mut MultiplexedConnection, address: &str) -> Result<Durability, LogError> {
    let text: String = redis::cmd("INFO").query_async(connection).await.map_err(|error| denied(error, address))?;
    let info = parse(&text);
    let config = redis::cmd("CONFIG").arg("GET").arg("appendfsync").query_async::<Vec<String>>(connection).await;
    // Who may not ask for it goes without.
    let appendfsync = config.ok().and_then(|found| found.into_iter().nth(1));
    judge(&info, appendfsync.as_deref(), address)
}

fn denied(error: redis::RedisError, address: &str) -> LogError {
    match Failure::from(error) {
        Failure::Denied(reason) => LogError::Refused {
            reason: format!(
                "the server at {address} does not let this host in: {reason}; set `login` in [log], and let the user have \
                 `~sb:* &sb:* +@all -@dangerous +info +config|get +function|list +function|load`"
            ),
        },
        other => other.into(),
    }
}

fn parse(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

fn judge(info: &HashMap<&str, &str>, appendfsync: Option<&str>, address: &str) -> Result<Durability, LogError> {
    let refused = |reason: String| Err(LogError::Refused { reason: format!("the server at {address} {reason}") });
    let is = |name: &str, value: &str| info.get(name) == Some(&value);
    let version = info.get("redis_version").copied().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|number| number.parse::<u64>().ok());
    if major.is_none_or(|major| major < VERSION_MIN) {
        return refused(format!("has version {version}, {VERSION_MIN}.0 or newer is needed: update it"));
    }
    if is("cluster_enabled", "1") {
        return refused("is part of a cluster, which is not supported: name a server with `cluster-enabled no`".into());
    }
    if is("role", "slave") {
        let master = info.get("master_host").zip(info.get("master_port"));
        let master = master.map(|(host, port)| format!(" of {host}:{port}")).unwrap_or_default();
        return refused(format!("{REPLICA}{master}, which takes no writes: name that one in `url`"));
    }
    if is("loading", "1") {
        return Err(LogError::Unavailable { reason: format!("the server at {address} is still loading its data") });
    }
    if let Some(policy) = info.get("maxmemory_policy").filter(|policy| **policy != "noeviction") {
        return refused(format!(
            "throws keys away when its memory is full (maxmemory-policy is {policy}): change it with `redis-cli CONFIG \
             SET maxmemory-policy noeviction`, and in its configuration"
        ));
    }
    let synced = match (is("aof_enabled", "1"), appendfsync) {
        (false, _) => Synced::Never,
        (true, Some("always")) => Synced::Always,
        (true, Some("everysec")) => Synced::EverySecond,
        (true, Some("no")) => Synced::Sometime,
        (true, _) => Synced::Unknown,
    };
    let replicas = info.get("connected_slaves").and_then(|number| number.parse().ok()).unwrap_or(0);
    Ok(Durability { synced, replicas })
}

impl Durability {
    pub(super) fn guarantees(&self) -> Guarantees {
        let when_it_ends = match self.synced {
            Synced::Never => {
                "the server has `appendonly no`: when it ends, all that is acknowledged may be lost, and hosts that had \
                 more of the log than it then has stop; set appendonly yes"
            }
            Synced::Sometime => {
                "the server has `appendfsync no`: kill -9 of it loses nothing, loss of power may lose half a minute"
            }
            Synced::EverySecond => {
                "the server has `appendfsync everysec`: kill -9 of it may lose its last second, and so may loss of power; \
                 set appendfsync always for the full promise"
            }
            Synced::Always => {
                "the server has `appendfsync always`: what is acknowledged outlives kill -9 of it, and loss of power as \
                 far as its disk keeps what it synced"
            }
            Synced::Unknown => {
                "this host may not ask the server for `appendfsync`: unless that is always, the last second may be lost \
                 with it"
            }
        };
        let failover = match self.replicas {
            0 => "",
            _ => "; a replica that takes over may be without what was acknowledged last",
        };
        Guarantees {
            kind: "redis",
            // The host's; that of the server is in the summary.
            survives_process_death: true,
            survives_power_loss: self.synced == Synced::Always && self.replicas == 0,
            times_never_fall: true,
            several_hosts: true,
            lag_is_exact: false,
            measures_bytes: false,
            summary: format!("{when_it_ends}{failover}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\ncluster_enabled:0\r\nrole:master\r\nloading:0\r\n\
                        maxmemory_policy:noeviction\r\naof_enabled:1\r\nconnected_slaves:0\r\n";

    #[track_caller]
    fn refused(from: &str, to: &str, said: &[&str]) {
        let text = GOOD.replace(from, to);
        let error = judge(&parse(&text), Some("always"), "redis://a").unwrap_err().to_string();
        assert!(said.iter().all(|said| error.contains(said)), "{error}");
    }

    #[test]
    fn a_server_that_cannot_keep_a_log_is_refused_with_what_mends_it() {
        refused("7.0.15", "6.2.1", &["redis://a", "6.2.1", "7.0 or newer"]);
        refused("cluster_enabled:0", "cluster_enabled:1", &["cluster-enabled no"]);
        refused("role:master", "role:slave\r\nmaster_host:b\r\nmaster_port:7", &["a replica of b:7", "`url`"]);
        refused("loading:0", "loading:1", &["loading"]);
        refused("noeviction", "allkeys-lru", &["allkeys-lru", "CONFIG SET maxmemory-policy noeviction"]);
    }

    /// What one says of itself, as far as it differs.
    #[test]
    fn valkey_is_as_good() {
        let text = GOOD.replace("7.0.15", "7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1");
        assert!(judge(&parse(&text), Some("always"), "redis://a").is_ok());
    }

    #[test]
    fn what_the_server_keeps_is_what_is_promised() {
        let promise = |from: &str, to: &str, appendfsync| {
            let text = GOOD.replace(from, to);
            let guarantees = judge(&parse(&text), appendfsync, "redis://a").unwrap().guarantees();
            (guarantees.survives_power_loss, guarantees.summary)
        };
        let (always, summary) = promise("", "", Some("always"));
        assert!(always && summary.contains("always"), "{summary}");
        for (from, to, appendfsync, said) in [
            ("", "", Some("everysec"), "last second"),
            ("", "", Some("no"), "half a minute"),
            ("", "", None, "may not ask"),
            ("aof_enabled:1", "aof_enabled:0", Some("always"), "all that is acknowledged may be lost"),
            ("connected_slaves:0", "connected_slaves:2", Some("always"), "a replica that takes over"),
        ] {
            let (survives, summary) = promise(from, to, appendfsync);
            assert!(!survives && summary.contains(said), "{summary}");
        }
    }
}
