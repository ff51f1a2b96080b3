//! Moments as people write them: so long ago, or a date and time in UTC. Pure.

use std::time::Duration;

use dssflow_engine::time::Timestamp;

use crate::error::{Code, CommandError, CommandResult};

/// The moment that `text`, given with `flag`, names.
///
/// # Errors
/// When it names none.
pub(crate) fn parse(flag: &str, text: &str, now: Timestamp) -> CommandResult<Timestamp> {
    ago(text).map(|ago| before(now, ago)).or_else(|| date(text)).ok_or_else(|| {
        CommandError::new(Code::Usage, format!("{flag} {text:?} is no time"))
            .hint("so long ago is written 90s, 30m, 12h, 2d or 1w")
            .hint("a time is written 2026-11-23, 2026-11-23T14:05 or 2026-11-23T14:05:09Z, and means UTC")
    })
}

/// The time that `text`, given with `flag`, says, as `90s` or `2d`.
///
/// # Errors
/// When it says none.
pub(crate) fn duration(flag: &str, text: &str) -> CommandResult<Duration> {
    ago(text).ok_or_else(|| {
        CommandError::new(Code::Usage, format!("{flag} {text:?} is no length of time"))
            .hint("it is written 90s, 30m, 12h, 2d or 1w")
    })
}

fn before(now: Timestamp, ago: Duration) -> Timestamp {
    let ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(ms))
}

/// As `2d`.
fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = digits(&text[..text.len() - unit.len_utf8()])?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.saturating_mul(seconds)))
}

/// As `2026-11-23T14:05:09Z`; the time, its seconds and the `Z` may be left out.
fn date(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let day: Vec<u64> = day.split('-').map(digits).collect::<Option<_>>()?;
    let time: Vec<u64> = time.split(':').map(digits).collect::<Option<_>>()?;
    let (&[year, month, day], (hour, minute, second)) = (
        day.as_slice(),
        match *time.as_slice() {
            [hour, minute] => (hour, minute, 0),
            [hour, minute, second] => (hour, minute, second),
            _ => return None,
        },
    ) else {
        return None;
    };
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    if day == 0 || day > days_of(year, month) {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
        + (1..month).map(|m| days_of(year, m)).sum::<u64>()
        + (day - 1);
    Some(Timestamp::from_millis((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// A number without sign or blanks.
fn digits(text: &str) -> Option<u64> {
    text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_printed() {
        let now = Timestamp::from_millis(1_709_208_000_123);
        let at = |text: &str| parse("--since", text, now).map(|at| at.to_string()).ok();
        for (text, moment) in [
            ("0s", "2024-02-29T12:00:00.123Z"),
            ("2d", "2024-02-27T12:00:00.123Z"),
            ("90m", "2024-02-29T10:30:00.123Z"),
            ("1w", "2024-02-22T12:00:00.123Z"),
            ("99999999999w", "1970-01-01T00:00:00.000Z"),
            ("2024-02-29", "2024-02-29T00:00:00.000Z"),
            ("1970-01-01", "1970-01-01T00:00:00.000Z"),
            ("2100-03-01T14:05", "2100-03-01T14:05:00.000Z"),
            ("2026-11-23T14:05:09Z", "2026-11-23T14:05:09.000Z"),
            ("2026-11-23 14:05:09Z", "2026-11-23T14:05:09.000Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(moment), "{text}");
        }
        for text in
            ["", "d", "2", "2y", "-2d", "+2d", "2023-02-29", "2026-13-01", "2026-11-23T24:00", "today", "2é"]
        {
            assert_eq!(at(text), None, "{text}");
        }
    }
}
