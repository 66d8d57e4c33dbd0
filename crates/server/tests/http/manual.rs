//! The manual says what the code does.

use std::fs;
use std::path::Path;

#[test]
fn the_tables_of_paths_and_parameters_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/serve.md");
    let manual = fs::read_to_string(&path).unwrap();
    for tables in [
        dualgrain_server::parameter_tables(),
        dualgrain_server::path_table(),
    ] {
        assert!(manual.contains(&tables), "docs/serve.md lacks this:\n{tables}");
    }
}
