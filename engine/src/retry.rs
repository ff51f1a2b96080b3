//! Retry arithmetic: how long to wait before the next attempt, and when to give up. Pure: the random number comes
//! in, the wake time goes out and into the history.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much chance goes into a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Jitter {
    /// Anywhere between nothing and the full delay.
    #[default]
    Full,
    /// Exactly the delay.
    None,
}

/// How a step is retried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetryPolicy {
    /// Delay after the first failure, in milliseconds. Default 2 s.
    pub initial_interval_ms: u64,
    /// Each further delay is so many times the last. Default 2.
    pub backoff_coefficient: f64,
    /// No delay is longer, in milliseconds. Default 60 s.
    pub maximum_interval_ms: u64,
    /// Attempts in all, the first included. Default 8.
    pub maximum_attempts: u32,
    /// Throttled attempts are counted apart; so many in a row give up. Default 100.
    pub maximum_throttles: u32,
    /// Chance in the delay. Default full.
    pub jitter: Jitter,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial_interval_ms: 2_000,
            backoff_coefficient: 2.0,
            maximum_interval_ms: 60_000,
            maximum_attempts: 8,
            maximum_throttles: 100,
            jitter: Jitter::Full,
        }
    }
}

impl RetryPolicy {
    /// The default with another number of attempts.
    pub fn attempts(maximum_attempts: u32) -> Self {
        Self { maximum_attempts, ..Self::default() }
    }

    /// The same with twice the attempts, for compensation.
    #[must_use]
    pub fn for_undo(&self) -> Self {
        Self { maximum_attempts: self.maximum_attempts.saturating_mul(2), ..self.clone() }
    }

    /// The delay after failure number `failures` (from 1). `chance` is in 0..1; `server` is the service's own
    /// wish, which wins.
    pub fn delay(&self, failures: u32, chance: f64, server: Option<Duration>) -> Duration {
        if let Some(wish) = server {
            return wish;
        }
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        #[expect(clippy::cast_precision_loss, reason = "intervals are far below 2^52 ms")]
        let (initial, maximum) = (self.initial_interval_ms as f64, self.maximum_interval_ms as f64);
        let full = (initial * self.backoff_coefficient.max(1.0).powi(exponent)).min(maximum);
        let drawn = match self.jitter {
            Jitter::Full => full * chance.clamp(0.0, 1.0),
            Jitter::None => full,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 <= drawn <= maximum, rounded down"
        )]
        Duration::from_millis(drawn as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let policy = RetryPolicy { jitter: Jitter::None, ..RetryPolicy::default() };
        let seconds: Vec<u64> = (1..=8).map(|n| policy.delay(n, 0.5, None).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(policy.delay(u32::MAX, 0.5, None), Duration::from_mins(1));
    }

    #[test]
    fn full_jitter_spans_the_whole_delay_and_the_server_wins() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(3, 0.0, None), Duration::ZERO);
        assert_eq!(policy.delay(3, 0.25, None), Duration::from_secs(2));
        assert_eq!(policy.delay(3, 0.25, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }
}
