//! The index of all errors.

use std::fmt::Write as _;

use super::{MADE, is_written};
use crate::error::{ALL, Code};

#[test]
fn every_error_is_in_the_index() {
    let mut out = format!(
        "# Errors\n\n{MADE}\n\nA code stays the same for ever. `dssflow explain CODE` prints its page: the cause, and what to try. \
         With `--error-format json` an error is one JSON object, see [output](../help/formatting.md#errors). Codes from DF0101 on \
         without an exit code of their own stand beside DF0100, one for each mistake in a site file. What the numbers mean that \
         commands end with: [exit codes](../help/exit-codes.md).\n\n| code | what | exits with |\n|---|---|---|\n"
    );
    for info in ALL {
        let (code, page) = (info.code, info.page);
        let title = page.lines().next().unwrap().trim_start_matches(&format!("# {code}: ") as &str);
        let exit = Code::parse(code).map_or(String::new(), |code| code.exit().status().to_string());
        writeln!(out, "| [{code}](../errors/{code}.md) | {title} | {exit} |").unwrap();
    }
    is_written("errors.md", &out);
}
