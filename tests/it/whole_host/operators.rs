//! What operators do meanwhile: commands, and a handler that is forgotten and begins anew.

use super::{KEYS, Run, key};
use rand::RngExt as _;
use sluicebox::commit::{DeadFilter, DeadQuery};
use sluicebox::control::Command;
use sluicebox::log::{DelayedFilter, DelayedQuery, Log as _};
use sluicebox::message::Offset;
use std::time::Duration;

impl Run {
    pub async fn operate(&mut self) {
        let handler = self.random.random_range(0..self.handlers.len());
        let newest = self.log.dead(DeadQuery::newest(DeadFilter::default(), 1)).await.unwrap_or_default();
        let filter = DeadFilter { upto: newest.first().map(|letter| letter.number), ..DeadFilter::default() };
        let key = key(self.random.random_range(0..KEYS));
        let command = match self.random.random_range(0..12) {
            0 => Command::Pause,
            1 | 2 => Command::Resume,
            3 => Command::Trip,
            4 => Command::Reset,
            5 => Command::PauseKey { key },
            6 => Command::ResumeKey { key },
            7 => Command::RetryDead { filter, to: None },
            8 => Command::DropDead { filter },
            9 => Command::RetryNow { key: None, offset: None },
            10 => Command::RetryNow { key: Some(key), offset: None },
            _ => return self.cancel(handler).await,
        };
        self.command(handler, command).await;
    }

    /// One of the messages that wait until they are due.
    async fn cancel(&mut self, handler: usize) {
        let name = self.handlers[handler].name.clone();
        let (filter, delayed_max) = (DelayedFilter::default(), 20);
        let query = DelayedQuery { handler: name.clone(), filter, after: None, delayed_max };
        let Ok(found) = self.log.delayed(query).await else { return };
        if found.is_empty() {
            return;
        }
        let chosen = &found[self.random.random_range(0..found.len())];
        let source = chosen.id.as_deref().and_then(|id| id.parse().ok()).unwrap();
        self.world.cancelled(&name, Offset(source));
        let (shard, number) = (chosen.place.shard, chosen.place.number);
        self.command(handler, Command::CancelDelayed { shard, number, id: None }).await;
    }

    /// It is taken out of the settings, forgotten, and put in again: it begins with the oldest message.
    pub async fn forget(&mut self) {
        let forgotten = self.handlers[self.random.random_range(0..self.handlers.len())].name.clone();
        self.taken_out = Some(forgotten.clone());
        self.apply().await;
        // What a host that died had sent arrives before: the log's own terms begin anew with the handler.
        tokio::time::sleep(Duration::from_secs(3)).await;
        while self.log.forget(forgotten.clone()).await.is_err() {
            self.look_for_log().await;
        }
        self.log.keep().await;
        self.world.forgotten(&forgotten, self.log.kept()).await;
        self.taken_out = None;
        self.apply().await;
    }
}
