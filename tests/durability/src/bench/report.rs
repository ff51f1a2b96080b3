//! The lines that are printed, and the bars they are held to.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::print_stderr, reason = "what is not held to a bar is told to people")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::bench::Options;

/// What was measured so far.
pub(crate) struct Report {
    /// Figures that later ones are compared with.
    known: BTreeMap<String, f64>,
    missed: Vec<String>,
    /// Bars of which the base was not measured.
    not_held: Vec<String>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let line = json!({ "name": "bench", "rounds": options.rounds, "cores": cores, "version": env!("CARGO_PKG_VERSION") });
        println!("{line}");
        Self { known: BTreeMap::new(), missed: Vec::new(), not_held: Vec::new() }
    }

    /// Prints a figure and keeps it.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, more: Value) {
        self.known.insert(name.to_owned(), value);
        let mut line = Map::new();
        line.insert("name".to_owned(), name.into());
        line.insert("value".to_owned(), round(value));
        line.insert("unit".to_owned(), unit.into());
        if let Value::Object(more) = more {
            line.extend(more);
        }
        println!("{}", Value::Object(line));
    }

    /// A figure from before; none when it was not asked for.
    pub(crate) fn known(&self, name: &str) -> Option<f64> {
        self.known.get(name).copied()
    }

    /// Prints how `value` stands to its bar: at least it, or at most it.
    pub(crate) fn bar(&mut self, name: &str, value: f64, bar: Bar) {
        let (met, word, limit) = match bar {
            Bar::AtLeast(limit) => (value >= limit, "at_least", limit),
            Bar::AtMost(limit) => (value <= limit, "at_most", limit),
        };
        if !met {
            self.missed.push(name.to_owned());
        }
        println!("{}", json!({ "bar": name, "value": round(value), word: limit, "met": met }));
    }

    /// Prints a bar on the ratio of two figures. Where one of them was not measured nothing is held, which is told.
    pub(crate) fn ratio(&mut self, name: &str, of: &str, to: &str, bar: Bar) {
        if let (Some(of), Some(to)) = (self.known(of), self.known(to)) {
            self.bar(name, of / to, bar);
        } else {
            eprintln!("bench: not held to its bar: {name}, as {to} was not measured");
            self.not_held.push(name.to_owned());
        }
    }

    /// Prints what a figure is to those of the limit and of the store, as far as they were measured.
    pub(crate) fn beside(&mut self, name: &str, value: f64, bases: &[&str]) {
        for base in bases {
            if let Some(known) = self.known(base) {
                self.figure(&format!("{name} / {base}"), value / known, "", json!({}));
            }
        }
    }

    /// Whether every bar was met.
    pub(crate) fn end(self) -> bool {
        println!("{}", json!({ "name": "end", "missed": self.missed, "not_held": self.not_held }));
        self.missed.is_empty()
    }
}

/// What a figure is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// Four digits are more than the machine repeats.
fn round(value: f64) -> Value {
    let digits = 10_f64.powf(3.0 - value.abs().max(1e-9).log10().floor());
    json!((value * digits).round() / digits)
}

/// The middle one; of an even number the lower middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// So many per cent of the values are at most this, in milliseconds.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> f64 {
    values.sort_unstable();
    ms(values[(values.len() * percent / 100).min(values.len() - 1)])
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// What this process has computed so far, on all cores together.
pub(crate) fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
