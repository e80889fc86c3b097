//! A log that leaves its host alone: what the host says then, and what it must not do.

use super::{Run, in_seed};
use sluicebox::log::Log as _;
use sluicebox::message::NewMessage;
use sluicebox::topic::{Pattern, Topic};
use std::time::Duration;

/// Of the time that stands still.
const SOON: Duration = Duration::from_secs(600);

#[test]
fn a_host_whose_tail_ends_says_that_it_cannot_go_on() {
    in_seed(1, async {
        let mut run = Run::new(1);
        run.log.mend();
        run.start().await;
        run.log.end_tails();
        run.publish().await;
        let failed = tokio::time::timeout(SOON, run.hosts[0].as_ref().unwrap().failed()).await;
        assert!(failed.is_ok_and(|reason| reason.contains("closed its tail")), "it looks well and delivers nothing");
    });
}

#[test]
fn a_subscription_of_which_nobody_knows_whether_it_was_recorded_is_found_out_before_anything_runs() {
    // Also where the log does not say at once what it recorded.
    for unanswered in [0, 1, 3] {
        in_seed(1, async {
            let mut run = Run::new(1);
            run.hosts.truncate(1);
            run.log.mend();
            run.start().await;
            run.handlers[0].subscribe.push(Pattern::parse("elsewhere").unwrap());
            run.log.lose_next_routing_answer(unanswered);
            let host = run.hosts[0].as_ref().unwrap();
            let applied = host.apply(run.handlers.clone()).await;
            // As a user does who sees that it did not work, and one who publishes meanwhile.
            run.log.append(vec![NewMessage::new(Topic::parse("elsewhere").unwrap(), "ok")]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            if applied.is_err() {
                host.apply(run.handlers.clone()).await.unwrap();
            }
            run.settle().await.unwrap();
        });
    }
}
