//! Rerouted again and again between kills under load, itself killed too, and then read by the independent checker.

use crate::crash::{SETTINGS, load, settled};
use crate::harness::guests::guest;
use crate::harness::process::{PROGRAM, Place};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

/// Shards of both handlers, round by round.
const SHARDS: [(u16, u16); 8] = [(4, 2), (7, 2), (1, 3), (5, 1), (2, 6), (3, 3), (8, 4), (4, 2)];
const MESSAGES: usize = 400;

fn settings((first, second): (u16, u16)) -> String {
    let first = SETTINGS.replace("shards = 4", &format!("shards = {first}"));
    first.replace("shards = 2", &format!("shards = {second}"))
}

/// Types the command; with a crash point it dies there.
fn reroute(place: &Place, handler: &str, crash_point: Option<&str>) -> bool {
    let mut command = Command::new(PROGRAM);
    command.args(["handlers", "reroute", handler, "--yes"]).current_dir(place.path());
    command.envs(crash_point.map(|point| ("SLUICEBOX_CRASH_POINT", point)));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || crash_point.is_some(), "{said}");
    output.status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reroutes_between_kills_lose_nothing_and_do_nothing_twice() {
    let seed = std::env::var("SLUICEBOX_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SLUICEBOX_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let place = Place::new(&settings(SHARDS[0]), &[&guest("ledger")]);
    let mut acknowledged = BTreeSet::new();
    let (mut killed, mut crashed) = (0, 0);
    for (round, shards) in SHARDS.into_iter().enumerate() {
        place.settings(&settings(shards));
        if round > 0 {
            let before = SHARDS[round - 1];
            // Each shard is claimed in a transaction, and then everything is written in one.
            let last = before.0 + 1;
            let point = format!("{}:{last}", ["before-commit", "after-commit"][round % 2]);
            let is_there = cfg!(debug_assertions) && before.0 != shards.0;
            crashed += usize::from(is_there && !reroute(&place, "first", Some(&point)));
            assert!(reroute(&place, "first", None) && reroute(&place, "second", None));
        }
        let host = place.start();
        let pid = rustix::process::Pid::from_raw(host.pid() as i32).unwrap();
        // What was sent in the round before is sent again under the same ids.
        let again = round.saturating_sub(1);
        let work = async {
            let resent = load(&host, again, MESSAGES / 2, seed ^ again as u64).await;
            [resent, load(&host, round, MESSAGES, seed ^ round as u64).await].concat()
        };
        let life = Duration::from_millis(rng.random_range(200..900));
        let killer = async {
            // Not a wait for something to happen: the moment of the kill is what the round is about.
            let _ = tokio::time::timeout(life, std::future::pending::<()>()).await;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        acknowledged.extend(tokio::join!(work, killer).0);
        assert!(!host.ended().success());
        killed += 1;
    }
    let history = settled(&place, &acknowledged).await;
    println!(
        "{killed} kills of the host, {crashed} of the command, {} ids acknowledged, {} messages, {} dead letters",
        acknowledged.len(),
        history.messages.len(),
        history.dead.len()
    );
    assert!(acknowledged.len() > 300, "the load was too small to show anything: {}", acknowledged.len());
    assert!(!cfg!(debug_assertions) || crashed >= 5, "{crashed}");
}
