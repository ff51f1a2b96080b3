//! The pages of `docs/reference`, made from the code: what they say is what holds. Only tests are here; each compares a page
//! with what it would be now.

mod commands;
mod errors;
mod metrics;
mod output;
mod routes;
mod schemas;
mod typed;

/// Stands below the title of each page.
const MADE: &str =
    "Made from the code: `DSSFLOW_WRITE_DOCS=1 cargo test --workspace --bins reference` writes it anew.";

/// Holds a page to what it would be now; `DSSFLOW_WRITE_DOCS=1` writes it anew.
fn is_written(page: &str, now: &str) {
    let path = format!("{}/../docs/reference/{page}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = now.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        written == now,
        "docs/reference/{page} is of another version (first difference: {differs:?}); write it anew: DSSFLOW_WRITE_DOCS=1 \
         cargo test --workspace --bins reference"
    );
}

/// Text of the code as text of a cell.
fn cell(text: &str) -> String {
    // Links of the crate's documentation lead nowhere here.
    let mut text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ").replace('|', "\\|");
    while let Some((before, (_, after))) =
        text.split_once("`(").and_then(|(b, rest)| Some((b, rest.split_once(')')?)))
    {
        text = format!("{before}`{after}");
    }
    text
}

#[test]
fn cells_have_no_links_of_the_code() {
    assert_eq!(cell("a [`B`](crate::B),\n[`C`] | d"), "a `B`, `C` \\| d");
}
