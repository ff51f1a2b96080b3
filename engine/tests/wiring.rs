//! Workflows that are wired wrongly do not compile, and the compiler says why in our words.
//!
//! Each file in `wiring/` has one mistake, and beside it what the compiler says of it. That text is rustc's own and
//! moves with it: these are of 1.95, the version the workspace asks for at least. After a change of compiler, look at
//! the difference and write them again with `TRYBUILD=overwrite cargo test -p dssflow-engine --test wiring`.

#[test]
fn wrong_wiring_does_not_compile() {
    let cases = trybuild::TestCases::new();
    for case in [
        "wrong_input",
        "wrong_order",
        "wrong_arity",
        "not_async",
        "wrong_undo",
        "not_a_condition",
        "not_a_list",
        "wrong_output",
        "wrong_method",
        "not_stored",
        "not_send",
        "closure_moves",
    ] {
        cases.compile_fail(format!("tests/wiring/{case}.rs"));
    }
}
