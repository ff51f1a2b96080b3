//! Damage to the files of a store is told or does no harm: whatever one file has become, `verify` and opening give what
//! was there, or say that something is wrong. Never something else silently, never a panic, never without an end; and
//! a store that is refused is left as it was.
//!
//! `DSSFLOW_MUTATIONS` is how many changes are made. Not detected, and not tried: an older copy of the whole directory.
//! It was a store once, and nothing outside says that it is not the latest.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod case;
mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use case::{Came, Case, Change, End, Named, Plan, ValueChange, WORK};
use dssflow_durability::dice::{self, Dice};
use dssflow_durability::mutate::{self, Mutation, SECTOR};
use images::{Image, RECIPES, record};

/// How long a case may take: more than a hundred times what it does on a machine without load.
const PATIENCE: Duration = Duration::from_mins(1);
/// Cases of a process; what sled leaves behind when it panics adds up.
const PER_PROCESS: usize = 200;
/// Of the payload files, which are alike, only so many are changed in each image.
const PAYLOADS: usize = 3;
/// How much of the end of a file of a large store is cut off, sector by sector.
const TAIL: u64 = 64 * 1024;
/// Of the cases that are wrong only so many are shown.
const SHOWN: usize = 40;

/// Runs a future whose waiting is for other threads only.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// The files of an image that are changed, with their lengths.
fn targets(image: &Image) -> Vec<(String, u64)> {
    let mut payloads = 0;
    let files = mutate::files(&image.now).unwrap();
    let files = files.into_iter().map(|(name, content)| (name, content.len() as u64));
    files
        .filter(|(name, len)| {
            payloads += usize::from(name.starts_with("payloads/"));
            name != "lock" && *len > 0 && (!name.starts_with("payloads/") || payloads <= PAYLOADS)
        })
        .collect()
}

/// One old file put back, one file gone, one of another store: all there are.
fn put_back_and_taken_away(images: &[Image]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (n, image) in images.iter().enumerate() {
        let other = &images[(n + 1) % images.len()];
        let here = targets(image);
        for (file, _) in &here {
            let mut case = |change| {
                cases.push(Case { image: n, file: file.clone(), change: Change::File(change), hit: None });
            };
            case(Mutation::Remove);
            for root in image.pasts.iter().chain([&other.now]) {
                let by = root.join(file);
                if by.exists() && fs::read(&by).unwrap() != fs::read(image.now.join(file)).unwrap() {
                    case(Mutation::Replace { by });
                }
            }
        }
        // Files that are no longer there: older snapshots, and a manifest.
        let mut gone = BTreeSet::new();
        for root in image.pasts.iter().chain([&other.now]) {
            for file in mutate::files(root).unwrap().into_keys() {
                if file.starts_with("gen-") || file == "MANIFEST" {
                    gone.insert((file.clone(), root.join(file)));
                }
            }
        }
        for (file, by) in gone {
            if here.iter().all(|(name, _)| *name != file) {
                cases.push(Case {
                    image: n,
                    file,
                    change: Change::File(Mutation::Replace { by }),
                    hit: None,
                });
            }
        }
    }
    cases
}

/// Every sector's end of every file: of all of it for two small stores, of its last part for the others.
fn truncations(images: &[Image]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (image, recipe) in RECIPES.iter().enumerate() {
        assert_eq!(images[image].now.file_name().unwrap(), recipe.name);
        for (file, len) in targets(&images[image]) {
            let first = if recipe.name.starts_with("young") { 0 } else { len.saturating_sub(TAIL) / SECTOR };
            for sector in first..len.div_ceil(SECTOR) {
                let change = Change::File(Mutation::Truncate { len: sector * SECTOR });
                cases.push(Case { image, file: file.clone(), change, hit: None });
            }
        }
    }
    cases
}

/// Where a record lies in a file, when it lies there once.
fn only_place(haystack: &[u8], run: &str, seq: u64, size: usize) -> Option<usize> {
    let needle = record(run, seq, size.min(48));
    let first = haystack.windows(needle.len()).position(|window| window == needle)?;
    let after = first + size;
    let again = haystack[after.min(haystack.len())..].windows(needle.len()).any(|window| window == needle);
    (!again).then_some(first)
}

/// Changes that hit a known record: in sled's log where it lies only once, in its payload file, and through sled.
fn hits(images: &[Image], dice: &mut Dice, count: usize) -> Vec<Case> {
    let logs: Vec<Vec<u8>> =
        images.iter().map(|image| fs::read(image.now.join("gen-1/db")).unwrap()).collect();
    let payloads: Vec<BTreeMap<Vec<u8>, String>> = images
        .iter()
        .map(|image| {
            let files = mutate::files(&image.now).unwrap().into_iter();
            files
                .filter(|(name, _)| name.starts_with("payloads/"))
                .map(|(name, bytes)| (bytes, name))
                .collect()
        })
        .collect();
    let mut cases = Vec::new();
    while cases.len() < count {
        let image = dice.index(images.len());
        let recipe = &RECIPES[image];
        let runs = recipe.run_names();
        let run = dice.index(runs.len());
        let seq = 1 + dice.below(images[image].content.events / runs.len() as u64);
        let size = recipe.size(run as u64, seq);
        let hit = Some((runs[run].clone(), seq));
        let bit = u8::try_from(dice.below(8)).unwrap();
        let at = dice.index(size);
        if dice.percent(40) {
            let change = match dice.below(4) {
                0 => ValueChange::Cut,
                1 => ValueChange::Remove,
                _ => ValueChange::Flip { at, bit },
            };
            cases.push(Case { image, file: "gen-1/db".to_owned(), change: Change::Value(change), hit });
        } else if let Some(file) = payloads[image].get(&record(&runs[run], seq, size)) {
            let change = Change::File(Mutation::Flip { at: at as u64, bit });
            cases.push(Case { image, file: file.clone(), change, hit });
        } else if let Some(place) = only_place(&logs[image], &runs[run], seq, size) {
            // Within the first value; the others are elsewhere.
            let change = Change::File(Mutation::Flip { at: (place + at % 40) as u64, bit });
            cases.push(Case { image, file: "gen-1/db".to_owned(), change, hit });
        }
    }
    cases
}

fn plan(images: &[Image], count: usize, dice: &mut Dice) -> Vec<Case> {
    let mut cases = put_back_and_taken_away(images);
    let mut cuts = truncations(images);
    // As many of them as leave room for the rest.
    let room = (count.saturating_sub(cases.len()) / 3).min(cuts.len());
    for n in 0..room {
        let other = n + dice.index(cuts.len() - n);
        cuts.swap(n, other);
    }
    cases.extend(cuts.into_iter().take(room));
    cases.extend(hits(images, dice, count / 10));
    let targets: Vec<Vec<(String, u64)>> = images.iter().map(targets).collect();
    while cases.len() < count {
        let image = dice.index(images.len());
        // The log is where the data are.
        let log = targets[image].iter().find(|(name, _)| name == "gen-1/db").filter(|_| dice.percent(50));
        let (file, len) = log.unwrap_or_else(|| dice.pick(&targets[image]));
        let change = Change::File(Mutation::random(dice, *len));
        cases.push(Case { image, file: file.clone(), change, hit: None });
    }
    cases
}

/// Does the cases `from`, `from + step`, ... in processes that are watched.
fn work_on(plan_file: &Path, plan: &Plan, from: usize, step: usize) -> Vec<(usize, Came)> {
    let mut came = Vec::new();
    let mut next = from;
    while next < plan.cases.len() {
        let to = (next + PER_PROCESS * step).min(plan.cases.len());
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["case::worker", "--exact", "--nocapture", "--test-threads=1"]);
        // The store's own copies are made there too.
        child.env("TMPDIR", plan_file.parent().unwrap());
        child.env(WORK, format!("{next}:{to}:{step}:{}", plan_file.display()));
        let mut child =
            child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, heard) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut current = None;
        let wrong = loop {
            match heard.recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Some(number) = line.strip_prefix("begin ") {
                        current = Some(number.parse::<usize>().unwrap());
                    } else if let Some(json) = line.strip_prefix("came ") {
                        let number = current.take().unwrap();
                        came.push((number, serde_json::from_str(json).unwrap()));
                        next = number + step;
                    }
                }
                Err(RecvTimeoutError::Timeout) => break Some("hangs"),
                Err(RecvTimeoutError::Disconnected) => break current.map(|_| "takes the process down"),
            }
        };
        if wrong.is_some() {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        reader.join().unwrap();
        if let Some(wrong) = wrong {
            let number = current.expect("a case was on");
            let violations = vec![format!("{wrong} ({status})")];
            came.push((number, Came { end: End::Refused, named: None, violations }));
            next = number + step;
        } else {
            assert!(status.success(), "the process that does the cases failed: {status}");
        }
    }
    came
}

#[test]
fn damage_is_told_or_does_no_harm() {
    let begin = Instant::now();
    let count = number("DSSFLOW_MUTATIONS", 500);
    let (mut dice, seed) = dice::from_env(20_261_123);
    let dir = mutate::fleeting_dir().unwrap();
    let images: Vec<Image> = RECIPES.iter().map(|recipe| recipe.make(dir.path())).collect();
    let cases = plan(&images, count, &mut dice);
    let plan = Plan {
        cases: match std::env::var("DSSFLOW_CASE") {
            Ok(only) => vec![cases[only.parse::<usize>().unwrap()].clone()],
            Err(_) => cases,
        },
        images: images.into_iter().map(|image| (image.now, image.content)).collect(),
    };
    let plan_file = dir.path().join("plan");
    fs::write(&plan_file, serde_json::to_vec(&plan).unwrap()).unwrap();
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    let mut came: Vec<(usize, Came)> = std::thread::scope(|scope| {
        let (file, plan) = (&plan_file, &plan);
        let threads: Vec<_> =
            (0..workers).map(|n| scope.spawn(move || work_on(file, plan, n, workers))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    came.sort_by_key(|(number, _)| *number);

    let (mut ends, mut kinds, mut names) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let (mut violations, mut first) = (0, String::new());
    for (number, came) in &came {
        let case = &plan.cases[*number];
        *ends.entry(came.end).or_insert(0_usize) += 1;
        if came.end != End::Same {
            let kind = match &case.change {
                Change::File(mutation) => mutation.kind(),
                Change::Value(_) => "value",
            };
            *kinds.entry(kind).or_insert(0_usize) += 1;
            if let Some(named) = came.named {
                let place = if kind == "value" {
                    "value"
                } else if case.file.starts_with("payloads/") {
                    "payload"
                } else {
                    "log"
                };
                *names.entry((place, named)).or_insert(0_usize) += 1;
            }
        }
        violations += usize::from(!came.violations.is_empty());
        if !came.violations.is_empty() && violations <= SHOWN {
            let name = RECIPES[case.image].name;
            let told = format!("DSSFLOW_CASE={number} {case:?} of {name}: {}", came.violations.join("; "));
            println!("{told}");
            if violations == 1 {
                first = told;
            }
        }
    }
    let fired = came.len() - ends.get(&End::Same).copied().unwrap_or(0);
    println!("damage: how they ended: {ends:?}, kinds: {kinds:?}, records hit that were named: {names:?}");
    println!(
        "damage: cases={} faults_fired={fired} violations={violations} seed={seed} seconds={:.1}",
        came.len(),
        begin.elapsed().as_secs_f64()
    );
    if violations > 0 {
        println!("kept: {}", dir.keep().display());
    }
    assert_eq!(violations, 0, "DSSFLOW_SEED={seed} DSSFLOW_MUTATIONS={count}, the first: {first}");
    if std::env::var_os("DSSFLOW_CASE").is_some() {
        return;
    }
    assert!(came.len() >= count && fired * 10 >= count * 9, "{} cases, {fired} fired", came.len());
    assert!(kinds.len() == 8, "every kind fired: {kinds:?}");
    for (place, least) in [("value", count / 40), ("payload", 1)] {
        let wrong = names.keys().find(|(at, named)| *at == place && *named != Named::Exactly);
        assert_eq!(wrong, None, "a record hit in a {place} is named");
        assert!(names.get(&(place, Named::Exactly)).is_some_and(|n| *n >= least), "{place}: {names:?}");
    }
}
