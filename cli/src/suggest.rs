//! "Did you mean": the nearest of some names to one that was typed wrong. Pure.

/// The nearest of `names` to `typed`, when it is near enough to be a slip.
pub(crate) fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (typed.chars().count() / 3).clamp(1, 4);
    names
        .into_iter()
        .map(|name| (distance(typed, name), name))
        .filter(|(d, name)| *d <= limit || (typed.len() >= 3 && name.contains(typed)))
        .min()
        .map(|(_, name)| name)
}

/// The name that begins nearly as what was typed: a slip in the beginning of an id.
pub(crate) fn nearest_beginning<'a>(
    typed: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = typed.chars().count();
    let limit = (length / 4).clamp(1, 3);
    names
        .into_iter()
        .filter_map(|name| {
            let starts = (length.saturating_sub(1)..=length + 1).filter(|n| *n > 0);
            let nearest = starts.map(|n| distance(typed, &name.chars().take(n).collect::<String>())).min();
            nearest.filter(|d| length >= 4 && *d <= limit).map(|d| (d, name))
        })
        .min()
        .map(|(_, name)| name)
}

/// Edits between two words: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_no_strangers() {
        let names = ["bootstrap-lab", "bootstrap-main", "teardown"];
        assert_eq!(nearest("bootsrtap-lab", names), Some("bootstrap-lab"));
        assert_eq!(nearest("main", names), Some("bootstrap-main"));
        assert_eq!(nearest("zzzzzz", names), None);
        assert_eq!(nearest_beginning("bootstrp", names), Some("bootstrap-lab"));
        assert_eq!(nearest_beginning("nosuch", names), None);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
