//! How many columns a text takes on a terminal, and making it fit. Pure.

use unicode_width::UnicodeWidthStr as _;

/// The columns a text takes: two for a wide character, none for a combining one.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or as much of its beginning as leaves room for the sign that there was more.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let ends = text.char_indices().map(|(at, _)| at).take_while(|at| width(&text[..*at]) < columns);
    let end = ends.last().unwrap_or(0);
    let kept = text[..end].trim_end();
    if columns == 0 { String::new() } else { format!("{kept}…") }
}

/// The words of a text in lines of at most so many columns, each behind `indent`; a word that is longer is cut in pieces.
pub(crate) fn wrap(text: &str, indent: &str, columns: usize) -> Vec<String> {
    // Less room than this helps nobody: it is better that a line is too long.
    const LEAST: usize = 10;
    let room = columns.saturating_sub(width(indent)).max(LEAST);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && width(&line) + 1 + width(word) > room {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            line.push(c);
            if width(&line) > room {
                line.pop();
                lines.push(std::mem::replace(&mut line, c.to_string()));
            }
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines.into_iter().map(|line| format!("{indent}{line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_by_columns() {
        assert_eq!(cut("12345678", 8), "12345678");
        assert_eq!(cut("123456789", 8), "1234567…");
        assert_eq!(cut("数据库表格", 10), "数据库表格");
        assert_eq!((cut("数据库表格", 9), cut("数据库表格", 8)), ("数据库表…".into(), "数据库…".into()));
        assert_eq!((cut("abc", 1), cut("abc", 0)), ("…".into(), String::new()));
        assert_eq!(width("e\u{301}"), 1, "a combining mark takes no column");
        for columns in 1..30 {
            assert!(width(&cut("wide 数据 and e\u{301} narrow ✓ words", columns)) <= columns, "{columns}");
        }
    }

    #[test]
    fn words_are_wrapped_and_nothing_is_lost() {
        assert_eq!(wrap("one two three", "  ", 12), ["  one two", "  three"]);
        assert_eq!(wrap("", "  ", 12), ["  "]);
        let text = "arn:aws:iam::123456789012:role/数据库表格数据库表格 is not allowed";
        for columns in [12, 40, 60] {
            let lines = wrap(text, "  ", columns);
            assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:#?}");
            let all: String = lines.concat().split_whitespace().collect();
            assert_eq!(all, text.split_whitespace().collect::<String>());
        }
    }
}
