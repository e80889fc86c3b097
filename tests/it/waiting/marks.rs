//! What one shard remembers longer than it must costs no other shard a mark.

use super::still_time::{in_still_time, in_time, pass};
use super::{handler, message, metric};
use crate::harness::native::{Native, count};
use sluicebox::handler::{Dedup, Policy};
use sluicebox::host::Host;
use sluicebox::log::Log;
use sluicebox::log::memory::MemoryLog;
use sluicebox::message::{Key, NewMessage};
use sluicebox::reader::Options;
use sluicebox::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;

const MARKS_MAX: usize = 20;

#[test]
fn an_id_inside_the_window_is_skipped_although_a_shard_that_hears_nothing_had_as_many_as_may_be() {
    in_still_time(async {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
        let invoke = Native::new(|call| async move { Ok(count(&call, "out")) });
        let dedup = Some(Dedup { window: Duration::from_secs(60), marks_max: MARKS_MAX, ..Dedup::default() });
        let handlers = vec![handler("h", 2, Policy { dedup, ..Policy::default() }, invoke)];
        let metrics = Arc::new(Metrics::new());
        let host = Host::start(log.clone(), handlers, metrics.clone(), Options::default()).await.unwrap();
        let routing = log.routings().await.unwrap().routings.remove(0);
        // Keys of either shard, each its own id.
        let of = |index: u16| -> Vec<NewMessage> {
            let keys = (0..1000).map(|number| format!("k{number}"));
            let mine = keys.filter(|key| routing.shard_of(&Key::parse(key).unwrap().unwrap()) == index);
            let with_id = |key: String| NewMessage { id: Some(key.as_str().into()), ..message("in", &key, vec![]) };
            mine.take(MARKS_MAX).map(with_id).collect()
        };
        let outcome = |outcome: &str| {
            metric(&metrics, &format!(r#"messages_total{{handler="h",outcome="{outcome}",topic="in"}}"#)) as usize
        };
        log.append(of(0)).await.unwrap();
        in_time("the first shard is done", || outcome("done") == MARKS_MAX).await;
        pass(Duration::from_secs(600)).await;
        // Messages of others, by which the shards hear that time has passed.
        log.append(vec![message("other", "k", vec![])]).await.unwrap();
        pass(Duration::from_secs(5)).await;
        log.append(of(1)).await.unwrap();
        in_time("the second shard is done", || outcome("done") == 2 * MARKS_MAX).await;
        log.append(of(1)).await.unwrap();
        in_time("each is told apart from a new one", || outcome("done") + outcome("duplicate") == 3 * MARKS_MAX).await;
        assert_eq!((outcome("done"), outcome("duplicate")), (2 * MARKS_MAX, MARKS_MAX));
        assert_eq!(metric(&metrics, r#"marks_evicted_total{handler="h"}"#), 0);
        host.stop().await;
    });
}
