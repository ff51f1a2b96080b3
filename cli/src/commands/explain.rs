//! `dssflow explain CODE`: the page of an error code.

use crate::args::ExplainArgs;
use crate::error::{ALL, Code, CommandError, CommandResult, Exit};
use crate::suggest;
use crate::ui::Ui;

/// Prints the page, or the list of codes.
pub(crate) fn run(ui: &Ui, args: &ExplainArgs) -> CommandResult {
    let Some(wanted) = &args.code else {
        for info in ALL {
            let title = info.page.lines().next().unwrap_or_default();
            ui.out(title.trim_start_matches("# "));
        }
        return Ok(Exit::Ok);
    };
    let code = written_out(&wanted.to_ascii_uppercase());
    if let Some(info) = ALL.iter().find(|info| info.code == code) {
        ui.out(info.page.trim_end());
        return Ok(Exit::Ok);
    }
    let error = CommandError::new(Code::UnknownPage, format!("there is no error code {wanted:?}"));
    Err(match suggest::nearest(&code, ALL.iter().map(|info| info.code)) {
        Some(near) => error.hint(format!("did you mean {near}? `dssflow explain` lists all")),
        None => error.hint("`dssflow explain` lists all"),
    })
}

/// `DF0010` for `DF10` and `10`: the zeros need not be typed.
fn written_out(code: &str) -> String {
    match code.trim_start_matches("DF").parse::<u32>() {
        Ok(number) => format!("DF{number:04}"),
        Err(_) => code.to_owned(),
    }
}
