//! Cron expressions: read by `croner`, asked for the next match on a clock without a zone.

use std::fmt;

use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;

use super::spec::MAX_CRON_BYTES;

/// A cron expression that was read: five fields (minute, hour, day of month, month, day of week), six (seconds before
/// them) or seven (a year behind them), or one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
///
/// Read as crontab(5) has it: when both days are restricted, either of them matches; `+` before the day of week asks for
/// both. `L`, `W` and `#` mean the last, the nearest weekday and the nth.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    cron: croner::Cron,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_CRON_BYTES {
            return Err(format!("it has {} bytes, at most {MAX_CRON_BYTES} are allowed", text.len()));
        }
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(format!("it has the control character {control:?}"));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).build();
        let cron = parser.parse(text).map_err(|error| {
            let why = error.to_string();
            why.trim_end_matches('.').to_owned()
        })?;
        Ok(Self { text: text.to_owned(), cron })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// In English words.
    pub fn describe(&self) -> String {
        self.cron.describe()
    }

    /// The first match on the clock at or after `local`; none when there never is one.
    pub(super) fn next_local(&self, local: DateTime) -> Option<DateTime> {
        self.cron.find_next_occurrence(&local, true).ok()
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}
