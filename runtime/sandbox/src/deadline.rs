//! The deadline of a run, as seen from outside the guest.
//!
//! A guest that computes is stopped by the epoch; one that waits in an import is not, because no guest code runs. So the
//! whole future races a timer, made only once the future has to wait: a run that completes at its first poll pays nothing.

use sluicebox_core::clock;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;
use tokio::time::{Instant as TokioInstant, Sleep, sleep_until};

/// The future's output, or `None` when it was not ready by the deadline; the caller then drops it, which stops what it
/// does. Taken by reference, because the future of a run is some kilobytes and would be stored twice.
pub(super) async fn by<F: Future>(deadline: Instant, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(TokioInstant::from_std(deadline))));
        // The timer's resolution is a millisecond and a busy runtime is late, so the clock is asked too.
        if timer.as_mut().poll(cx).is_ready() || clock::instant() >= deadline {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}
