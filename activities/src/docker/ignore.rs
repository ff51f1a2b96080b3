//! `.dockerignore`: which files of a context are left out.
//!
//! The forms: comments, `*`, `?`, `[a-z]` and `[^a-z]` within a part of a path, `**` for any number of parts, a
//! backslash before what stands for itself, `!` for what is taken in again. The last line that fits decides, and what
//! fits a directory fits all below it.
//!
//! Page: <https://docs.docker.com/build/concepts/context/#dockerignore-files>

/// The lines of a `.dockerignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    takes_in: bool,
    parts: Vec<String>,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .filter_map(|line| {
                let (takes_in, pattern) = match line.strip_prefix('!') {
                    Some(rest) => (true, rest.trim()),
                    None => (false, line),
                };
                let mut parts: Vec<String> = Vec::new();
                for part in pattern.split('/') {
                    match part {
                        "" | "." => {}
                        ".." => drop(parts.pop()),
                        part => parts.push(part.to_owned()),
                    }
                }
                // Nothing but the root itself: Docker leaves such a line without effect.
                (!parts.is_empty()).then_some(Rule { takes_in, parts })
            })
            .collect();
        Self { rules }
    }

    /// Whether the file or directory with these parts of its path is left out.
    pub(super) fn leaves_out(&self, path: &[&str]) -> bool {
        let mut out = false;
        for rule in &self.rules {
            // A line that takes in what is in already changes nothing, nor does one that leaves out what is out.
            if rule.takes_in == out && (1..=path.len()).any(|n| fits(&rule.parts, &path[..n])) {
                out = !rule.takes_in;
            }
        }
        out
    }

    /// Whether something below a directory that is left out may be taken in again.
    pub(super) fn takes_some_in(&self) -> bool {
        self.rules.iter().any(|rule| rule.takes_in)
    }
}

fn fits(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => {
            // At the end it stands for what is inside, not for the directory itself.
            let from = usize::from(rest.is_empty());
            (from..=path.len()).any(|n| fits(rest, &path[n..]))
        }
        Some((first, rest)) => path.split_first().is_some_and(|(name, below)| {
            let (pattern, name): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
            fits_part(&pattern, &name) && fits(rest, below)
        }),
    }
}

fn fits_part(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => {
            let rest = &rest[rest.iter().take_while(|c| **c == '*').count()..];
            (0..=name.len()).any(|n| fits_part(rest, &name[n..]))
        }
        ['?', rest @ ..] => !name.is_empty() && fits_part(rest, &name[1..]),
        ['\\', c, rest @ ..] => name.first() == Some(c) && fits_part(rest, &name[1..]),
        ['[', rest @ ..] => match class(rest) {
            Some((negated, ranges, rest)) => name.split_first().is_some_and(|(c, below)| {
                ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != negated && fits_part(rest, below)
            }),
            // An open bracket stands for itself.
            None => name.first() == Some(&'[') && fits_part(rest, &name[1..]),
        },
        [c, rest @ ..] => name.first() == Some(c) && fits_part(rest, &name[1..]),
    }
}

type Class<'a> = (bool, Vec<(char, char)>, &'a [char]);

/// What stands after `[`: whether it is turned round, its ranges, and what follows the `]`.
fn class(mut rest: &[char]) -> Option<Class<'_>> {
    let negated = rest.first() == Some(&'^');
    rest = &rest[usize::from(negated)..];
    let mut ranges = Vec::new();
    loop {
        rest = match rest {
            [']', rest @ ..] if !ranges.is_empty() => return Some((negated, ranges, rest)),
            ['\\', c, rest @ ..] => {
                ranges.push((*c, *c));
                rest
            }
            [from, '-', to, rest @ ..] if *to != ']' => {
                ranges.push((*from, *to));
                rest
            }
            [c, rest @ ..] => {
                ranges.push((*c, *c));
                rest
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(lines: &str, out: &[&str], taken: &[&str]) {
        let ignore = Ignore::parse(lines);
        let leaves_out = |path: &str| ignore.leaves_out(&path.split('/').collect::<Vec<_>>());
        for path in out {
            assert!(leaves_out(path), "{path} must be left out by {lines:?}");
        }
        for path in taken {
            assert!(!leaves_out(path), "{path} must be taken with {lines:?}");
        }
    }

    #[test]
    fn names_and_what_is_below_them() {
        check(
            "# a comment\n\n node_modules \n/dist/\n",
            &["node_modules", "node_modules/a/b", "dist/x"],
            &["src/node_modules", "dist2", "a comment"],
        );
    }

    #[test]
    fn stars_do_not_cross_directories_and_two_do() {
        check("*.log", &["a.log", ".log"], &["d/a.log", "a.logs"]);
        check("**/*.log", &["a.log", "d/a.log", "d/e/a.log"], &["a.txt"]);
        check("d/**", &["d/a", "d/e/f"], &["d", "e"]);
        check("a/**/z", &["a/z", "a/b/z", "a/b/c/z/below"], &["z", "a/zz"]);
        check("*/temp*", &["x/temporary", "x/temp/y"], &["temp", "x/y/temp"]);
        check("temp?", &["temp1"], &["temp", "temp12"]);
    }

    #[test]
    fn the_last_line_that_fits_decides() {
        check("*.md\n!README.md", &["a.md"], &["README.md"]);
        check("*.md\n!README*.md\nREADME-secret.md", &["README-secret.md"], &["README.md"]);
        check("secret\n!secret/public", &["secret/a"], &["secret/public", "secret/public/x"]);
        check("*\n!src", &["Cargo.toml"], &["src/main.rs"]);
    }

    #[test]
    fn classes_and_escapes() {
        check("[a-c]x\n[^0-9]y\n\\*z\n[open", &["ax", "by", "*z", "[open"], &["dx", "1y", "az", "open"]);
        check("..\n.\n/", &[], &["a"]);
        check("a/../b", &["b"], &["a"]);
    }
}
