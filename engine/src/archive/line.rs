//! One line of an archive: an object whose last member is the sum over it and all before it.

use sha2::{Digest as _, Sha256};

/// Hex digits of a sum.
pub(super) const SUM: usize = 16;
/// How a sum begins, in a line that has other members.
const MEMBER: &str = r#","sum":""#;
/// Bytes of a sum with what belongs to it: `,"sum":"0123456789abcdef"}`.
pub(super) const TAIL: usize = MEMBER.len() + SUM + 2;

/// The sum of a line given the sum before it.
fn sum(before: &str, body: &[u8]) -> String {
    let mut sha = Sha256::new();
    sha.update(before.as_bytes());
    sha.update(body);
    let mut text = hex::encode(sha.finalize());
    text.truncate(SUM);
    text
}

/// The sums of an archive so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums(String);

/// What is wrong with a line as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadLine {
    /// It does not end as every line does.
    NoSum,
    /// Its sum is not that of what stands there.
    WrongSum,
}

impl Sums {
    /// Closes a line: `body` is its object without the closing brace.
    pub(super) fn seal(&mut self, body: &mut Vec<u8>) {
        self.0 = sum(&self.0, body);
        body.extend_from_slice(MEMBER.as_bytes());
        body.extend_from_slice(self.0.as_bytes());
        body.extend_from_slice(b"\"}\n");
    }

    /// Checks a line without its newline. Whether it fits or not, the line after it is checked against what it says.
    pub(super) fn check(&mut self, line: &[u8]) -> Result<(), BadLine> {
        let at = line.len().checked_sub(TAIL).ok_or(BadLine::NoSum)?;
        let (body, tail) = line.split_at(at);
        let found = tail
            .strip_prefix(MEMBER.as_bytes())
            .and_then(|rest| rest.strip_suffix(b"\"}"))
            .and_then(|found| std::str::from_utf8(found).ok())
            .ok_or(BadLine::NoSum)?;
        let right = found == sum(&self.0, body);
        found.clone_into(&mut self.0);
        if right { Ok(()) } else { Err(BadLine::WrongSum) }
    }
}
