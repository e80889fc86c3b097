//! Which shards this host holds: from before each is claimed until nothing of it is under way any more. What a host tells
//! others of itself is made from this.
//!
//! Where a placement decides who works on which shard, a shard that is fenced, or does not know what became of its commit,
//! leaves instead of claiming again: another host may have it by now.

use crate::commit::Term;
use crate::handler::ShardId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Why a shard left by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Another host claimed it.
    Fenced,
    /// The log did not say what became of a commit or a claim.
    Doubt,
}

/// The shards of one host. Clones share it.
#[derive(Clone, Default)]
pub struct Holding(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_placed: AtomicBool,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// `None`: being claimed.
    held: BTreeMap<ShardId, Option<Term>>,
    /// Bounded: a shard is here once until somebody asks.
    lost: BTreeMap<ShardId, Loss>,
}

impl Holding {
    /// From now on shards leave what they may have lost to a placement, which must ask for [`Holding::take_lost`].
    pub fn leave_to_placement(&self) {
        self.0.is_placed.store(true, Ordering::Release);
    }

    pub fn is_placed(&self) -> bool {
        self.0.is_placed.load(Ordering::Acquire)
    }

    /// What is held, with the term if it was claimed.
    pub fn held(&self) -> BTreeMap<ShardId, Option<Term>> {
        self.state().held.clone()
    }

    /// What left by itself since the last time.
    pub fn take_lost(&self) -> BTreeMap<ShardId, Loss> {
        std::mem::take(&mut self.state().lost)
    }

    /// Changes with each of both.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// A shard is held until this is dropped.
    pub fn hold(&self, shard: &ShardId) -> Held {
        self.change(|state| state.held.insert(shard.clone(), None));
        Held { holding: self.clone(), shard: shard.clone() }
    }

    /// A shard leaves by itself.
    pub fn lose(&self, shard: &ShardId, loss: Loss) {
        self.change(|state| state.lost.insert(shard.clone(), loss));
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) {
        drop(change(&mut self.state()));
        self.0.changed.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard is held.
pub struct Held {
    holding: Holding,
    shard: ShardId,
}

impl Held {
    /// It was claimed with this term.
    pub(super) fn claimed(&self, term: Term) {
        self.holding.change(|state| state.held.insert(self.shard.clone(), Some(term)));
    }

    /// It leaves by itself.
    pub(super) fn lose(&self, loss: Loss) {
        self.holding.lose(&self.shard, loss);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holding.change(|state| state.held.remove(&self.shard));
    }
}
