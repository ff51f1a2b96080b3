//! `dssflow version`.

use crate::error::Exit;
use crate::ui::Ui;

/// Prints name and version.
pub(crate) fn run(ui: &Ui) -> Exit {
    ui.out(concat!("dssflow ", env!("CARGO_PKG_VERSION")));
    Exit::Ok
}
