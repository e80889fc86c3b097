//! Every answer of a server that cannot, as a real one gives it: nothing is half written, and the log goes on when the server
//! can again.

use super::{append, append_when_it_goes, bodies, open, unopened, until_refused};
use crate::harness::logs::{commit, shard};
use crate::harness::redis::{Options, OwnServer, Wire, open_own};
use crate::harness::{PATIENCE, nats_cluster::until};
use sluicebox::commit::CommitError;
use sluicebox::log::redis::Login;
use sluicebox::log::{Log, LogError};
use sluicebox::message::Offset;

#[tokio::test]
async fn a_server_that_loads_its_data_takes_nothing_yet_and_the_log_goes_on_when_it_has() {
    let mut server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    let mut wire = Wire::connect(&server.url()).unwrap();
    for number in 0..2000 {
        wire.asked(&["SET", &format!("other:{number}"), &"x".repeat(100)]).unwrap();
    }
    // The data in one file, which the server reads while it answers.
    wire.asked(&["BGREWRITEAOF"]).unwrap();
    until("it is written", async || server.ask(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0")).await;
    server.kill();
    let slowly =
        ["--appendfsync", "always", "--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"];
    server.set_arguments(&slowly);
    let url = server.url();
    let started = server.start_again_soon();
    let loading = async {
        loop {
            let asked = Wire::connect(&url).and_then(|mut wire| wire.asked(&["GET", "x"]));
            match asked {
                Ok(answer) if answer.starts_with("-LOADING") => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, loading).await.expect("it does not load");
    let refused = append(&log, "refused").await;
    assert!(matches!(&refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    let unopened = unopened(Options::new(&url, "t"));
    assert!(matches!(&unopened, LogError::Unavailable { reason } if reason.contains("loading")), "{unopened}");
    append_when_it_goes(&log, "2").await;
    assert_eq!(bodies(&log).await, ["1", "2"]);
    drop(started.join().unwrap());
}

#[tokio::test]
async fn a_replica_without_its_master_that_says_nothing_then_is_unavailable() {
    let server = OwnServer::start_with(&["--appendfsync", "always", "--replica-serve-stale-data", "no"]);
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(server.ask(&["GET", "x"]).starts_with("-MASTERDOWN"));
    let refused = append(&log, "refused").await;
    assert!(matches!(&refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    until("it is not ready", async || log.end().await.is_err()).await;
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    append_when_it_goes(&log, "2").await;
    assert_eq!(bodies(&log).await, ["1", "2"]);
}

#[tokio::test]
async fn a_server_that_cannot_write_to_its_disk_is_full_until_it_can() {
    let server = OwnServer::start();
    let log = open(&server);
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    append(&log, "1").await.unwrap();
    // No file can take the place of a folder that has something in it.
    std::fs::create_dir_all(server.folder().join("dump.rdb/full")).unwrap();
    server.ask(&["CONFIG", "SET", "save", "3600 1000000"]);
    server.ask(&["BGSAVE"]);
    until("it fails", async || server.ask(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")).await;
    match append(&log, "refused").await {
        Err(LogError::Full { reason }) => assert!(reason.contains("cannot write to its disk"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let refused = log.commit(commit(&id, claim.term, 1)).await;
    assert!(matches!(&refused, Err(CommitError::Unavailable { .. })), "{refused:?}");
    server.ask(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    append(&log, "2").await.unwrap();
    assert!(log.commit(commit(&id, claim.term, 1)).await.is_ok());
    assert_eq!(bodies(&log).await, ["1", "2"]);
}

#[tokio::test]
async fn a_server_that_became_part_of_a_cluster_takes_nothing_and_the_log_goes_on_when_it_is_none() {
    let clustered = ["--appendfsync", "always", "--cluster-enabled", "yes"];
    let mut server = OwnServer::start();
    let other = OwnServer::start_with(&clustered);
    let log = open(&server);
    append(&log, "1").await.unwrap();
    server.kill();
    server.set_arguments(&clustered);
    server.start_again();
    let key = "sb:{t}:meta";
    let slot = server.ask(&["CLUSTER", "KEYSLOT", key]);
    let slot = slot.trim_start_matches(':').trim();
    assert!(server.ask(&["GET", "x"]).starts_with("-CLUSTERDOWN"));
    let refused = append(&log, "refused").await;
    assert!(matches!(&refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    // The other one has all of it.
    other.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    server.ask(&["CLUSTER", "DELSLOTS", slot]);
    server.ask(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]);
    until("it is the other's", async || server.ask(&["HGET", key, "id"]).starts_with("-MOVED")).await;
    let refused = append(&log, "refused").await;
    assert!(matches!(&refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    match unopened(Options::new(server.url(), "t")) {
        LogError::Refused { reason } => assert!(reason.contains("cluster-enabled no"), "{reason}"),
        other => panic!("{other}"),
    }
    server.kill();
    server.set_arguments(&["--appendfsync", "always"]);
    server.start_again();
    append_when_it_goes(&log, "2").await;
    assert_eq!(bodies(&log).await, ["1", "2"]);
}

#[tokio::test]
async fn rights_that_are_taken_away_refuse_every_write_and_nothing_is_half_written() {
    let server = OwnServer::start();
    let set =
        |words: &str| server.ask(&[&["ACL", "SETUSER", "shop"], &words.split(' ').collect::<Vec<_>>()[..]].concat());
    let rights = "on >pass ~sb:* &sb:* +@all -@dangerous +info +config|get +function|list +function|load";
    set(rights);
    let login = Login::User { user: "shop".into(), password: "pass".into() };
    let log = open_own(Options { login, ..Options::new(server.url(), "t") }).unwrap();
    append(&log, "1").await.unwrap();
    for (number, (taken, given)) in
        [("-@all", rights), ("-hset", "+hset"), ("-xadd", "+xadd"), ("-fcall", "+fcall")].into_iter().enumerate()
    {
        set(taken);
        let error = until_refused(&log, "user").await;
        assert!(matches!(&error, LogError::Unavailable { .. }), "{taken}: {error}");
        set(given);
        append_when_it_goes(&log, &(number + 2).to_string()).await;
    }
    // Who may not connect any more, and may again.
    set("off");
    server.ask(&["CLIENT", "KILL", "USER", "shop"]);
    until("it is not ready", async || log.end().await.is_err()).await;
    set("on");
    append_when_it_goes(&log, "6").await;
    let bodies = bodies(&log).await;
    assert_eq!(bodies, ["1", "2", "3", "4", "5", "6"]);
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_unavailable_until_some_leave() {
    let server = OwnServer::start();
    let log = open(&server);
    append(&log, "1").await.unwrap();
    let mut operator = Wire::connect(&server.url()).unwrap();
    for words in [&["CONFIG", "SET", "maxclients", "1"][..], &["CLIENT", "KILL", "TYPE", "normal"]] {
        operator.asked(words).unwrap();
    }
    operator.asked(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    until("it is not ready", async || log.end().await.is_err()).await;
    let refused = append(&log, "refused").await;
    assert!(matches!(&refused, Err(LogError::Unavailable { .. })), "{refused:?}");
    // Whoever reads before it writes is told why.
    let told = Wire::connect(&server.url()).unwrap().answer().unwrap();
    assert!(told.contains("max number of clients"), "{told}");
    let unopened = unopened(Options::new(server.url(), "t"));
    assert!(matches!(&unopened, LogError::Unavailable { .. }), "{unopened}");
    operator.asked(&["CONFIG", "SET", "maxclients", "100"]).unwrap();
    append_when_it_goes(&log, "2").await;
    assert_eq!(bodies(&log).await, ["1", "2"]);
}
