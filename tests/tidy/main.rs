//! Rules about the house itself: who may use whom, how large a file may grow, what every file must open with. They
//! read sources and `cargo metadata`, and run nothing of the product.

mod crates;
mod engine_tree;
mod files;

use std::path::PathBuf;

/// The root of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies one level down").to_path_buf()
}
