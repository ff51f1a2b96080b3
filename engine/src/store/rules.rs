//! What any store must refuse or cut, and how a query is read: one implementation for all of them.

use super::{
    Expect, GraphHash, ListQuery, MAX_PAGE, MAX_RECORD_BYTES, MAX_SUMMARY_BYTES, RunSummary, StoreError,
    Transition,
};
use crate::id::RunId;
use crate::run::RunStatus;
use crate::time::Timestamp;

/// Longest graph hash a store takes, in bytes; it is part of store keys.
const MAX_GRAPH_HASH_BYTES: usize = 128;

/// The JSON of a summary without its texts and labels has at most so many bytes.
const SUMMARY_FRAME_BYTES: usize = 220;

/// In the year 5138: the first time with a digit more than those of our days.
const FAR_FUTURE: Timestamp = Timestamp::from_millis(100_000_000_000_000);

/// Stands at the end of a note that was cut.
const CUT_MARK: &str = "…";

impl Expect {
    /// Compares with the sequence number of the run's last event, `None` when there is no such run, and returns
    /// the one that the change goes on from. For implementations of [`Store`](super::Store).
    ///
    /// # Errors
    /// [`StoreError::Exists`] or [`StoreError::Conflict`]; a run that does not exist is at event 0.
    pub fn check(&self, run: &RunId, found: Option<u64>) -> Result<u64, StoreError> {
        match (self, found) {
            (Self::New, None) => Ok(0),
            (Self::New, Some(_)) => Err(StoreError::Exists(run.clone())),
            (Self::At { seq }, Some(found)) if *seq == found => Ok(found),
            (Self::At { .. }, found) => Err(StoreError::Conflict { seq: found.unwrap_or(0) }),
        }
    }
}

impl Transition {
    /// Checks what any store must refuse, and cuts the summary's note to fit. For implementations of
    /// [`Store`](super::Store), before anything is written.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for a record, summary or graph over its limit; the summary of a new run must fit
    /// however the run goes on. [`StoreError::Invalid`] for a transition that makes no sense: without events, with a
    /// summary of another run, or with a graph hash that is no hash.
    pub fn check(&mut self) -> Result<(), StoreError> {
        let too_large = |what, size, limit| Err(StoreError::TooLarge { what, size, limit });
        if self.record.len() > MAX_RECORD_BYTES {
            return too_large("the record", self.record.len(), MAX_RECORD_BYTES);
        }
        if let Some((hash, bytes)) = &self.graph {
            check_graph(hash, bytes)?;
        }
        if let Some(schedule) = &self.schedule {
            schedule.check()?;
        }
        if self.events == 0 {
            return Err(StoreError::Invalid("a transition must hold at least one event".to_owned()));
        }
        of_run(&self.run, &self.summary)?;
        if self.expect == Expect::New {
            fits_for_ever(&self.summary)?;
        }
        fit(&mut self.summary)
    }
}

/// Checks what any store must refuse of a graph. For implementations of [`Store`](super::Store).
///
/// # Errors
/// [`StoreError::TooLarge`] and [`StoreError::Invalid`], as [`Transition::check`].
pub fn check_graph(hash: &GraphHash, bytes: &[u8]) -> Result<(), StoreError> {
    if bytes.len() > MAX_RECORD_BYTES {
        let size = bytes.len();
        return Err(StoreError::TooLarge { what: "the graph", size, limit: MAX_RECORD_BYTES });
    }
    is_hash(hash)
}

pub(super) fn is_hash(hash: &GraphHash) -> Result<(), StoreError> {
    let (size, limit) = (hash.0.len(), MAX_GRAPH_HASH_BYTES);
    if size > limit {
        return Err(StoreError::TooLarge { what: "the graph's hash", size, limit });
    }
    if hash.0.is_empty() || !hash.0.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(StoreError::Invalid(format!("{:?} is no hash of a graph", hash.0)));
    }
    Ok(())
}

pub(super) fn of_run(run: &RunId, summary: &RunSummary) -> Result<(), StoreError> {
    if summary.run == *run {
        return Ok(());
    }
    let why = format!("the summary is of run {}, the change of run {run}", summary.run);
    Err(StoreError::Invalid(why))
}

/// An upper bound of the summary's JSON, got without making it.
fn at_most(summary: &RunSummary) -> usize {
    let texts = [summary.run.as_str(), &summary.workflow, &summary.site, &summary.note];
    let texts: usize = texts.iter().map(|text| escaped_len(text)).sum();
    let label =
        |(name, value): (&String, &String)| r#""":"","#.len() + escaped_len(name) + escaped_len(value);
    let labels: usize = summary.labels.iter().map(label).sum();
    SUMMARY_FRAME_BYTES + texts + labels
}

fn encoded_len(summary: &RunSummary) -> usize {
    serde_json::to_vec(summary).expect("a struct of texts and numbers can be written as JSON").len()
}

/// Refuses a new run whose names and labels would leave no room for a longer status or larger numbers: it could be
/// created, and never be written again.
fn fits_for_ever(summary: &RunSummary) -> Result<(), StoreError> {
    if at_most(summary) <= MAX_SUMMARY_BYTES {
        return Ok(());
    }
    let longest = RunStatus::ALL.iter().copied().max_by_key(|status| status.as_str().len());
    let widest = RunSummary {
        status: longest.unwrap_or(summary.status),
        updated: summary.updated.max(FAR_FUTURE),
        done: summary.total.max(99_999),
        total: summary.total.max(99_999),
        live: false,
        note: String::new(),
        ..summary.clone()
    };
    let size = encoded_len(&widest);
    if size > MAX_SUMMARY_BYTES {
        return Err(StoreError::TooLarge { what: "the run summary", size, limit: MAX_SUMMARY_BYTES });
    }
    Ok(())
}

/// Cuts the note so that the summary's JSON fits [`MAX_SUMMARY_BYTES`].
pub(super) fn fit(summary: &mut RunSummary) -> Result<(), StoreError> {
    if at_most(summary) <= MAX_SUMMARY_BYTES || encoded_len(summary) <= MAX_SUMMARY_BYTES {
        return Ok(());
    }
    let note = std::mem::take(&mut summary.note);
    let bare = encoded_len(summary);
    if bare > MAX_SUMMARY_BYTES {
        return Err(StoreError::TooLarge { what: "the run summary", size: bare, limit: MAX_SUMMARY_BYTES });
    }
    let Some(room) = MAX_SUMMARY_BYTES.checked_sub(bare + r#","note":"""#.len() + CUT_MARK.len()) else {
        return Ok(());
    };
    let mut used = 0;
    for c in note.chars() {
        used += escaped_len(c.encode_utf8(&mut [0; 4]));
        if used > room {
            break;
        }
        summary.note.push(c);
    }
    summary.note.push_str(CUT_MARK);
    Ok(())
}

/// Bytes of a text in JSON, without its quotes.
pub(crate) fn escaped_len(text: &str) -> usize {
    text.bytes()
        .map(|b| match b {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

impl ListQuery {
    /// Whether a run belongs in the answer, the cursor left aside. For implementations of [`Store`](super::Store).
    pub fn matches(&self, summary: &RunSummary) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&summary.status))
            && self.workflow.as_ref().is_none_or(|workflow| *workflow == summary.workflow)
            && self.site.as_ref().is_none_or(|site| *site == summary.site)
            && self.prefix.as_ref().is_none_or(|prefix| summary.run.as_str().starts_with(prefix.as_str()))
            && self.labels.iter().all(|(name, value)| summary.labels.get(name) == Some(value))
            && self.created_from.is_none_or(|from| summary.created >= from)
            && self.created_before.is_none_or(|before| summary.created < before)
    }

    /// The limit in force.
    pub fn page_size(&self) -> usize {
        if self.limit == 0 { MAX_PAGE } else { self.limit.min(MAX_PAGE) }
    }

    /// The creation time and id of the last run of the page before. For implementations of [`Store`](super::Store).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a cursor that no store has written.
    pub fn after(&self) -> Result<Option<(Timestamp, RunId)>, StoreError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        cursor
            .split_once('~')
            .and_then(|(at, run)| Some((Timestamp::from_millis(at.parse().ok()?), RunId::new(run).ok()?)))
            .map(Some)
            .ok_or_else(|| StoreError::Invalid(format!("{cursor:?} is no cursor")))
    }

    /// The cursor that goes on after this run.
    pub fn cursor_after(summary: &RunSummary) -> String {
        format!("{}~{}", summary.created.as_millis(), summary.run)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    fn summary() -> RunSummary {
        conformance::transition("r", Expect::New, 1).summary
    }

    #[test]
    fn the_size_of_a_summary_is_never_underestimated() {
        let mut summary = summary();
        (summary.created, summary.updated) = (Timestamp::MAX, Timestamp::MAX);
        (summary.done, summary.total) = (u32::MAX, u32::MAX);
        for status in RunStatus::ALL {
            summary.status = *status;
            for text in ["", "a", "\"\\\n\u{1}é\u{7f}"] {
                (summary.site, summary.note) = (format!("s{text}"), format!("n{text}"));
                for labels in 0..3 {
                    summary.labels = (0..labels).map(|i| (format!("{i}{text}"), text.to_owned())).collect();
                    assert!(encoded_len(&summary) <= at_most(&summary), "{summary:?}");
                }
            }
        }
    }

    #[test]
    fn a_summary_without_labels_is_written_as_ever() {
        let text = serde_json::to_string(&summary()).unwrap();
        assert!(!text.contains("labels"), "{text}");
        assert_eq!(serde_json::from_str::<RunSummary>(&text).unwrap(), summary());
    }

    #[test]
    fn a_new_run_must_fit_however_it_goes_on() {
        let with_label = |len: usize| {
            let mut new = conformance::transition("r", Expect::New, 1);
            new.summary.labels = [("a".to_owned(), "v".repeat(len))].into();
            new
        };
        let fits = |len: &usize| with_label(*len).check().is_ok();
        let most = (0..MAX_SUMMARY_BYTES).filter(fits).max().unwrap();
        assert!(most > 250, "{most}");
        let mut worst = with_label(most);
        worst.expect = Expect::At { seq: 7 };
        for status in RunStatus::ALL {
            worst.summary.status = *status;
            worst.summary.updated = Timestamp::from_millis(99_999_999_999_999);
            worst.summary.done = worst.summary.total;
            worst.summary.note = "n".repeat(1_000);
            worst.check().unwrap();
            assert_eq!(worst.summary.labels["a"].len(), most, "labels are never cut");
        }
        let error = with_label(most + 1).check().unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { what: "the run summary", .. }), "{error:?}");
    }

    #[test]
    fn a_query_holds_the_first_moment_and_not_the_last() {
        let created = summary().created.as_millis();
        let at = |offset: u64| Some(Timestamp::from_millis(created - 1 + offset));
        for (created_from, created_before, expected) in [
            (None, None, true),
            (at(0), at(2), true),
            (at(1), at(2), true),
            (at(2), None, false),
            (None, at(1), false),
            (at(1), at(1), false),
        ] {
            let query = ListQuery { created_from, created_before, ..ListQuery::default() };
            assert_eq!(query.matches(&summary()), expected, "{query:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_invalid() {
        let broken = |breaks: fn(&mut Transition)| {
            let mut transition = conformance::transition("r", Expect::New, 1);
            breaks(&mut transition);
            transition.check().unwrap_err()
        };
        for error in [
            broken(|t| t.events = 0),
            broken(|t| t.summary.run = RunId::new("s").unwrap()),
            broken(|t| t.graph = Some((super::super::GraphHash("a\0b".to_owned()), Vec::new()))),
            broken(|t| t.graph = Some((super::super::GraphHash(String::new()), Vec::new()))),
        ] {
            assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
        }
        let query = ListQuery { cursor: Some("nonsense".to_owned()), ..ListQuery::default() };
        assert!(matches!(query.after(), Err(StoreError::Invalid(_))));
    }
}
