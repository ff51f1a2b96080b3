//! Waiting inside one attempt: ask, wait a little longer each time, ask again.
//!
//! The only place that uses the `backoff` crate, and only for its arithmetic: time is the engine's, and retries of
//! attempts are the engine's durable ones.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use dssflow_engine::activity::{ActivityContext, ActivityError, ActivityResult, ErrorClass};

use super::error::{SLOW_PROGRESS, slow_progress};

/// How the time between two looks grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// How often in a row a look may fail with an error that may go away, before the wait ends with it.
    pub errors: u32,
}

impl Pace {
    /// For things that take seconds.
    pub const QUICK: Self =
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(2), errors: 3 };
    /// For things that take minutes, as a cluster.
    pub const SLOW: Self =
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(20), errors: 8 };

    fn intervals(self) -> ExponentialBackoff {
        ExponentialBackoff {
            current_interval: self.first,
            initial_interval: self.first,
            max_interval: self.longest,
            multiplier: 1.6,
            randomization_factor: 0.0,
            // The attempt's own timeout ends the wait.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        }
    }
}

/// Asks until the answer is `Some`. A look that fails with an error that may go away is repeated a few times, so
/// that one lost reply does not end a wait of half an hour.
///
/// # Errors
/// The look's own error when it is for good or repeats, and [`ActivityError::cancelled`].
pub async fn until<T, F>(
    ctx: &ActivityContext,
    pace: Pace,
    mut look: impl FnMut() -> F + Send,
) -> ActivityResult<T>
where
    T: Send,
    F: Future<Output = ActivityResult<Option<T>>> + Send,
{
    let mut intervals = pace.intervals();
    let mut failed = 0;
    loop {
        let wait = match Box::pin(look()).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {
                failed = 0;
                Duration::ZERO
            }
            Err(error) if may_go_away(&error) && failed < pace.errors => {
                failed += 1;
                tracing::debug!(%error, failed, "a look failed; looking again");
                Duration::from_millis(error.retry_after_ms.unwrap_or_default())
            }
            Err(error) => return Err(error),
        };
        let next = intervals.next_backoff().unwrap_or(pace.longest);
        ctx.sleep(wait.max(next)).await?;
    }
}

fn may_go_away(error: &ActivityError) -> bool {
    matches!(error.class, ErrorClass::Retryable | ErrorClass::Throttled) && error.code != SLOW_PROGRESS
}

/// What one look at something slow saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is ready.
    Ready(T),
    /// It is on its way, in this state, as `CREATING`.
    Still(String),
}

/// Waits until something that takes minutes is ready, and says with every look in which state it is. Ends shortly
/// before the attempt's timeout would, with an error that tells the state: the next attempt goes on waiting.
///
/// # Errors
/// `SlowProgress`, the look's own error when it is for good or repeats, and [`ActivityError::cancelled`].
pub async fn until_ready<T, F>(
    ctx: &ActivityContext,
    pace: Pace,
    what: &str,
    mut look: impl FnMut() -> F + Send,
) -> ActivityResult<T>
where
    T: Send,
    F: Future<Output = ActivityResult<Seen<T>>> + Send,
{
    let started = ctx.now();
    let last = Mutex::new("not seen".to_owned());
    let margin = pace.longest + MARGIN;
    until(ctx, pace, || {
        let (seen, last) = (look(), &last);
        async move {
            let waited = ctx.now().since(started);
            let seen = match seen.await {
                Ok(Seen::Ready(value)) => return Ok(Some(value)),
                Ok(Seen::Still(status)) => {
                    ctx.heartbeat(match waited.as_secs() / 60 {
                        0 => status.clone(),
                        minutes => format!("{status} for {minutes} min"),
                    });
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = status;
                    Ok(None)
                }
                Err(error) => Err(error),
            };
            let ends = ctx.deadline().is_some_and(|deadline| deadline.since(ctx.now()) < margin);
            if ends && seen.is_ok() && waited > margin {
                let status = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Err(slow_progress(what, &status, waited));
            }
            seen
        }
    })
    .await
}

/// How long before the attempt's end a wait gives up by itself.
const MARGIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_stay_there() {
        let mut intervals = Pace::QUICK.intervals();
        let waits: Vec<_> = (0..12).filter_map(|_| intervals.next_backoff()).collect();
        assert_eq!(waits[0], Pace::QUICK.first);
        assert!(waits.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(waits[11], Pace::QUICK.longest);
    }

    #[test]
    fn only_passing_errors_are_looked_over() {
        assert!(may_go_away(&ActivityError::retryable("x", "y")));
        assert!(may_go_away(&ActivityError::throttled("x", "y")));
        assert!(!may_go_away(&ActivityError::terminal("x", "y")));
        assert!(!may_go_away(&slow_progress("x", "CREATING", Duration::ZERO)));
        assert!(!may_go_away(&ActivityError::credentials("x", "y")));
    }
}
