//! What happens to hosts, servers and the networks between them, and what must hold until it is over.

use super::Storm;
use super::load::{client, send};
use super::observer::CUT_KEY;
use crate::harness::nats_cluster::until;
use crate::harness::proxy::Direction;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL.
    HostKilled,
    /// SIGSTOP, until others have its shards.
    HostAsleep,
    /// SIGTERM.
    HostStopped,
    /// SIGKILL.
    ServerKilled,
    LeaderKilled,
    LeaderSteppedDown,
    /// The connection is cut after the request and before the answer.
    AnswerLost,
    /// A partition in one direction: it sends and hears nothing.
    HostDeaf,
    /// It hears and is not heard.
    HostMute,
    HostSlow,
}

/// Each with how often it is among twenty: what lasts long by nature seldom. A host leaves a server that says nothing after nine
/// seconds, and servers take some seconds to choose another leader.
pub const ON_NATS: [(Fault, usize); 10] = [
    (Fault::HostKilled, 3),
    (Fault::HostAsleep, 3),
    (Fault::HostStopped, 2),
    (Fault::ServerKilled, 2),
    (Fault::LeaderKilled, 1),
    (Fault::LeaderSteppedDown, 2),
    (Fault::AnswerLost, 3),
    (Fault::HostDeaf, 1),
    (Fault::HostMute, 2),
    (Fault::HostSlow, 1),
];
pub const ON_REDIS: [(Fault, usize); 8] = [
    (Fault::HostKilled, 3),
    (Fault::HostAsleep, 3),
    (Fault::HostStopped, 3),
    (Fault::ServerKilled, 3),
    (Fault::AnswerLost, 3),
    (Fault::HostDeaf, 1),
    (Fault::HostMute, 2),
    (Fault::HostSlow, 2),
];

/// So many faults, in any order.
pub fn plan(kinds: &[(Fault, usize)], faults: usize, random: &mut StdRng) -> Vec<Fault> {
    let mut plan = vec![];
    while plan.len() < faults {
        let mut all: Vec<Fault> = kinds.iter().flat_map(|(fault, count)| std::iter::repeat_n(*fault, *count)).collect();
        all.shuffle(random);
        plan.extend(all);
    }
    plan.truncate(faults);
    plan
}

impl Storm {
    /// One fault from its beginning to its end; it lasts until each key went on in spite of it.
    pub async fn strike(&mut self, fault: Fault) {
        let host = self.victim().await;
        match fault {
            Fault::HostKilled => {
                self.hosts[host].kill().await;
                self.each_goes_on().await;
                self.hosts[host].start_again().await;
            }
            Fault::HostAsleep => {
                self.hosts[host].process().sleep();
                self.each_goes_on().await;
                self.hosts[host].process().wake();
            }
            Fault::HostStopped => {
                self.hosts[host].stop().await;
                self.each_goes_on().await;
                self.hosts[host].start_again().await;
            }
            Fault::ServerKilled | Fault::LeaderKilled => {
                // A majority must be left.
                self.servers.until_whole().await;
                let leader = self.servers.leader().await;
                let count = self.servers.ports().len();
                let other = if fault == Fault::LeaderKilled { 0 } else { self.random.random_range(0..count) };
                let server = (leader + other) % count;
                self.servers.kill(server);
                if self.servers.outlive_one() {
                    self.each_goes_on().await;
                }
                self.servers.start_again(server);
                self.each_goes_on().await;
            }
            Fault::LeaderSteppedDown => {
                self.servers.step_down().await;
                self.each_goes_on().await;
            }
            Fault::AnswerLost => self.lose_an_answer(host).await,
            Fault::HostDeaf | Fault::HostMute => {
                let direction = if fault == Fault::HostDeaf { Direction::ToClient } else { Direction::ToServer };
                self.hosts[host].hold(direction);
                self.each_goes_on().await;
                // What was on its way is lost, or it comes at last.
                if self.random.random_bool(0.5) {
                    self.hosts[host].cut();
                }
                self.hosts[host].release();
            }
            Fault::HostSlow => {
                self.hosts[host].delay(Duration::from_millis(50));
                self.each_goes_on().await;
                self.hosts[host].delay(Duration::ZERO);
            }
        }
        for host in &mut self.hosts {
            host.until_ready().await;
        }
    }

    /// Some host that holds shards: of one without any nothing would be missed.
    async fn victim(&mut self) -> usize {
        let first = self.random.random_range(0..self.hosts.len());
        let mut victim = first;
        until("a host holds shards", async || {
            for at in (0..self.hosts.len()).map(|next| (first + next) % self.hosts.len()) {
                if self.hosts[at].process().metric("shards_held").await > 0 {
                    victim = at;
                    return true;
                }
            }
            false
        })
        .await;
        victim
    }

    /// The host sends a message of a publisher to its server, which takes it, and the connection ends before the host hears of it.
    async fn lose_an_answer(&mut self, host: usize) {
        let id = format!("cut/{}", self.told.published().get(CUT_KEY).map_or(0, Vec::len));
        self.hosts[host].hold(Direction::ToClient);
        let (url, of_request) = (self.hosts[host].process().url.clone(), id.clone());
        let request = tokio::spawn(async move { send(&client(), &url, CUT_KEY, &of_request).await });
        until("the log has it", async || self.observer.has(&id) || request.is_finished()).await;
        self.hosts[host].cut();
        self.hosts[host].release();
        drop(request.await);
        // Whatever its host said: it is sent again, and the same one.
        self.told.publish(&client(), host + 1, CUT_KEY, &id).await;
        self.each_goes_on().await;
    }

    async fn each_goes_on(&self) {
        let (published, began) = (self.told.published(), Instant::now());
        until("each key goes on", async || self.observer.each_goes_on_after(&published)).await;
        println!("  each key went on after {:.1} s", began.elapsed().as_secs_f64());
    }
}
