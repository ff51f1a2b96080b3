//! The states of runs and steps, as everybody sees them.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As written in JSON and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one written so.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|s| s.as_str() == text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

status!(
    /// Where a run stands.
    RunStatus {
        /// Created, nothing started.
        Pending = "pending",
        /// Steps are running or about to.
        Running = "running",
        /// Nothing runs until a timer or a condition outside is met.
        Waiting = "waiting",
        /// Stopped by a person, by exhausted attempts, by missing credentials; goes on with `resume`.
        Paused = "paused",
        /// Taking back what it made.
        RollingBack = "rolling_back",
        /// Every step is done.
        Succeeded = "succeeded",
        /// A step failed for good; what it made is still there.
        Failed = "failed",
        /// Everything it made is gone again.
        RolledBack = "rolled_back",
        /// Something could not be taken back and wants a person.
        RollbackStuck = "rollback_stuck",
        /// Cancelled by a person, with what it made kept.
        Cancelled = "cancelled",
        /// Ran out of its time.
        TimedOut = "timed_out",
    }
);

impl RunStatus {
    /// Whether nothing happens any more unless somebody asks.
    pub fn is_end(self) -> bool {
        match self {
            Self::Succeeded
            | Self::Failed
            | Self::RolledBack
            | Self::RollbackStuck
            | Self::Cancelled
            | Self::TimedOut => true,
            Self::Pending | Self::Running | Self::Waiting | Self::Paused | Self::RollingBack => false,
        }
    }
}

status!(
    /// Where a step stands.
    StepStatus {
        /// Waits for other steps.
        Pending = "pending",
        /// May start.
        Ready = "ready",
        /// An attempt or a probe is under way.
        Running = "running",
        /// Failed, and will be tried again at a known time.
        Backoff = "backoff",
        /// Waits: for a probe's answer to settle, or for something in progress outside.
        Waiting = "waiting",
        /// Done by this run.
        Succeeded = "succeeded",
        /// Was there already; taken as it is and never undone.
        Adopted = "adopted",
        /// Failed for good.
        Failed = "failed",
        /// Its condition was false.
        Skipped = "skipped",
        /// Stopped before it was done.
        Cancelled = "cancelled",
        /// Being undone.
        Compensating = "compensating",
        /// Undone.
        Compensated = "compensated",
        /// Left in place by rule.
        Kept = "kept",
        /// Could not be undone.
        CompensationFailed = "compensation_failed",
    }
);

impl StepStatus {
    /// Whether steps after it may start.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Adopted | Self::Skipped)
    }
}
