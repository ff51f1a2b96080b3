//! Rules about the house itself: who may use whom, how large a file may grow, what every file must open with. They
//! read sources and `cargo metadata`, and run nothing of the product.

mod book;
mod crates;
mod engine_tree;
mod files;
mod guide;
mod pictures;

use std::path::PathBuf;

/// The root of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the crate lies one level down").to_path_buf()
}

/// Holds a file of the docs to what is made for it; `DSSFLOW_WRITE_DOCS=1` writes it anew.
fn is_written(path: &str, now: &str) {
    let file = root().join(path);
    if std::env::var_os("DSSFLOW_WRITE_DOCS").is_some() {
        std::fs::write(&file, now).expect("a file of ours");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = now.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(
        written == now,
        "{path} is of another version (first difference: {differs:?}); write it anew: DSSFLOW_WRITE_DOCS=1 cargo test \
         --workspace --test tidy"
    );
}
