//! Retry arithmetic: how long to wait before the next attempt, and when to give up. Pure: the random number comes
//! in, the wake time goes out and into the history.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::activity::{ActivityError, ErrorClass};
use crate::run::OnTrouble;

/// How much chance goes into a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// What follows when these attempts are used up; by default what the step or the run says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnTrouble>,
    /// Other policies for some errors, each with a counter of its own. The first that matches wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RetryRule>,
}

/// A retry policy for some errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RetryRule {
    /// Only errors of this class; all when not given. Classes that are not retried at all (terminal, credentials,
    /// needs a human, cancelled) stay so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ErrorClass>,
    /// Only errors with one of these codes; a `*` at the end stands for anything. All when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<String>,
    /// How such errors are retried. Its own rules are not looked at.
    pub policy: RetryPolicy,
}

impl RetryRule {
    /// A policy for errors with the code `code`; a `*` at its end stands for anything.
    pub fn for_code(code: impl Into<String>, policy: RetryPolicy) -> Self {
        Self { class: None, codes: vec![code.into()], policy }
    }

    /// A policy for errors of a class.
    pub fn for_class(class: ErrorClass, policy: RetryPolicy) -> Self {
        Self { class: Some(class), codes: Vec::new(), policy }
    }

    fn matches(&self, error: &ActivityError) -> bool {
        self.class.is_none_or(|class| class == error.class)
            && (self.codes.is_empty()
                || self.codes.iter().any(|code| match code.strip_suffix('*') {
                    Some(start) => error.code.starts_with(start),
                    None => *code == error.code,
                }))
    }
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
            on_exhausted: None,
            rules: Vec::new(),
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
        let twice = |rule: &RetryRule| RetryRule { policy: rule.policy.for_undo(), ..rule.clone() };
        Self {
            maximum_attempts: self.maximum_attempts.saturating_mul(2),
            rules: self.rules.iter().map(twice).collect(),
            ..self.clone()
        }
    }

    /// The same without chance in its delays.
    #[must_use]
    pub fn without_jitter(mut self) -> Self {
        self.jitter = Jitter::None;
        self
    }

    /// The same with another delay after the first failure.
    #[must_use]
    pub fn first_after(mut self, interval: Duration) -> Self {
        self.initial_interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// The same with a rule more, looked at after those that are there.
    #[must_use]
    pub fn rule(mut self, rule: RetryRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Which rule an error falls under: its number and policy; `None` and the policy itself when there is none.
    pub fn for_error(&self, error: &ActivityError) -> (Option<u32>, &Self) {
        match (0..).zip(&self.rules).find(|(_, rule)| rule.matches(error)) {
            Some((n, rule)) => (Some(n), &rule.policy),
            None => (None, self),
        }
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
    fn the_first_rule_that_matches_wins() {
        let policy = RetryPolicy::attempts(3)
            .rule(RetryRule::for_code("Resource*", RetryPolicy::attempts(20)))
            .rule(RetryRule::for_class(ErrorClass::Retryable, RetryPolicy::attempts(5)));
        let attempts = |code: &str| {
            let (rule, policy) = policy.for_error(&ActivityError::retryable(code, ""));
            (rule, policy.maximum_attempts)
        };
        assert_eq!(attempts("ResourceInUse"), (Some(0), 20));
        assert_eq!(attempts("Other"), (Some(1), 5));
        let throttled = ActivityError::throttled("Slow", "");
        assert_eq!(policy.for_error(&throttled).1.maximum_attempts, 3);
        assert_eq!(policy.for_undo().rules[0].policy.maximum_attempts, 40);
    }

    #[test]
    fn full_jitter_spans_the_whole_delay_and_the_server_wins() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(3, 0.0, None), Duration::ZERO);
        assert_eq!(policy.delay(3, 0.25, None), Duration::from_secs(2));
        assert_eq!(policy.delay(3, 0.25, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }
}
