//! Several hosts on one log: they hear each other, and each works on its part of the shards.
//!
//! A host tells the others at every change, and five times a lease, what it can run and what it holds. From what it hears
//! it decides alone which shards are its own ([`placement`]); nobody is asked, and nobody leads. What it decides wrongly costs
//! a claim and no more: the log takes the commits of the newest term only.

mod claims;
mod features;
mod hashing;
mod placement;

pub use features::{FEATURES, in_force};
pub use placement::{Decision, Placement, View};

use crate::clock;
use crate::handler::HandlerName;
use crate::host::Host;
use crate::log::{Heartbeat, HostId, Log, Member};
use crate::telemetry::Metrics;
use crate::vital::Vital;
use claims::Claims;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Heartbeats in a lease.
const BEATS: u32 = 5;

/// What a host is called and where it is.
#[derive(Clone, Debug)]
pub struct About {
    pub name: String,
    /// Of its HTTP face.
    pub address: SocketAddr,
    /// Who is silent for so long is taken for dead.
    pub lease: Duration,
}

/// One host among others. When it is dropped it is silent from then on; [`Cluster::leave`] is the way out.
pub struct Cluster {
    hosts: Hosts,
    task: AbortOnDropHandle<()>,
    leave: CancellationToken,
    settled: watch::Receiver<bool>,
}

/// Who is there, as this host hears it. Cheap to clone.
#[derive(Clone)]
pub struct Hosts {
    me: HostId,
    lease: Duration,
    log: Arc<dyn Log>,
}

/// A host as this one knows it.
#[derive(Clone, Debug)]
pub struct Known {
    pub beat: Arc<Heartbeat>,
    pub silent_for: Duration,
    /// It was heard within the lease.
    pub lives: bool,
    pub is_this: bool,
}

impl Cluster {
    /// Begins to tell others of this host, whose shards are the cluster's to choose from now on.
    pub fn start(log: Arc<dyn Log>, host: Arc<Host>, about: About, metrics: &Metrics, vital: &Vital) -> Self {
        let me = HostId(rand::random());
        host.holding().leave_to_placement();
        let (settled_sender, settled) = watch::channel(false);
        let leave = CancellationToken::new();
        let lease = about.lease;
        let beat = Heartbeat {
            host: me,
            name: about.name,
            address: about.address.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            features: FEATURES,
            started: clock::now(),
            runs: vec![],
            joining: true,
            leaving: false,
            // A clock that is set back must not make what it says old; nothing else has this id.
            sequence: 0,
        };
        let claims = Claims::new(log.clone(), host, beat, lease, metrics.cluster(), settled_sender);
        let task = vital.guard("the placement of shards", claims.run(leave.clone()));
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        Self { hosts: Hosts { me, lease, log }, task, leave, settled }
    }

    /// Returns when this host has heard who else is there and chosen its shards, or cannot for a while.
    pub async fn settled(&self) {
        let mut settled = self.settled.clone();
        let _ = tokio::time::timeout(self.hosts.lease, settled.wait_for(|settled| *settled)).await;
    }

    /// Who is there.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Gives all shards up and tells the others, who may claim them at once.
    pub async fn leave(self) {
        self.leave.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the placement of shards ended badly");
        }
    }
}

impl Hosts {
    /// Everyone that was heard lately, by id.
    pub fn list(&self) -> Vec<Known> {
        let now = clock::instant();
        let known = |member: Member| {
            let silent_for = now.saturating_duration_since(member.heard);
            let is_this = member.beat.host == self.me;
            Known { beat: member.beat, silent_for, lives: silent_for < self.lease, is_this }
        };
        // Of one that left in order nobody has to hear any more.
        let stays = |host: &Known| host.lives || !host.beat.leaving;
        self.log.members().list().into_iter().map(known).filter(stays).collect()
    }

    /// A host that lives and runs this handler.
    pub fn runs(&self, handler: &HandlerName) -> Option<String> {
        let runs = |host: &Known| host.beat.of(handler).is_some_and(|runs| runs.shards > 0 || !runs.held.is_empty());
        self.list().into_iter().find(|host| host.lives && runs(host)).map(|host| host.beat.name.clone())
    }

    /// Whether this host is the one, of those that live and stay, to do what one of them is enough for. Hosts that hear
    /// different things may both think so, so it must do no harm to do it twice.
    pub fn is_chosen_for(&self, what: &str) -> bool {
        let others = self.list().into_iter().filter(|host| host.lives && !host.is_this && !host.beat.leaving);
        hashing::draws_highest(self.me, others.map(|host| host.beat.host), what)
    }
}
