//! YAML as a tree that knows its lines, so that every problem can say where it is. Limits keep a hostile file from
//! taking memory or time.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::budget::Budget;
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy};

/// A value with the line it starts on, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may stand there twice.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) line: u32,
    pub(super) key: String,
    pub(super) value: Node,
}

impl Kind {
    /// What it is, for people.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A file that is no YAML, or one over a limit.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) line: Option<u32>,
    pub(super) message: String,
}

/// Reads one YAML document.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    let mut budget = Budget::default();
    budget.max_depth = 24;
    budget.flow_nesting_limit = 24;
    budget.max_events = 200_000;
    budget.max_nodes = 50_000;
    budget.max_aliases = 100;
    budget.max_anchors = 100;
    budget.max_total_scalar_bytes = super::MAX_SITE_BYTES;
    budget.max_recorded_anchor_events = 50_000;
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = 10_000;
    aliases.max_replay_stack_depth = 8;
    aliases.max_alias_expansions_per_anchor = 100;
    let options = serde_saphyr::options! {
        budget: Some(budget),
        alias_limits: aliases,
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let spanned: Spanned<Kind> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Unreadable {
            line: error.location().and_then(|l| u32::try_from(l.line()).ok()).filter(|&line| line > 0),
            message: error.without_snippet().to_string(),
        })?;
    Ok(node(spanned))
}

fn line<T>(spanned: &Spanned<T>) -> u32 {
    u32::try_from(spanned.referenced.line()).unwrap_or(0)
}

fn node(spanned: Spanned<Kind>) -> Node {
    Node { line: line(&spanned), kind: spanned.value }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Kind;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_none<E>(self) -> Result<Kind, E> {
                Ok(Kind::Null)
            }
            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
                Kind::deserialize(deserializer)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
                Ok(Kind::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
                Ok(Kind::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
                Ok(i64::try_from(value).map_or_else(|_| Kind::Text(value.to_string()), Kind::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
                Ok(Kind::Float(value))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Kind, E> {
                if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
                    return Err(E::custom("a text has a control character in it"));
                }
                Ok(Kind::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Spanned<Kind>>()? {
                    items.push(node(item));
                }
                Ok(Kind::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let value = node(map.next_value::<Spanned<Kind>>()?);
                    entries.push(Entry { line: line(&key), key: key.value, value });
                }
                Ok(Kind::Map(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_at_every_depth() {
        let Kind::Map(top) = read("a: 1\nb:\n  - x\n  - c: 012\n").unwrap().kind else { panic!("a mapping") };
        assert_eq!((top[1].line, top[1].key.as_str()), (2, "b"));
        let Kind::List(items) = &top[1].value.kind else { panic!("a list") };
        assert_eq!((items[0].line, items[1].line), (3, 4));
        let Kind::Map(inner) = &items[1].kind else { panic!("a mapping") };
        assert_eq!(inner[0].value.kind, Kind::Text("012".into()), "leading zeros are kept");
    }

    #[test]
    fn an_alias_bomb_and_a_deep_file_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb = bomb + "a" + &level.to_string() + ": &a" + &level.to_string() + " [" + &inner + "]\n";
        }
        assert!(read(&bomb).is_err());
        assert!(read(&"[".repeat(200)).is_err());
        let deep = (0..60).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "k:\n");
        assert!(read(&deep).is_err());
    }

    #[test]
    fn control_characters_are_refused() {
        assert!(read("a: \"b\\u0001c\"\n").is_err());
        assert!(read("a: |\n  two\n  lines\n").is_ok());
    }

    #[test]
    fn many_comments_in_a_row_are_fine() {
        assert!(read(&format!("{}a: 1\n", "# note\n".repeat(200))).is_ok());
    }

    #[test]
    fn broken_yaml_says_the_line() {
        assert_eq!(read("a: 1\nb: [\n").unwrap_err().line.map(|l| l >= 2), Some(true));
    }
}
