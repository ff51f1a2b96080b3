//! Finds planted values in bytes: as they are, in hex, base64, percent-encoded and escaped as in JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// A planted secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Canary {
    /// Where it was planted.
    pub(crate) place: String,
    pub(crate) value: String,
}

impl Canary {
    /// A value of its own for each place: letters, digits, and what encodings change.
    pub(crate) fn new(place: &str) -> Self {
        let mut state = place.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut value = String::from("Cn");
        for at in 0..26 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let letters = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz23456789";
            let letter = letters[usize::try_from((state >> 33) % letters.len() as u64).expect("an index")];
            value.push(if at == 9 {
                '/'
            } else if at == 17 {
                '+'
            } else {
                char::from(letter)
            });
        }
        Self { place: place.to_owned(), value }
    }
}

/// A form of a canary: which canary, the name of the form, its bytes.
type Form = (usize, &'static str, Vec<u8>);

/// The forms of all canaries, found by their first bytes.
pub(crate) struct Scanner {
    /// First four bytes, then the forms that begin so.
    forms: BTreeMap<[u8; 4], Vec<Form>>,
    canaries: Vec<Canary>,
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The middle of the base64 of anything that holds `bytes` behind `offset` others: the ends depend on the neighbours.
fn base64(bytes: &[u8], offset: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    // What shares a group of three with a neighbour is left out.
    let skip = (3 - offset % 3) % 3;
    bytes[skip..]
        .chunks_exact(3)
        .flat_map(|three| {
            let word = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            [18, 12, 6, 0].map(|shift| alphabet[usize::try_from(word >> shift & 63).expect("six bits")])
        })
        .collect()
}

fn escaped(value: &str, wanted: impl Fn(char) -> Option<String>) -> Vec<u8> {
    value.chars().map(|c| wanted(c).unwrap_or_else(|| c.to_string())).collect::<String>().into_bytes()
}

fn hex(bytes: &[u8], upper: bool) -> Vec<u8> {
    let mut out = String::new();
    for byte in bytes {
        let _cannot_fail = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
    }
    out.into_bytes()
}

impl Scanner {
    pub(crate) fn new(canaries: Vec<Canary>) -> Self {
        let mut scanner = Self { forms: BTreeMap::new(), canaries };
        for (ix, canary) in scanner.canaries.iter().enumerate() {
            let bytes = canary.value.as_bytes();
            let special = |c: char| !c.is_ascii_alphanumeric() && !"-._~".contains(c);
            let percent = |upper: bool| {
                escaped(&canary.value, |c| {
                    special(c).then(|| {
                        if upper {
                            format!("%{:02X}", u32::from(c))
                        } else {
                            format!("%{:02x}", u32::from(c))
                        }
                    })
                })
            };
            let mut forms = vec![
                ("raw", bytes.to_vec()),
                ("hex", hex(bytes, false)),
                ("hex", hex(bytes, true)),
                ("percent-encoded", percent(true)),
                ("percent-encoded", percent(false)),
                ("JSON-escaped", escaped(&canary.value, |c| (c == '/').then(|| "\\/".to_owned()))),
                (
                    "JSON-escaped",
                    escaped(&canary.value, |c| special(c).then(|| format!("\\u{:04x}", u32::from(c)))),
                ),
            ];
            for offset in 0..3 {
                forms.push(("base64", base64(bytes, offset, STANDARD)));
                forms.push(("base64", base64(bytes, offset, FOR_URLS)));
            }
            for (name, form) in forms {
                let start = *form.first_chunk().expect("longer than four bytes");
                let known = scanner.forms.entry(start).or_default();
                if !known.iter().any(|(_, _, bytes)| *bytes == form) {
                    known.push((ix, name, form));
                }
            }
        }
        scanner
    }

    pub(crate) fn canaries(&self) -> &[Canary] {
        &self.canaries
    }

    /// What of the canaries is in these bytes, one line each.
    pub(crate) fn scan(&self, place: &str, bytes: &[u8]) -> BTreeSet<String> {
        let starts: BTreeSet<u8> = self.forms.keys().map(|start| start[0]).collect();
        let mut first = [false; 256];
        for start in starts {
            first[usize::from(start)] = true;
        }
        let mut found = BTreeSet::new();
        for at in 0..bytes.len().saturating_sub(3) {
            if !first[usize::from(bytes[at])] {
                continue;
            }
            let Some(start) = bytes[at..].first_chunk::<4>() else { break };
            let Some(forms) = self.forms.get(start) else { continue };
            for (ix, name, _) in forms.iter().filter(|(_, _, form)| bytes[at..].starts_with(form)) {
                let around = String::from_utf8_lossy(&bytes[at.saturating_sub(120)..at]).into_owned();
                let around = around.replace(['\n', '\r'], " ");
                found.insert(format!("{} ({name}) in {place}, behind: {around}", self.canaries[*ix].place));
            }
        }
        found
    }

    /// The same of every file below a directory, but for one part of it.
    pub(crate) fn scan_dir(&self, dir: &Path, but: &Path) -> (BTreeSet<String>, u64) {
        let (mut found, mut files) = (BTreeSet::new(), 0);
        for entry in std::fs::read_dir(dir).expect("a directory of ours") {
            let path = entry.expect("readable").path();
            if path == but || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                let (more, count) = self.scan_dir(&path, but);
                found.extend(more);
                files += count;
            } else if path.is_file() {
                files += 1;
                let bytes = std::fs::read(&path).unwrap_or_default();
                found.extend(self.scan(&path.display().to_string(), &bytes));
                found.extend(self.scan("a file's name", path.display().to_string().as_bytes()));
            }
        }
        (found, files)
    }
}

#[test]
fn every_form_of_a_canary_is_found() {
    let canary = Canary::new("somewhere");
    let value = canary.value.clone();
    let scanner = Scanner::new(vec![canary, Canary::new("elsewhere")]);
    let mut forms = vec![value.clone(), String::from_utf8(hex(value.as_bytes(), true)).expect("hex")];
    forms.push(value.replace('/', "%2F").replace('+', "%2B"));
    forms.push(value.replace('/', "\\/"));
    forms.push(value.replace('/', "\\u002f").replace('+', "\\u002b"));
    for before in ["", "x", "xy", "xyz"] {
        // The whole base64 of a longer text, padded by zeroes to whole groups.
        let mut text = format!("{before}{value}tail").into_bytes();
        text.resize(text.len().next_multiple_of(3), 0);
        forms.push(String::from_utf8(base64(&text, 0, STANDARD)).expect("base64"));
    }
    for form in forms {
        let found = scanner.scan("a text", format!("before {form} after").as_bytes());
        assert_eq!(found.len(), 1, "{form}: {found:?}");
        assert!(found.iter().all(|line| line.starts_with("somewhere")), "{found:?}");
    }
    assert!(scanner.scan("a text", b"nothing of the kind").is_empty());
}
