//! Does what the placement decides: tells others of this host, begins shards and gives them up. One task, which waits for
//! nothing that takes long: shards begin and leave beside it.

use super::placement::{Decision, Placement, View};
use super::{BEATS, in_force};
use crate::actor::Loss;
use crate::clock;
use crate::commit::Term;
use crate::handler::{HandlerName, ShardId};
use crate::host::{Host, Owned, Releasing};
use crate::log::{Heartbeat, Log, Member, Runs};
use crate::telemetry::ClusterMetrics;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Changes within so short a time are told together.
const TOGETHER: Duration = Duration::from_millis(10);

pub(super) struct Claims {
    log: Arc<dyn Log>,
    host: Arc<Host>,
    lease: Duration,
    placement: Placement,
    metrics: ClusterMetrics,
    /// What the host was told to own.
    owned: BTreeSet<ShardId>,
    /// No longer owned, and perhaps still at work.
    draining: BTreeSet<ShardId>,
    /// What this host can run, with the number of shards.
    known: BTreeMap<HandlerName, u16>,
    /// What was said last.
    said: Heartbeat,
    said_at: Option<Instant>,
    /// A host that does not know this one was heard.
    asked: bool,
    /// The last heartbeat was not taken.
    unheard: bool,
    /// When records were compared with what is held.
    compared_at: Option<Instant>,
    /// The host begins to run what another one runs.
    following: Option<AbortOnDropHandle<()>>,
    settled: watch::Sender<bool>,
}

impl Claims {
    pub(super) fn new(
        log: Arc<dyn Log>,
        host: Arc<Host>,
        beat: Heartbeat,
        lease: Duration,
        metrics: ClusterMetrics,
        settled: watch::Sender<bool>,
    ) -> Self {
        Self {
            placement: Placement::new(beat.host, lease, clock::instant()),
            log,
            host,
            lease,
            metrics,
            owned: BTreeSet::new(),
            draining: BTreeSet::new(),
            known: BTreeMap::new(),
            said: beat,
            said_at: None,
            asked: false,
            unheard: false,
            compared_at: None,
            following: None,
            settled,
        }
    }

    /// Ends when `leave` is cancelled and nothing is held any more.
    pub(super) async fn run(mut self, leave: CancellationToken) {
        let (log, host) = (self.log.clone(), self.host.clone());
        let (mut heard, mut held, mut handlers) = (log.members().changes(), host.holding().changes(), host.holders());
        let mut beginning: Option<BoxFuture<'_, Releasing>> = None;
        let mut releasing = FuturesUnordered::<BoxFuture<'static, BTreeSet<ShardId>>>::new();
        // What of the draining shards the change under way is about.
        let mut lost = BTreeSet::new();
        loop {
            heard.mark_unchanged();
            held.mark_unchanged();
            handlers.mark_unchanged();
            let is_leaving = leave.is_cancelled();
            let decision = self.decide(is_leaving).await;
            if beginning.is_none() && decision.own != self.owned {
                lost = self.owned.difference(&decision.own).cloned().collect();
                self.change_to(&decision);
                let owned = Owned::Only(self.owned.clone());
                beginning = Some(Box::pin(host.begin_to_own(owned)));
            }
            let next_beat = self.beat(is_leaving, &decision).await;
            if is_leaving && beginning.is_none() && releasing.is_empty() && host.holding().held().is_empty() {
                let last = Heartbeat { leaving: true, runs: vec![], ..self.said.clone() };
                return self.say(last, clock::instant()).await;
            }
            if !decision.listens {
                self.settled.send_replace(true);
            }
            let wake = decision.again.into_iter().chain([next_beat]).min().unwrap_or(next_beat);
            tokio::select! {
                // Safe to cancel: a sleep holds nothing.
                () = tokio::time::sleep(wake.saturating_duration_since(clock::instant())) => {}
                // Safe to cancel, all: a change that was not seen is seen at the next look.
                _ = heard.changed() => {}
                _ = held.changed() => {}
                _ = handlers.changed() => {}
                () = leave.cancelled(), if !is_leaving => {}
                // Safe to cancel, both: they are kept and asked again.
                Some(begun) = OptionFuture::from(beginning.as_mut()) => {
                    beginning = None;
                    let lost = std::mem::take(&mut lost);
                    releasing.push(Box::pin(async move {
                        begun.released().await;
                        lost
                    }));
                }
                Some(released) = releasing.next() => self.draining.retain(|shard| !released.contains(shard)),
            }
        }
    }

    /// What is to be, as things are now.
    async fn decide(&mut self, leaving: bool) -> Decision {
        let now = clock::instant();
        for (shard, loss) in self.host.holding().take_lost() {
            self.lose(shard, loss, now);
        }
        let (members, runs) = (self.log.members().list(), self.runs());
        self.follow(&members, &runs);
        let held = self.host.holding().held();
        self.compare(&members, &held, now).await;
        let held: BTreeSet<ShardId> = held.into_keys().collect();
        let view = View { members: &members, runs: &runs, held: &held, draining: &self.draining, leaving };
        let decision = self.placement.decide(now, view);
        let living = members.iter().filter(|member| self.lives(member, now)).count();
        self.metrics.show(living, held.len(), in_force(&members, self.lease, now));
        decision
    }

    /// Each host can run the hosts' own handler, from when the first of them began to.
    fn follow(&mut self, members: &[Member], runs: &[(HandlerName, u16)]) {
        let is_new = |runs_there: &&Runs| {
            runs_there.handler.is_delay() && !runs.iter().any(|(handler, _)| *handler == runs_there.handler)
        };
        let is_following = self.following.as_ref().is_some_and(|task| !task.is_finished());
        if !is_following && members.iter().any(|member| member.beat.runs.iter().any(|runs| is_new(&runs))) {
            let (host, again) = (self.host.clone(), self.lease / BEATS);
            // Beside this task, which must not wait for a change that the host is making; one that is begun twice is none.
            self.following = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                if let Err(error) = host.follow_delays().await {
                    tracing::warn!(%error, "the hosts' own handler does not run here yet");
                    tokio::time::sleep(again).await;
                }
            })));
        }
    }

    fn lives(&self, member: &Member, now: Instant) -> bool {
        now.saturating_duration_since(member.heard) < self.lease
    }

    /// It is given up before it is claimed again: what is left of it has to leave first.
    fn lose(&mut self, shard: ShardId, loss: Loss, now: Instant) {
        if self.owned.contains(&shard) {
            self.draining.insert(shard.clone());
            self.placement.lost(shard, loss, now);
        }
    }

    /// Where another host says that it holds what this one holds, the log knows who claimed it last. A shard that commits finds
    /// out by itself; one that has nothing to commit would not.
    async fn compare(&mut self, members: &[Member], held: &BTreeMap<ShardId, Option<Term>>, now: Instant) {
        let others: Vec<&Member> =
            members.iter().filter(|member| member.beat.host != self.said.host && self.lives(member, now)).collect();
        let is_doubtful =
            |shard: &ShardId| !self.draining.contains(shard) && others.iter().any(|member| member.beat.holds(shard));
        let doubtful: BTreeSet<&ShardId> = held.keys().filter(|shard| is_doubtful(shard)).collect();
        let is_due = self.compared_at.is_none_or(|at| now.saturating_duration_since(at) >= self.lease / BEATS);
        if doubtful.is_empty() || !is_due {
            return;
        }
        self.compared_at = Some(now);
        let Ok(Ok(recorded)) = tokio::time::timeout(self.lease / BEATS, self.log.status()).await else { return };
        for status in recorded.into_iter().filter(|status| doubtful.contains(&status.shard)) {
            if held.get(&status.shard).copied().flatten().is_some_and(|term| term < status.term) {
                tracing::warn!(shard = %status.shard, "another host claimed the shard, leaving it");
                self.lose(status.shard, Loss::Fenced, now);
            }
        }
    }

    /// Notes what is to be begun and given up.
    fn change_to(&mut self, decision: &Decision) {
        let gained: Vec<&ShardId> = decision.own.difference(&self.owned).collect();
        let taken_over = gained.iter().filter(|shard| decision.taken_over.contains(**shard)).count();
        if taken_over > 0 {
            tracing::warn!(shards = taken_over, "taking over the shards of a host that is silent");
        }
        self.metrics.taken_over(taken_over);
        tracing::debug!(gained = gained.len(), owned = decision.own.len(), "other shards are this host's now");
        self.draining.extend(self.owned.difference(&decision.own).cloned());
        self.owned.clone_from(&decision.own);
    }

    /// Tells others of this host if there is a reason to; when the next time is.
    async fn beat(&mut self, leaving: bool, decision: &Decision) -> Instant {
        let now = clock::instant();
        self.asked |= decision.newcomers;
        let joining = decision.listens && !leaving;
        let beat = Heartbeat { joining, leaving, runs: self.said_of_handlers(), ..self.said.clone() };
        // All but the number is as it was.
        let news = self.asked || beat != self.said;
        let every = self.lease / BEATS;
        let due = self.said_at.map(|at| if news && !self.unheard { at + TOGETHER } else { at + every });
        if let Some(due) = due.filter(|due| *due > now) {
            return due;
        }
        self.say(beat, now).await;
        now + every
    }

    async fn say(&mut self, beat: Heartbeat, now: Instant) {
        let beat = Heartbeat { sequence: self.said.sequence + 1, ..beat };
        let said = tokio::time::timeout(self.lease / BEATS, self.log.beat(beat.clone())).await;
        self.said_at = Some(now);
        self.said.sequence = beat.sequence;
        self.unheard = !matches!(said, Ok(Ok(())));
        match said {
            Ok(Ok(())) => (self.said, self.asked) = (beat, false),
            Ok(Err(error)) => tracing::debug!(%error, "other hosts cannot be told of this one"),
            Err(_) => tracing::debug!("other hosts cannot be told of this one: the log takes its time"),
        }
    }

    /// What this host can run. A handler that stops for a moment, to begin with other settings, stays this host's meanwhile.
    fn runs(&mut self) -> Vec<(HandlerName, u16)> {
        self.known.extend(self.host.runs());
        let holders = self.host.holders();
        let holders = holders.borrow();
        self.known.retain(|handler, _| holders.contains(handler));
        self.known.iter().map(|(handler, shards)| (handler.clone(), *shards)).collect()
    }

    fn said_of_handlers(&mut self) -> Vec<Runs> {
        let mut held = BTreeMap::<HandlerName, Vec<u16>>::new();
        for shard in self.host.holding().held().into_keys() {
            held.entry(shard.handler).or_default().push(shard.index);
        }
        let runs = |(handler, shards): (HandlerName, u16)| {
            let held = held.remove(&handler).unwrap_or_default();
            Runs { handler, shards, held: held.into_iter().collect() }
        };
        let mut all: Vec<Runs> = self.runs().into_iter().map(runs).collect();
        // What it cannot run any more and has not given up.
        all.extend(held.into_iter().map(|(handler, held)| Runs {
            handler,
            shards: 0,
            held: held.into_iter().collect(),
        }));
        all
    }
}
