//! Sentinels: a host connects to the master that they name and follows a failover. What the new master has not got is lost,
//! and who had it says so.

use super::{append, append_when_it_goes, bodies, ended, open, unopened};
use crate::harness::PATIENCE;
use crate::harness::logs::{commit, message, shard};
use crate::harness::process::Place;
use crate::harness::redis::{Options, OwnServer, free_port, open_own};
use crate::harness::sentinels::Sentinels;
use sluicebox::commit::{CommitError, ShardCommit};
use sluicebox::log::redis::Login;
use sluicebox::log::{Log, LogError};
use sluicebox::message::Offset;

#[tokio::test]
async fn a_failover_to_a_replica_that_has_everything_is_followed_and_nothing_is_lost() {
    let mut master = OwnServer::start();
    let replica = OwnServer::replica_of(&master, &[]);
    let sentinels = Sentinels::of(&master).await;
    let nobody = format!("redis+sentinel://127.0.0.1:{},", free_port());
    let url = sentinels.url().replace("redis+sentinel://", &nobody);
    let log = open_own(Options::new(&url, "t")).unwrap();
    let id = shard("h", 0);
    let claim = log.claim(id.clone(), Offset::START).await.unwrap();
    append(&log, "1").await.unwrap();
    assert_eq!(master.ask(&["WAIT", "1", "10000"]), ":1\r\n");
    master.kill();
    sentinels.until_failed_over(&master).await;
    append_when_it_goes(&log, "2").await;
    // The shard is still this host's.
    let committed = async {
        let outputs = vec![message("a", "3")];
        loop {
            match log.commit(ShardCommit { outputs: outputs.clone(), ..commit(&id, claim.term, 1) }).await {
                Ok(_) => return,
                Err(CommitError::Unavailable { .. }) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, committed).await.expect("it does not go on");
    assert_eq!(bodies(&log).await, ["1", "2", "3"]);
    // The old master comes back as a replica, and nothing changes.
    master.start_again();
    append_when_it_goes(&log, "4").await;
    assert_eq!(bodies(&open(&replica)).await, ["1", "2", "3", "4"]);
    assert_eq!(bodies(&open_own(Options::new(&url, "t")).unwrap()).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_failover_that_loses_something_ends_who_had_it_and_who_starts_goes_on_with_what_is_there() {
    let mut master = OwnServer::start();
    master.ask(&["ACL", "SETUSER", "repl", "on", ">pass", "+psync", "+replconf", "+ping"]);
    let _replica = OwnServer::replica_of(&master, &["--masteruser", "repl", "--masterauth", "pass"]);
    let sentinels = Sentinels::of(&master).await;
    let log = open_own(Options::new(sentinels.url(), "t")).unwrap();
    append(&log, "1").await.unwrap();
    assert_eq!(master.ask(&["WAIT", "1", "10000"]), ":1\r\n");
    // From here on the replica gets nothing.
    master.ask(&["ACL", "SETUSER", "repl", "off"]);
    master.ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    append(&log, "lost").await.unwrap();
    master.kill();
    let reason = ended(&log).await;
    assert!(reason.contains("its end is lost: it ends with entry") && reason.contains("start it again"), "{reason}");
    let again = open_own(Options::new(sentinels.url(), "t")).unwrap();
    append(&again, "2").await.unwrap();
    assert_eq!(bodies(&again).await, ["1", "2"]);
}

#[tokio::test]
async fn sentinels_that_ask_for_a_login_get_it_and_what_they_do_not_know_is_told() {
    let master = OwnServer::start_with(&["--requirepass", "the-password"]);
    let master_login = "sentinel auth-pass mymaster the-password\nrequirepass the-password";
    let sentinels = Sentinels::start(&master, master_login);
    let login = Login::Password("the-password".into());
    let log = open_own(Options { login: login.clone(), ..Options::new(sentinels.url(), "t") }).unwrap();
    append(&log, "1").await.unwrap();
    let with = |login, url: String| unopened(Options { login, ..Options::new(url, "t") });
    let none = with(Login::None, sentinels.url());
    assert!(none.to_string().contains("NOAUTH"), "{none}");
    let unknown = with(login.clone(), sentinels.url().replace("mymaster", "another"));
    assert!(matches!(&unknown, LogError::Refused { reason } if reason.contains("no master `another`")), "{unknown}");
    let nobody = with(login.clone(), "redis+sentinel://127.0.0.1:1/mymaster".into());
    let said = nobody.to_string();
    assert!(matches!(&nobody, LogError::Unavailable { .. }), "{said}");
    assert!(said.contains("no sentinel says where `mymaster` is") && said.contains("127.0.0.1:1"), "{said}");
    for error in [none, unknown, nobody] {
        assert!(!error.to_string().contains("the-password"), "{error}");
    }
}

#[tokio::test]
async fn the_program_follows_a_failover_and_says_what_it_is_on() {
    let mut master = OwnServer::start();
    let _replica = OwnServer::replica_of(&master, &[]);
    let sentinels = Sentinels::of(&master).await;
    let place = Place::new("", &[]);
    let text = format!(
        "namespace = \"t\"\n[log]\nkind = \"redis\"\nurl = \"{}\"\ningress = [\"events.*\"]\n\
         [http]\nlisten = \"127.0.0.1:0\"\n",
        sentinels.url()
    );
    std::fs::write(place.path().join("sluicebox.toml"), text).unwrap();
    let host = place.start();
    assert!(host.publish("b", None, None, "1").await);
    assert_eq!(master.ask(&["WAIT", "1", "10000"]), ":1\r\n");
    master.kill();
    host.until("it is not ready", async |host| host.get("/readyz").await != "ready\n").await;
    sentinels.until_failed_over(&master).await;
    host.until("it is ready", async |host| host.get("/readyz").await == "ready\n").await;
    host.until("it takes messages", async |host| host.publish("b", None, None, "2").await).await;
    let (code, said, _) = place.command(&["hosts", "--url", &host.url]);
    assert!(code == 0, "{said}");
    assert!(host.stop().success());
    assert_eq!(bodies(&open_own(Options::new(sentinels.url(), "t")).unwrap()).await.last().unwrap(), "2");
}
