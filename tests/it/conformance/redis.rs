//! What is particular to the log on Redis: what the server answers when it cannot, and what is done when it has lost
//! something.

use crate::harness::logs::{commit, message, shard};
use crate::harness::redis::{Options, OwnServer, fresh_namespace, open_own, options};
use crate::harness::{PATIENCE, everything};
use sluicebox::commit::{CommitError, ShardCommit};
use sluicebox::log::redis::{Login, RedisLog};
use sluicebox::log::{Log, LogError};
use sluicebox::message::Offset;
use std::path::Path;
use std::sync::Arc;

const NAMESPACE: &str = "t";

fn open(server: &OwnServer) -> Arc<RedisLog> {
    open_own(Options::new(server.url(), NAMESPACE)).unwrap()
}

async fn append(log: &RedisLog, body: &str) -> Result<Offset, LogError> {
    log.append(vec![message("a", body.to_owned())]).await.map(|offsets| offsets[0])
}

async fn bodies(log: &RedisLog) -> Vec<String> {
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    everything(log).await.iter().map(|message| text(&message.body)).collect()
}

/// Tries until it is taken.
async fn append_when_it_goes(log: &RedisLog, body: &str) {
    let appended = async {
        while append(log, body).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, appended).await.expect("it does not go on");
}

/// Waits until the log ended, and says why.
async fn ended(log: &RedisLog) -> String {
    let end = async {
        // One that ended already has no tail.
        if let Ok(mut tail) = log.tail().await {
            while tail.next().await.is_some() {}
        }
    };
    tokio::time::timeout(PATIENCE, end).await.expect("it goes on");
    log.end().await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_server_that_was_emptied_ends_the_log_and_it_is_not_begun_anew_under_a_host() {
    let server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.ask(&["FLUSHALL"]);
    assert!(append(&log, "2").await.is_err());
    let reason = ended(&log).await;
    assert!(reason.contains("the log is not there any more") && reason.contains("start it again"), "{reason}");
    assert!(append(&log, "3").await.is_err());
    assert_eq!(server.ask(&["EXISTS", "sb:{t}:log", "sb:{t}:meta"]), ":0\r\n", "nothing was written again");
    // Who starts now begins anew.
    assert_eq!(bodies(&open(&server)).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_stream_that_was_deleted_ends_the_log() {
    let server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.ask(&["DEL", "sb:{t}:log"]);
    assert!(append(&log, "2").await.is_err());
    let reason = ended(&log).await;
    assert!(reason.contains("its stream is not there any more"), "{reason}");
    let reason = open_own(Options::new(server.url(), NAMESPACE)).map(drop).unwrap_err().to_string();
    assert!(reason.contains("its stream is not there any more"), "{reason}");
}

#[tokio::test]
async fn functions_that_were_deleted_are_loaded_again_and_the_log_goes_on() {
    let server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.ask(&["FUNCTION", "FLUSH"]);
    append_when_it_goes(&log, "2").await;
    assert_eq!(bodies(&log).await, ["1", "2"]);
}

#[tokio::test]
async fn hosts_that_begin_a_log_at_the_same_time_begin_one() {
    let server = OwnServer::start();
    let opened: Vec<_> = (0..8)
        .map(|_| {
            let options = Options::new(server.url(), NAMESPACE);
            std::thread::spawn(move || open_own(options))
        })
        .collect();
    let logs: Vec<_> = opened.into_iter().map(|log| log.join().unwrap().unwrap()).collect();
    for (number, log) in logs.iter().enumerate() {
        append(log, &number.to_string()).await.unwrap();
    }
    assert_eq!(bodies(&open(&server)).await.len(), 8);
}

fn copy(from: &Path, to: &Path) {
    drop(std::fs::remove_dir_all(to));
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_came_back_without_the_end_of_the_log_ends_it_for_who_had_more() {
    let mut server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    let (data, older) = (server.folder().join("appendonlydir"), server.folder().join("older"));
    copy(&data, &older);
    append(&log, "lost").await.unwrap();
    server.kill();
    copy(&older, &data);
    server.start_again();
    let reason = ended(&log).await;
    assert!(reason.contains("its end is lost: it ends with entry"), "{reason}");
    // Who starts now goes on with what is there.
    let again = open(&server);
    append(&again, "2").await.unwrap();
    assert_eq!(bodies(&again).await, ["1", "2"]);
}

#[tokio::test]
async fn a_stream_that_somebody_else_writes_to_ends_the_log_with_that_reason() {
    let server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.ask(&["XADD", "sb:{t}:log", "*", "field", "value"]);
    let reason = ended(&log).await;
    assert!(reason.contains("somebody else writes to the stream"), "{reason}");
}

#[tokio::test]
async fn without_memory_nothing_new_is_taken_and_afterwards_it_goes_on() {
    let server = OwnServer::start();
    let log = open(&server);
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    append(&log, "1").await.unwrap();
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    match append(&log, "2").await {
        Err(LogError::Full { reason }) => assert!(reason.contains("memory"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let refused = log.commit(commit(&id, claim.term, 1)).await;
    assert!(matches!(&refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
    // A host may start, read, and make room.
    let other = open(&server);
    assert_eq!(bodies(&other).await, ["1"]);
    let routings = other.routings().await.unwrap();
    other.put_routings(routings.version, routings.routings).await.unwrap();
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    append(&log, "3").await.unwrap();
    assert!(log.commit(commit(&id, claim.term, 1)).await.is_ok());
    assert_eq!(bodies(&log).await, ["1", "3"]);
}

#[tokio::test]
async fn a_key_of_another_type_refuses_every_write_and_nothing_is_half_written() {
    let server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.ask(&["RENAME", "sb:{t}:last", "sb:{t}:kept"]);
    server.ask(&["SET", "sb:{t}:last", "text"]);
    for _ in 0..3 {
        match append(&log, "2").await {
            Err(LogError::Unavailable { reason }) => assert!(reason.contains("WRONGTYPE"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    server.ask(&["RENAME", "sb:{t}:kept", "sb:{t}:last"]);
    append(&log, "3").await.unwrap();
    assert_eq!(bodies(&log).await, ["1", "3"]);
}

#[tokio::test]
async fn a_server_that_became_a_replica_takes_nothing_and_the_log_goes_on_when_it_is_none() {
    let (server, master) = (OwnServer::start(), OwnServer::start());
    let log = open(&server);
    append(&log, "1").await.unwrap();
    let port = master.url().rsplit(':').next().unwrap().to_owned();
    // It does not reach one there, so it keeps what it has.
    server.ask(&["CONFIG", "SET", "masterauth", "none"]);
    master.ask(&["CONFIG", "SET", "requirepass", "another"]);
    server.ask(&["REPLICAOF", "127.0.0.1", &port]);
    let refused = append(&log, "2").await;
    assert!(matches!(&refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    match open_own(Options::new(server.url(), NAMESPACE)).map(drop) {
        Err(LogError::Refused { reason }) => {
            assert!(reason.contains(&format!("a replica of 127.0.0.1:{port}")), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    append_when_it_goes(&log, "3").await;
    assert_eq!(bodies(&log).await, ["1", "3"]);
}

#[tokio::test]
async fn a_server_that_is_busy_with_somebody_elses_function_is_unavailable_until_it_is_killed() {
    let server = OwnServer::start_with(&["--busy-reply-threshold", "1"]);
    let log = open(&server);
    append(&log, "1").await.unwrap();
    let spin = "#!lua name=spin\nredis.register_function('spin', function() while true do end end)";
    server.ask(&["FUNCTION", "LOAD", spin]);
    let url = server.url();
    let spinning = std::thread::spawn(move || crate::harness::redis::ask(&url, &["FCALL", "spin", "0"]));
    let refused = async {
        loop {
            if let Err(error) = append(&log, "2").await {
                return error;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("it is not busy");
    assert!(matches!(&refused, LogError::Unavailable { reason } if reason.contains("BUSY")), "{refused:?}");
    server.ask(&["FUNCTION", "KILL"]);
    assert!(spinning.join().unwrap().contains("killed"));
    append_when_it_goes(&log, "3").await;
    let bodies = bodies(&log).await;
    assert_eq!((bodies.first().unwrap().as_str(), bodies.last().unwrap().as_str()), ("1", "3"));
}

#[tokio::test]
async fn connections_that_are_cut_lose_nothing_acknowledged_and_double_nothing() {
    let server = OwnServer::start();
    let log = open(&server);
    let mut tail = log.tail().await.unwrap();
    let mut acknowledged = vec![];
    for round in 0..4 {
        let bodies: Vec<String> = (0..50).map(|number| format!("{round}-{number}")).collect();
        let url = server.url();
        let cut = std::thread::spawn(move || crate::harness::redis::ask(&url, &["CLIENT", "KILL", "TYPE", "normal"]));
        // What is unknown or refused is not sent again.
        let appended = futures_util::future::join_all(bodies.iter().map(|body| append(&log, body))).await;
        cut.join().unwrap();
        acknowledged
            .extend(bodies.into_iter().zip(appended).filter(|(_, answer)| answer.is_ok()).map(|(body, _)| body));
        append_when_it_goes(&log, &format!("{round} is over")).await;
    }
    let found = bodies(&log).await;
    let mut once: Vec<&String> = found.iter().filter(|body| !body.ends_with("is over")).collect();
    let all = once.len();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), all, "something is there twice");
    assert!(acknowledged.iter().all(|body| found.contains(body)), "something acknowledged is missing");
    let mut told = 0;
    while told < found.len() {
        told += tail.next().await.unwrap().unwrap().messages.len();
    }
    assert_eq!(told, found.len());
}

#[tokio::test]
async fn a_commit_of_before_the_server_was_started_again_is_taken_once() {
    let mut server = OwnServer::start();
    let log = open(&server);
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    server.kill();
    server.start_again();
    let outputs = vec![message("out", "x")];
    let committed = async {
        let mut term = claim.term;
        loop {
            match log.commit(ShardCommit { outputs: outputs.clone(), ..commit(&id, term, 1) }).await {
                Ok(_) => return,
                Err(CommitError::Unavailable { .. }) => tokio::task::yield_now().await,
                // What is known of the shard is asked for again.
                Err(_) => match log.claim(id.clone(), Offset::START).await {
                    Ok(claim) if claim.record.commit_number == 1 => return,
                    Ok(claim) => term = claim.term,
                    Err(_) => tokio::task::yield_now().await,
                },
            }
        }
    };
    tokio::time::timeout(PATIENCE, committed).await.expect("it does not go on");
    assert_eq!(everything(&*log).await.len(), 1);
}

#[tokio::test]
async fn who_connects_is_who_the_server_knows_or_is_refused_with_the_reason() {
    let by_password = OwnServer::start_with(&["--requirepass", "the-password"]);
    let by_user = OwnServer::start();
    by_user.ask(&["ACL", "SETUSER", "shop", "on", ">the-password", "~*", "&*", "+@all"]);
    by_user.ask(&["ACL", "SETUSER", "default", "off"]);
    let password = |text: &str| Login::Password(text.into());
    let user = |password: &str| Login::User { user: "shop".into(), password: password.into() };
    for (server, good, bad) in [
        (&by_password, password("the-password"), [Login::None, password("another"), user("the-password")]),
        (&by_user, user("the-password"), [Login::None, password("the-password"), user("another")]),
    ] {
        let options = |login| Options { login, ..Options::new(server.url(), NAMESPACE) };
        open_own(options(good)).unwrap().append(vec![message("a", "x")]).await.unwrap();
        for login in bad {
            match open_own(options(login)).map(drop) {
                Err(error @ LogError::Refused { .. }) => {
                    let said = error.to_string();
                    assert!(said.contains(&server.url()) && !said.contains("the-"), "{said}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_user_with_the_rights_that_are_named_is_enough() {
    let rights = "shop on >pass ~sb:* &sb:* +@all -@dangerous +info +config|get +function|list +function|load";
    let server = OwnServer::start();
    server.ask(&[&["ACL", "SETUSER"], &rights.split(' ').collect::<Vec<_>>()[..]].concat());
    server.ask(&["ACL", "SETUSER", "default", "off"]);
    let login = Login::User { user: "shop".into(), password: "pass".into() };
    let log = open_own(Options { login, ..Options::new(server.url(), NAMESPACE) }).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    assert!(log.commit(super::numbered::numbered(&id, claim.term, 1)).await.is_ok());
    log.settle().await.unwrap();
    append(&log, "x").await.unwrap();
    assert_eq!(everything(&*log).await.len(), 2);
}

#[tokio::test]
async fn a_server_that_throws_keys_away_is_refused_with_the_command_that_mends_it() {
    let server = OwnServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    match open_own(Options::new(server.url(), NAMESPACE)).map(drop) {
        Err(LogError::Refused { reason }) => {
            assert!(reason.contains("CONFIG SET maxmemory-policy noeviction"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_of_a_cluster_is_refused() {
    let server = OwnServer::start_with(&["--cluster-enabled", "yes"]);
    match open_own(Options::new(server.url(), NAMESPACE)).map(drop) {
        Err(LogError::Refused { reason }) => assert!(reason.contains("cluster-enabled no"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_promised_is_what_the_server_is_set_to() {
    for (arguments, survives, said) in [
        (&["--appendfsync", "always"], true, "`appendfsync always`"),
        (&["--appendfsync", "everysec"], false, "its last second"),
        (&["--appendfsync", "no"], false, "half a minute"),
        (&["--appendonly", "no"], false, "all that is acknowledged may be lost"),
    ] {
        let guarantees = open(&OwnServer::start_with(arguments)).guarantees();
        assert_eq!(guarantees.survives_power_loss, survives, "{guarantees:?}");
        assert!(guarantees.summary.contains(said), "{guarantees:?}");
    }
}

#[tokio::test]
async fn a_log_is_reached_through_a_socket_of_the_machine_too() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let _server = OwnServer::start_with(&["--unixsocket", socket.to_str().unwrap()]);
    let log = open_own(Options::new(format!("unix://{}", socket.display()), NAMESPACE)).unwrap();
    append(&log, "x").await.unwrap();
    assert_eq!(bodies(&log).await, ["x"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_reason() {
    let nobody = Options::new("redis://127.0.0.1:1", NAMESPACE);
    match open_own(nobody).map(drop) {
        Err(error @ LogError::Unavailable { .. }) => assert!(error.to_string().contains("127.0.0.1:1"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn logs_of_one_server_know_nothing_of_each_other() {
    let (one, other) = (open_own(options(&fresh_namespace())).unwrap(), open_own(options(&fresh_namespace())).unwrap());
    append(&one, "x").await.unwrap();
    assert_eq!((bodies(&one).await.len(), bodies(&other).await.len()), (1, 0));
}
