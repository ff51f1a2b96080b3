//! Versions compared as numbers, part by part, which is how they are meant.

use std::cmp::Ordering;

/// The numbers of a version, as of `v1.33.4-eks-a`. `None` for text that begins with no number.
pub(super) fn numbers(text: &str) -> Option<Vec<u64>> {
    let plain = text.trim().trim_start_matches('v');
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    let parts: Option<Vec<u64>> =
        plain[..end].trim_end_matches('.').split('.').map(|p| p.parse().ok()).collect();
    parts.filter(|p| !p.is_empty())
}

/// Which of two versions is the later one; parts that are not there count as 0.
pub(super) fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (numbers(a)?, numbers(b)?);
    let part = |of: &[u64], at: usize| of.get(at).copied().unwrap_or(0);
    Some(
        (0..a.len().max(b.len()))
            .map(|at| part(&a, at).cmp(&part(&b, at)))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal),
    )
}

/// Whether `a` is `b` or later; text that is no version is neither.
pub(super) fn at_least(a: &str, b: &str) -> bool {
    compare(a, b).is_some_and(Ordering::is_ge)
}

/// Major and minor number.
pub(super) fn minor(text: &str) -> Option<(u64, u64)> {
    let numbers = numbers(text)?;
    Some((*numbers.first()?, numbers.get(1).copied().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_and_not_text() {
        assert_eq!(compare("0.10.0", "0.5.4"), Some(Ordering::Greater));
        assert!("0.10.0" < "0.5.4", "which is the trap");
        assert_eq!(compare("v1.33.4", "1.33.4-eks-abc"), Some(Ordering::Equal));
        assert_eq!(compare("1.33", "1.33.0"), Some(Ordering::Equal));
        assert_eq!(compare("1.9", "1.33"), Some(Ordering::Less));
        assert_eq!(compare("latest", "1.0"), None);
        assert!(at_least("2.31.0", "2") && !at_least("1.44.9", "2") && !at_least("", "2"));
        assert_eq!(minor("1.33.4"), Some((1, 33)));
    }
}
