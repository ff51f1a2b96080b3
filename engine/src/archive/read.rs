//! Reads an archive line by line and checks all of it. Holds one record or graph at a time.

use std::io::{self, BufRead};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::line::{BadLine, Sums};
use super::{ARCHIVE_FORMAT, ArchivedRun, ArchivedSchedule, Header, MAX_GRAPHS, MAX_LINE_BYTES, Totals};
use crate::id::{RunId, ScheduleId};
use crate::store::{GraphHash, MAX_RECORD_BYTES, Record};
use crate::time::Timestamp;

/// Why an archive cannot be read, and what mends it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The input failed.
    #[error("line {line} of the backup could not be read: {error}")]
    Io {
        /// The line, from 1.
        line: u64,
        /// Why.
        error: Arc<io::Error>,
    },
    /// It is something else.
    #[error(
        "this is no backup of dssflow: {why}; a backup begins with a line of JSON that names dssflow_archive"
    )]
    NotAnArchive {
        /// What its first line is.
        why: String,
    },
    /// A later version wrote it.
    #[error(
        "the backup has format {found}; this version reads up to {ARCHIVE_FORMAT}, so a newer one is needed"
    )]
    Newer {
        /// The format found.
        found: u64,
    },
    /// It ends too early.
    #[error("the backup was cut off after line {line}{}; the {whole} runs before that are whole and can be saved, for the rest another copy is needed", run.as_ref().map(|run| format!(", within run {run}")).unwrap_or_default())]
    CutOff {
        /// The last whole line.
        line: u64,
        /// The run within which it ends.
        run: Option<RunId>,
        /// How many runs are whole.
        whole: u64,
    },
    /// What stands there is not what was written.
    #[error("line {line} of the backup is damaged{}: {what}; use another copy of it, or save the runs that are whole", run.as_ref().map(|run| format!(" (run {run})")).unwrap_or_default())]
    Damaged {
        /// The line, from 1.
        line: u64,
        /// The run concerned.
        run: Option<RunId>,
        /// What is wrong.
        what: String,
    },
}

/// What comes next in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A graph that runs after it name.
    Graph(GraphHash, Vec<u8>),
    /// A run begins.
    Run(ArchivedRun),
    /// The next record of that run.
    Record(Record),
    /// That run was whole.
    EndOfRun(RunId),
    /// A schedule.
    Schedule(ArchivedSchedule),
}

/// Reads an archive.
///
/// After an error in the middle the next call goes on at the next graph, run or schedule that can be read, so that whatever is
/// whole can be saved from a damaged archive. After its end, or after it was cut off, there is nothing more.
#[derive(Debug)]
pub struct ArchiveReader<R> {
    input: R,
    header: Header,
    sums: Sums,
    /// Lines read so far.
    line: u64,
    bytes: u64,
    run: Option<Open>,
    totals: Totals,
    /// What was read and belongs to what comes next.
    ahead: Option<Line>,
    /// Set after damage: lines are passed over until a graph or run begins.
    lost: bool,
    /// Whether anything was lost.
    damaged: bool,
    over: bool,
}

#[derive(Debug)]
struct Open {
    run: RunId,
    end: u64,
    seq: u64,
    records: u64,
    sha: Sha256,
}

#[derive(Debug, Deserialize)]
struct Graph {
    graph: GraphHash,
    #[serde(flatten)]
    value: Begun,
}

#[derive(Debug, Deserialize)]
struct Sched {
    schedule: ScheduleId,
    #[serde(default)]
    due: Option<Timestamp>,
    #[serde(flatten)]
    value: Begun,
}

#[derive(Debug, Deserialize)]
struct Begun {
    len: u64,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    hex: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rec {
    record: u64,
    events: u32,
    #[serde(flatten)]
    value: Begun,
}

#[derive(Debug, Deserialize)]
struct EndOfRun {
    end_of_run: RunId,
    records: u64,
    seq: u64,
    sha256: String,
}

#[derive(Debug, Deserialize)]
struct More {
    more: String,
}

#[derive(Debug, Deserialize)]
struct End {
    end: Totals,
}

#[derive(Debug, Deserialize)]
struct Peek {
    dssflow_archive: u64,
}

/// A line that is read.
#[derive(Debug)]
enum Line {
    Graph(Graph),
    Run(ArchivedRun),
    Record(Rec),
    More(String),
    EndOfRun(EndOfRun),
    Schedule(Sched),
    End(Totals),
}

impl Line {
    /// Whether it begins something, so that reading can go on with it after damage.
    fn begins(&self) -> bool {
        match self {
            Self::Graph(_) | Self::Run(_) | Self::Schedule(_) | Self::End(_) => true,
            Self::Record(_) | Self::More(_) | Self::EndOfRun(_) => false,
        }
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        // What a line is its first member says.
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let name = text.strip_prefix("{\"").and_then(|rest| rest.split_once('"')).map(|(name, _)| name);
        let bad = |error: serde_json::Error| format!("it is not what its first word says ({error})");
        match name {
            Some("graph") => serde_json::from_str(text).map(Self::Graph).map_err(bad),
            Some("run") => serde_json::from_str(text).map(Self::Run).map_err(bad),
            Some("record") => serde_json::from_str(text).map(Self::Record).map_err(bad),
            Some("more") => serde_json::from_str(text).map(|More { more }| Self::More(more)).map_err(bad),
            Some("end_of_run") => serde_json::from_str(text).map(Self::EndOfRun).map_err(bad),
            Some("schedule") => serde_json::from_str(text).map(Self::Schedule).map_err(bad),
            Some("end") => serde_json::from_str(text).map(|End { end }| Self::End(end)).map_err(bad),
            Some("dssflow_archive") => Err("another backup begins here".to_owned()),
            Some(_) | None => Err("it is no line of a backup".to_owned()),
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Graph(_) => "a graph",
            Self::Run(_) => "a run",
            Self::Record(_) => "a record",
            Self::More(_) => "the rest of a value",
            Self::EndOfRun(_) => "the end of a run",
            Self::Schedule(_) => "a schedule",
            Self::End(_) => "the end",
        }
    }
}

/// What a read of a line found.
enum Raw {
    Line(Vec<u8>),
    TooLong,
    /// Nothing, or a piece without a newline.
    Cut(Vec<u8>),
}

impl<R: BufRead> ArchiveReader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// When it is no archive, or a later version wrote it.
    pub fn open(mut input: R) -> Result<Self, ArchiveError> {
        let no = |why: &str| ArchiveError::NotAnArchive { why: why.to_owned() };
        let raw =
            read_line(&mut input).map_err(|error| ArchiveError::Io { line: 1, error: Arc::new(error) })?;
        let text = match raw {
            Raw::Line(text) => text,
            Raw::TooLong => return Err(no("its first line is too long")),
            Raw::Cut(text) if text.is_empty() => return Err(no("it is empty")),
            Raw::Cut(_) => return Err(no("it has no whole line")),
        };
        // An array of one number would do for the struct as well.
        if !text.starts_with(b"{\"dssflow_archive\":") {
            return Err(no("its first line says something else"));
        }
        let peek: Peek =
            serde_json::from_slice(&text).map_err(|_| no("its first line says something else"))?;
        if peek.dssflow_archive > u64::from(ARCHIVE_FORMAT) {
            return Err(ArchiveError::Newer { found: peek.dssflow_archive });
        }
        let damaged = |what: String| ArchiveError::Damaged { line: 1, run: None, what };
        let mut sums = Sums::default();
        sums.check(&text).map_err(|bad| damaged(told(bad)))?;
        let header = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let (run, totals, ahead) = Default::default();
        let bytes = text.len() as u64 + 1;
        let (lost, damaged, over) = (false, false, false);
        Ok(Self { input, header, sums, line: 1, bytes, run, totals, ahead, lost, damaged, over })
    }

    /// Where it comes from.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What was whole so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Lines read so far.
    pub fn lines(&self) -> u64 {
        self.line
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What comes next; `None` at the end of an archive that is whole, or of which everything that was lost was told.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn next_part(&mut self) -> Result<Option<Part>, ArchiveError> {
        if self.over {
            return Ok(None);
        }
        let part = self.part();
        if let Err(error) = &part {
            self.damaged = true;
            self.lost = true;
            self.run = None;
            if matches!(error, ArchiveError::Io { .. } | ArchiveError::CutOff { .. }) {
                self.over = true;
            }
        }
        part
    }

    /// Passes over the rest of the run that was begun.
    ///
    /// # Errors
    /// When it is not whole.
    pub fn skip_run(&mut self) -> Result<(), ArchiveError> {
        while self.run.is_some() {
            self.next_part()?;
        }
        Ok(())
    }

    fn part(&mut self) -> Result<Option<Part>, ArchiveError> {
        let line = self.next_line()?;
        let line = match (line, &self.run) {
            (Line::Graph(graph), None) => {
                let bytes = self.value(graph.value)?;
                self.totals.graphs += 1;
                return Ok(Some(Part::Graph(graph.graph, bytes)));
            }
            (Line::Run(run), None) => {
                if run.graphs.len() > MAX_GRAPHS {
                    let what =
                        format!("it names {} graphs, at most {MAX_GRAPHS} are allowed", run.graphs.len());
                    return Err(self.damage(what));
                }
                if run.summary.run != run.run {
                    return Err(self.damage(format!("the summary of run {} is that of another", run.run)));
                }
                let open =
                    Open { run: run.run.clone(), end: run.seq, seq: 0, records: 0, sha: Sha256::new() };
                self.run = Some(open);
                return Ok(Some(Part::Run(run)));
            }
            (Line::Record(record), Some(open)) => {
                let (next, first_seq, events) = (open.seq + 1, record.record, record.events);
                let last = open.seq.saturating_add(u64::from(events));
                if first_seq != next || events == 0 || last > open.end {
                    return Err(self.damage(format!("event {next} is missing, {first_seq} stands there")));
                }
                let bytes = self.value(record.value)?;
                let open = self.run.as_mut().expect("a value ends no run");
                open.sha.update(&bytes);
                (open.seq, open.records) = (last, open.records + 1);
                return Ok(Some(Part::Record(Record { first_seq, events, bytes })));
            }
            (Line::EndOfRun(end), Some(open)) => {
                let sha256 = hex::encode(open.sha.clone().finalize());
                if (&end.end_of_run, end.records, end.seq, &end.sha256)
                    != (&open.run, open.records, open.seq, &sha256)
                    || open.seq != open.end
                {
                    return Err(self.damage("what it says of the run is not what was there".to_owned()));
                }
                let open = self.run.take().expect("it is there");
                self.totals.runs += 1;
                self.totals.records += open.records;
                return Ok(Some(Part::EndOfRun(open.run)));
            }
            (Line::Schedule(schedule), None) => {
                let Sched { schedule, due, value } = schedule;
                let record = self.value(value)?;
                self.totals.schedules += 1;
                return Ok(Some(Part::Schedule(ArchivedSchedule { schedule, due, record })));
            }
            (Line::End(totals), None) => {
                if !self.damaged && totals != self.totals {
                    let what = format!("{:?} was there, {totals:?} is said", self.totals);
                    return Err(self.damage(what));
                }
                return match read_line(&mut self.input) {
                    Ok(Raw::Cut(rest)) if rest.is_empty() => {
                        self.over = true;
                        Ok(None)
                    }
                    Ok(_) => {
                        self.over = true;
                        self.line += 1;
                        Err(self.damage("something follows the end".to_owned()))
                    }
                    Err(error) => Err(ArchiveError::Io { line: self.line + 1, error: Arc::new(error) }),
                };
            }
            (line, _) => line,
        };
        let begins = line.begins();
        let what = format!("{} does not belong here", line.what());
        if begins {
            // The rest of the run before it is gone; it is whole itself.
            self.ahead = Some(line);
        }
        Err(self.damage(what))
    }

    /// The next line that is right; after damage the next one that begins something.
    fn next_line(&mut self) -> Result<Line, ArchiveError> {
        loop {
            let line = match self.ahead.take() {
                Some(line) => Ok(line),
                None => self.right_line(),
            };
            let lost = self.lost;
            match line {
                Ok(line) if !lost || line.begins() => {
                    self.lost = false;
                    return Ok(line);
                }
                // What is damaged was told once.
                Ok(_) | Err(ArchiveError::Damaged { .. }) if lost => {}
                Ok(_) => unreachable!("taken above"),
                Err(error) => return Err(error),
            }
        }
    }

    fn right_line(&mut self) -> Result<Line, ArchiveError> {
        let io = |line: u64| move |error| ArchiveError::Io { line, error: Arc::new(error) };
        let raw = read_line(&mut self.input).map_err(io(self.line + 1))?;
        let text = match raw {
            Raw::Line(text) => text,
            Raw::TooLong => {
                self.line += 1;
                // The next line cannot be checked against a sum that nobody has read.
                return Err(self.damage(format!("it has more than {MAX_LINE_BYTES} bytes")));
            }
            Raw::Cut(_) => {
                let run = self.run.as_ref().map(|open| open.run.clone());
                return Err(ArchiveError::CutOff { line: self.line, run, whole: self.totals.runs });
            }
        };
        self.line += 1;
        self.bytes += text.len() as u64 + 1;
        self.sums.check(&text).map_err(|bad| self.damage(told(bad)))?;
        Line::parse(&text).map_err(|what| self.damage(what))
    }

    /// A value from its first line and those after it.
    fn value(&mut self, begun: Begun) -> Result<Vec<u8>, ArchiveError> {
        let (first, is_text) = match (begun.text, begun.hex) {
            (Some(text), None) => (text, true),
            (None, Some(hex)) => (hex, false),
            _ => return Err(self.damage("a value is either text or hex".to_owned())),
        };
        let len = match usize::try_from(begun.len) {
            Ok(len) if len <= MAX_RECORD_BYTES => len,
            _ => {
                let what = format!("a value of {} bytes, at most {MAX_RECORD_BYTES} are allowed", begun.len);
                return Err(self.damage(what));
            }
        };
        let mut bytes = Vec::new();
        let mut piece = first;
        loop {
            if is_text {
                bytes.extend_from_slice(piece.as_bytes());
            } else {
                let decoded = hex::decode(&piece).map_err(|error| self.damage(error.to_string()))?;
                bytes.extend_from_slice(&decoded);
            }
            if bytes.len() > len || (piece.is_empty() && bytes.len() < len) {
                return Err(self.damage(format!("a value of {len} bytes has {}", bytes.len())));
            }
            if bytes.len() == len {
                return Ok(bytes);
            }
            match self.right_line()? {
                Line::More(more) => piece = more,
                line => {
                    let what =
                        format!("a value of {len} bytes has {}, then comes {}", bytes.len(), line.what());
                    if line.begins() {
                        self.ahead = Some(line);
                    }
                    return Err(self.damage(what));
                }
            }
        }
    }

    fn damage(&self, what: String) -> ArchiveError {
        let run = self.run.as_ref().map(|open| open.run.clone());
        ArchiveError::Damaged { line: self.line, run, what }
    }
}

fn told(bad: BadLine) -> String {
    match bad {
        BadLine::NoSum => "it does not end with a checksum",
        BadLine::WrongSum => "its checksum is not that of the line and those before it",
    }
    .to_owned()
}

/// Reads a line, and of one that is too long only past its end.
fn read_line(input: &mut impl BufRead) -> io::Result<Raw> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        let available = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if available.is_empty() {
            return Ok(if too_long { Raw::TooLong } else { Raw::Cut(line) });
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = &available[..end.unwrap_or(available.len())];
        too_long |= line.len() + taken.len() > MAX_LINE_BYTES;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(taken);
        }
        let used = taken.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(if too_long { Raw::TooLong } else { Raw::Line(line) });
        }
    }
}
