//! A run's summary as bytes: numbers of seven bits a byte, texts with their length before them. A head is written with
//! every step, so its size is a good part of what a step costs.

use std::collections::BTreeMap;

use dssflow_engine::id::RunId;
use dssflow_engine::run::RunStatus;
use dssflow_engine::store::RunSummary;
use dssflow_engine::time::Timestamp;

const LIVE: u8 = 1;

/// Appends a summary, but for when the run was created, which the head has already.
pub(crate) fn write(into: &mut Vec<u8>, summary: &RunSummary) {
    into.push(u8::from(summary.live) * LIVE);
    number(into, summary.updated.as_millis());
    number(into, summary.done.into());
    number(into, summary.total.into());
    for part in
        [summary.run.as_str(), &summary.workflow, &summary.site, summary.status.as_str(), &summary.note]
    {
        text(into, part);
    }
    number(into, summary.labels.len() as u64);
    for (name, value) in &summary.labels {
        text(into, name);
        text(into, value);
    }
}

/// Reads what [`write`] wrote and nothing else.
pub(crate) fn read(bytes: &[u8], created: Timestamp) -> Option<RunSummary> {
    let mut fields = Fields(bytes);
    let live = match fields.byte()? {
        0 => false,
        LIVE => true,
        _ => return None,
    };
    let updated = Timestamp::from_millis(fields.number()?);
    let done = fields.number()?.try_into().ok()?;
    let total = fields.number()?.try_into().ok()?;
    let run = RunId::new(fields.text()?).ok()?;
    let workflow = fields.text()?.to_owned();
    let site = fields.text()?.to_owned();
    let status = RunStatus::parse(fields.text()?)?;
    let note = fields.text()?.to_owned();
    let mut labels = BTreeMap::new();
    for _ in 0..fields.number()? {
        labels.insert(fields.text()?.to_owned(), fields.text()?.to_owned());
    }
    let summary =
        RunSummary { run, workflow, site, status, created, updated, done, total, live, note, labels };
    fields.0.is_empty().then_some(summary)
}

fn number(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push((number & 0x7f) as u8);
}

fn text(into: &mut Vec<u8>, text: &str) {
    number(into, text.len() as u64);
    into.extend_from_slice(text.as_bytes());
}

/// Reads field by field; `None` where there is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && part > 1 {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> RunSummary {
        RunSummary {
            run: RunId::new("nightly-7").unwrap(),
            workflow: "bootstrap".to_owned(),
            site: "lab".to_owned(),
            status: RunStatus::Running,
            created: Timestamp::from_millis(1_700_000_000_000),
            updated: Timestamp::from_millis(u64::MAX),
            done: 127,
            total: 128,
            live: true,
            note: "höhe".to_owned(),
            labels: [("team".to_owned(), "data".to_owned()), ("x".to_owned(), String::new())].into(),
        }
    }

    #[test]
    fn every_summary_round_trips() {
        for &status in RunStatus::ALL {
            for (live, updated) in [(true, 0), (false, 1_700_000_000_999), (true, u64::MAX)] {
                let updated = Timestamp::from_millis(updated);
                let summary = RunSummary { status, live, updated, ..summary() };
                let mut bytes = Vec::new();
                write(&mut bytes, &summary);
                assert_eq!(read(&bytes, summary.created), Some(summary));
            }
        }
    }

    #[test]
    fn what_is_cut_longer_or_changed_is_not_read_as_another() {
        let mut bytes = Vec::new();
        write(&mut bytes, &summary());
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len], summary().created), None, "{len} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(read(&longer, summary().created), None);
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            // Reading never fails badly, whatever the bytes are; the checksum is what tells damage.
            assert_ne!(read(&changed, summary().created), Some(summary()), "byte {at}, bit {bit}");
        }
        assert!(bytes.len() < 80, "{} bytes", bytes.len());
    }
}
