//! `--jq`: JSON through an expression of jq, by jaq, which needs no jq on the machine.
//!
//! What comes out is printed as `gh` does: strings bare, everything else as JSON. The expression is read before anything
//! else happens, so that a slip in it costs nothing.

use std::cell::RefCell;

use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Ctx, Vars, data, unwrap_valr};
use jaq_json::{Val, read};

type Filter = jaq_core::Filter<data::JustLut<Val>>;

thread_local! {
    /// The one expression of this process, read once a thread: it cannot be shared between them.
    static READ: RefCell<Option<(String, Filter)>> = const { RefCell::new(None) };
}

/// Checks an expression, for the command line.
///
/// # Errors
/// When it is none.
pub(crate) fn check(expression: &str) -> Result<String, String> {
    compile(expression).map(|_| expression.to_owned())
}

/// Puts JSON through an expression, and calls `each` with every result, ready to be printed, until it says stop.
///
/// # Errors
/// When the expression does not fit the value.
pub(crate) fn apply(
    expression: &str,
    json: &[u8],
    pretty: bool,
    each: &mut dyn FnMut(&str) -> bool,
) -> Result<(), String> {
    READ.with_borrow_mut(|read| {
        if read.as_ref().is_none_or(|(known, _)| known != expression) {
            *read = Some((expression.to_owned(), compile(expression)?));
        }
        let (_, filter) = read.as_ref().ok_or("the expression was not read")?;
        run(filter, json, pretty, each)
    })
}

fn compile(expression: &str) -> Result<Filter, String> {
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let arena = Arena::default();
    let modules = Loader::new(defs).load(&arena, File { code: expression, path: () }).map_err(|errors| {
        use jaq_core::load::Error;
        let first = errors.into_iter().next().map(|(_, error)| error);
        match first {
            Some(Error::Lex(errors)) => errors
                .first()
                .map_or_else(|| "it cannot be read".to_owned(), |(expected, at)| told(expected.as_str(), at)),
            Some(Error::Parse(errors)) => errors
                .first()
                .map_or_else(|| "it cannot be read".to_owned(), |(expected, at)| told(expected.as_str(), at)),
            Some(Error::Io(errors)) => errors
                .first()
                .map_or_else(|| "it cannot be read".to_owned(), |(path, error)| format!("{path}: {error}")),
            None => "it cannot be read".to_owned(),
        }
    })?;
    jaq_core::Compiler::default().with_funs(funs).compile(modules).map_err(|errors| {
        let first = errors.into_iter().flat_map(|(_, errors)| errors).next();
        first.map_or_else(
            || "it cannot be read".to_owned(),
            |(name, what)| format!("there is no {} {name:?}", what.as_str()),
        )
    })
}

fn told(expected: &str, at: &str) -> String {
    match at.chars().next() {
        Some(_) => format!("expected {expected} at {:?}", at.chars().take(20).collect::<String>()),
        None => format!("expected {expected} at its end"),
    }
}

fn run(filter: &Filter, json: &[u8], pretty: bool, each: &mut dyn FnMut(&str) -> bool) -> Result<(), String> {
    let input = read::parse_single(json).map_err(|error| error.to_string())?;
    let context = Ctx::<data::JustLut<Val>>::new(&filter.lut, Vars::new([]));
    for result in filter.id.run((context, input)).map(unwrap_valr) {
        let value = result.map_err(|error| error.to_string())?;
        let text = match &value {
            Val::TStr(text) => String::from_utf8_lossy(text).into_owned(),
            other => {
                let text = other.to_string();
                match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(plain) if pretty => serde_json::to_string_pretty(&plain).unwrap_or(text),
                    _ => text,
                }
            }
        };
        if !each(&text) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(expression: &str, json: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        apply(expression, json.as_bytes(), false, &mut |text| {
            found.push(text.to_owned());
            found.len() < 5
        })?;
        Ok(found)
    }

    #[test]
    fn strings_are_bare_and_the_rest_is_json() {
        let runs = r#"[{"run":"a","steps":3},{"run":"b \"c\"","steps":null}]"#;
        assert_eq!(all(".[].run", runs).unwrap(), ["a", "b \"c\""]);
        assert_eq!(all("map(.steps)", runs).unwrap(), ["[3,null]"]);
        assert_eq!(
            all(".[] | select(.steps) | {run, n: (.steps + 1)}", runs).unwrap(),
            [r#"{"run":"a","n":4}"#]
        );
        assert_eq!(all("[.[].run | ascii_upcase] | join(\",\")", runs).unwrap(), ["A,B \"C\""]);
        assert_eq!(all("repeat(1)", "1").unwrap().len(), 5, "whoever reads no more ends it");
    }

    #[test]
    fn slips_are_told() {
        for (expression, part) in
            [(".[", "expected"), ("nosuch", "nosuch"), (". |", "expected"), ("\"", "expected")]
        {
            let error = check(expression).unwrap_err();
            assert!(error.contains(part), "{expression}: {error}");
        }
        assert!(all(".run", "[]").unwrap_err().contains("index"), "{:?}", all(".run", "[]"));
        assert!(check(".a.b").is_ok());
    }
}
