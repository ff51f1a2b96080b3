//! The format on values: what is written comes back, what is damaged is told, and nothing panics.

use std::io::{BufRead, BufReader};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::store::{Expect, MAX_RECORD_BYTES, Record, conformance};

fn header() -> Header {
    Header {
        store: StoreId::generate([7; 16]),
        created: Timestamp::from_millis(5_000),
        epoch: 3,
        runs: None,
        product: "dssflow 0.1.0".to_owned(),
    }
}

fn run(name: &str, seq: u64, graphs: &[&str]) -> ArchivedRun {
    ArchivedRun {
        run: RunId::new(name).unwrap(),
        seq,
        summary: conformance::transition(name, Expect::New, 1).summary,
        due: (seq == 2).then(|| Timestamp::from_millis(9)),
        graphs: graphs.iter().map(|graph| GraphHash((*graph).to_owned())).collect(),
    }
}

fn record(first_seq: u64, bytes: &[u8]) -> Record {
    Record { first_seq, events: 1, bytes: bytes.to_vec() }
}

/// Writes an archive of these parts.
fn archive(parts: &[Part]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), &header()).unwrap();
    for part in parts {
        match part {
            Part::Graph(hash, bytes) => writer.graph(hash, bytes),
            Part::Run(run) => writer.run(run),
            Part::Record(record) => writer.record(record),
            Part::EndOfRun(_) => writer.end_run(),
            Part::Schedule(schedule) => writer.schedule(schedule),
        }
        .unwrap();
    }
    let bytes = writer.bytes();
    let (out, _) = writer.finish().unwrap();
    assert!(out.len() as u64 > bytes);
    out
}

fn small() -> Vec<Part> {
    let graph = |hash: &str, text: &str| Part::Graph(GraphHash(hash.to_owned()), text.as_bytes().to_vec());
    let end = |name: &str| Part::EndOfRun(RunId::new(name).unwrap());
    vec![
        graph("aa", "{\"steps\":\"\u{e9}\\n\"}"),
        Part::Run(run("a", 2, &["aa"])),
        Part::Record(record(1, b"[1]")),
        Part::Record(record(2, &[0, 159, 146, 150])),
        end("a"),
        graph("bb", ""),
        Part::Run(run("b", 1, &["aa", "bb"])),
        Part::Record(record(1, b"")),
        end("b"),
        Part::Schedule(ArchivedSchedule {
            schedule: ScheduleId::new("nightly").unwrap(),
            due: Some(Timestamp::from_millis(7)),
            record: br#"{"id":"nightly"}"#.to_vec(),
        }),
    ]
}

/// All that can be read, and what was told on the way.
fn read(input: impl BufRead) -> Result<(Vec<Part>, Vec<ArchiveError>), ArchiveError> {
    let mut reader = ArchiveReader::open(input)?;
    let (mut parts, mut errors) = (Vec::new(), Vec::new());
    loop {
        match reader.next_part() {
            Ok(Some(part)) => parts.push(part),
            Ok(None) => return Ok((parts, errors)),
            Err(error) => errors.push(error),
        }
        assert!(errors.len() < 1_000, "it ends");
    }
}

fn whole_runs(parts: &[Part]) -> Vec<&RunId> {
    let ends = parts.iter().filter_map(|part| match part {
        Part::EndOfRun(run) => Some(run),
        Part::Graph(..) | Part::Run(_) | Part::Record(_) | Part::Schedule(_) => None,
    });
    ends.collect()
}

#[test]
fn what_is_written_comes_back() {
    let bytes = archive(&small());
    let (parts, errors) = read(&bytes[..]).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(parts, small());
    let reader = ArchiveReader::open(&bytes[..]).unwrap();
    assert_eq!(reader.header(), &header());
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let value: serde_json::Value = serde_json::from_slice(line).expect("each line is JSON by itself");
        assert!(value["sum"].is_string(), "{value}");
    }
}

#[test]
fn values_of_any_size_come_back_in_lines_of_limited_length() {
    let accents = "\u{1}\u{e9}".repeat(700_000);
    let binary: Vec<u8> = (0..900_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    let just = vec![b'x'; 128 * 1024];
    let bodies = [accents.as_bytes(), &binary, &just, b"[]"];
    let mut parts = vec![Part::Run(run("a", 4, &[]))];
    parts.extend((1..).zip(bodies).map(|(seq, bytes)| Part::Record(record(seq, bytes))));
    parts.push(Part::EndOfRun(RunId::new("a").unwrap()));
    let bytes = archive(&parts);
    assert!(bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= MAX_LINE_BYTES));
    // A buffer that never holds a whole line.
    let (read, errors) = read(BufReader::with_capacity(7, &bytes[..])).unwrap();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(read, parts);
}

#[test]
fn an_archive_that_was_cut_off_gives_every_run_before_the_cut() {
    let bytes = archive(&small());
    let lines = |end: usize| bytes[..end].split(|byte| *byte == b'\n').count() - 1;
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for cut in 0..bytes.len() {
        match read(&bytes[..cut]) {
            Err(ArchiveError::NotAnArchive { .. }) => assert!(cut <= first_line, "{cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
            Ok((parts, errors)) => {
                let whole = whole_runs(&parts).len();
                let [ArchiveError::CutOff { line, run, whole: told }] = &errors[..] else {
                    panic!("cut at {cut}: {errors:?}")
                };
                assert_eq!((*line, *told), (lines(cut) as u64, whole as u64), "cut at {cut}");
                assert_eq!(&parts[..], &small()[..parts.len()], "cut at {cut}");
                let within = parts.iter().rposition(|part| matches!(part, Part::Run(_)));
                let ended = parts.iter().rposition(|part| matches!(part, Part::EndOfRun(_)));
                assert_eq!(run.is_some(), within > ended, "cut at {cut}: {errors:?}");
            }
        }
    }
}

#[test]
fn what_is_lost_to_damage_is_told_and_the_rest_is_saved() {
    let good = archive(&small());
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let saved = |lines: Vec<Vec<u8>>| {
        let (parts, errors) = read(&lines.concat()[..]).unwrap();
        let runs: Vec<String> = whole_runs(&parts).iter().map(ToString::to_string).collect();
        (runs.join(" "), errors)
    };
    let owned = || lines.iter().map(|line| line.to_vec()).collect::<Vec<_>>();
    // Lines: header, graph, run a, two records, end of a, graph, run b, record, end of b, end.
    for (at, expected) in [(2, "b"), (3, "b"), (4, "b"), (5, "b"), (7, "a"), (8, "a"), (9, "a")] {
        let mut changed = owned();
        let middle = changed[at].len() / 2;
        changed[at][middle] ^= 1;
        let (runs, errors) = saved(changed);
        assert_eq!(runs, expected, "line {} changed: {errors:?}", at + 1);
        assert!(
            matches!(errors[0], ArchiveError::Damaged { line, .. } if line == at as u64 + 1),
            "{errors:?}"
        );
        for (what, change) in [("taken out", 0), ("twice", 1), ("moved", 2)] {
            let mut changed = owned();
            match change {
                0 => drop(changed.remove(at)),
                1 => changed.insert(at, lines[at].to_vec()),
                _ => changed.swap(at, at + 1),
            }
            let (_, errors) = saved(changed);
            assert!(!errors.is_empty(), "line {} {what} is noticed", at + 1);
        }
    }
    let mut more = owned();
    more.push(lines[1].to_vec());
    assert!(!saved(more).1.is_empty(), "something after the end is noticed");
    let mut long = owned();
    long.insert(6, vec![b'x'; 3 * MAX_LINE_BYTES]);
    long[6].push(b'\n');
    let (runs, errors) = saved(long);
    assert_eq!(runs, "a b", "a line that is too long is passed over: {errors:?}");
}

#[test]
fn what_is_no_archive_or_newer_is_named() {
    for text in ["", "\n", "hello\n", "{\"type\":\"run_created\"}\n", "[1]\n", "{\"dssflow_archive\":1"] {
        let error = ArchiveReader::open(text.as_bytes()).unwrap_err();
        assert!(matches!(error, ArchiveError::NotAnArchive { .. }), "{text:?}: {error}");
    }
    let newer = ArchiveReader::open(&b"{\"dssflow_archive\":3,\"what\":{}}\n"[..]).unwrap_err();
    assert!(matches!(newer, ArchiveError::Newer { found: 3 }), "{newer}");
    assert!(newer.to_string().contains("format 3") && newer.to_string().contains("up to 2"), "{newer}");
}

#[test]
fn what_is_out_of_order_is_not_written() {
    let mut writer = ArchiveWriter::new(Vec::new(), &header()).unwrap();
    let refused =
        |answer: std::io::Result<()>| answer.unwrap_err().kind() == std::io::ErrorKind::InvalidInput;
    assert!(refused(writer.record(&record(1, b"x"))));
    assert!(refused(writer.end_run()));
    assert!(refused(writer.run(&run("a", 2, &["aa"]))), "its graph is not there");
    writer.run(&run("a", 2, &[])).unwrap();
    assert!(refused(writer.run(&run("b", 2, &[]))));
    assert!(refused(writer.graph(&GraphHash("aa".to_owned()), b"x")));
    assert!(refused(writer.record(&record(2, b"x"))));
    writer.record(&record(1, b"x")).unwrap();
    assert!(refused(writer.end_run()), "an event is missing");
}

/// Writes lines with right sums, whatever they say.
fn sealed(lines: &[String]) -> Vec<u8> {
    let (mut sums, mut out) = (line::Sums::default(), Vec::new());
    for line in lines {
        let mut body = line.clone().into_bytes();
        body.pop();
        sums.seal(&mut body);
        out.extend_from_slice(&body);
    }
    out
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "which seed, and how long it took, is no setting of the engine"
)]
fn nothing_malformed_panics_or_passes_as_whole() {
    const CASES: usize = 10_000;
    let seed: u64 = std::env::var("DSSFLOW_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let good = archive(&small());
    let bare: Vec<String> = String::from_utf8(good.clone())
        .unwrap()
        .lines()
        .map(|line| format!("{}}}", &line[..line.len() - line::TAIL]))
        .collect();
    assert_eq!(sealed(&bare), good);
    let (mut refused, mut noticed, mut same) = (0, 0, 0);
    let begin = std::time::Instant::now();
    for case in 0..CASES {
        let mut chance = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) + case as u64);
        let mut bytes = if case % 2 == 0 {
            good.clone()
        } else {
            // Lines that say something else and have the right sums all the same.
            let mut lines = bare.clone();
            for _ in 0..chance.random_range(1..4) {
                let at = chance.random_range(0..lines.len());
                match chance.random_range(0..5) {
                    0 => drop(lines.remove(at)),
                    1 => lines.insert(at, lines[chance.random_range(0..lines.len())].clone()),
                    2 => {
                        let digit = lines[at].find(|c: char| c.is_ascii_digit()).unwrap_or(0);
                        let new =
                            ["9", "-1", "18446744073709551615", "1e9", "null"][chance.random_range(0..5)];
                        lines[at].replace_range(digit..=digit, new);
                    }
                    3 => {
                        let end = lines[at].len();
                        let cut = lines[at].floor_char_boundary(chance.random_range(0..end));
                        lines[at].truncate(cut);
                        lines[at].push('}');
                    }
                    _ => {
                        let names = ["\"run\"", "\"record\"", "\"more\"", "\"end\"", "\"graph\"", "\"text\""];
                        let (from, to) = (names[chance.random_range(0..6)], names[chance.random_range(0..6)]);
                        lines[at] = lines[at].replacen(from, to, 1);
                    }
                }
                if lines.is_empty() {
                    break;
                }
            }
            sealed(&lines)
        };
        if case % 2 == 0 {
            for _ in 0..chance.random_range(1..6) {
                let at = chance.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                match chance.random_range(0..4) {
                    0 if !bytes.is_empty() => bytes[at] = chance.random(),
                    1 => bytes.truncate(at),
                    2 => bytes.insert(at, chance.random()),
                    _ if !bytes.is_empty() => drop(bytes.remove(at)),
                    _ => {}
                }
            }
        }
        match read(&bytes[..]) {
            Err(_) => refused += 1,
            Ok((parts, errors)) if errors.is_empty() && parts == small() => same += 1,
            // Only lines that were forged with their sums may say something else without a word.
            Ok((parts, errors)) if errors.is_empty() => {
                assert!(case % 2 == 1, "case {case} of seed {seed} passed as whole: {parts:?}");
            }
            Ok(_) => noticed += 1,
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "archive: cases={CASES} faults_fired={} violations=0 seed={seed} seconds={seconds:.1}",
        refused + noticed
    );
    assert!(refused + noticed > CASES * 6 / 10 && same < CASES / 4, "{refused} {noticed} {same}");
}

#[test]
fn a_value_that_promises_too_much_is_refused_before_it_is_read() {
    let begin = serde_json::to_string(&serde_json::json!({ "dssflow_archive": 1, "store": header().store,
        "created": 1, "epoch": 1, "product": "x" }))
    .unwrap();
    for len in [u64::MAX, MAX_RECORD_BYTES as u64 + 1] {
        let graph = format!("{{\"graph\":\"aa\",\"len\":{len},\"text\":\"x\"}}");
        let (parts, errors) = read(&sealed(&[begin.clone(), graph])[..]).unwrap();
        assert!(parts.is_empty());
        assert!(errors[0].to_string().contains("at most"), "{errors:?}");
    }
    // Rests without end are no way to make it wait for ever, or hold more than was said.
    let mut lines = vec![begin, "{\"graph\":\"aa\",\"len\":10,\"text\":\"xxxx\"}".to_owned()];
    lines.extend(std::iter::repeat_n("{\"more\":\"\"}".to_owned(), 50));
    let (parts, errors) = read(&sealed(&lines)[..]).unwrap();
    assert!(parts.is_empty() && matches!(errors[0], ArchiveError::Damaged { line: 3, .. }), "{errors:?}");
}
