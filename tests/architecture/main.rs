//! The house rules of DESIGN.md that a machine can check. Each rule prints all that breaks it:
//! `cargo test --test architecture -- --nocapture`.
//!
//! `house` finds the files, `tokens` reads them. `modules` and `paths` know what a file declares and names, `circles` what
//! files take from each other; `functions` and `sizes` measure; `crates` and `design` hold what their names say. Each rule is
//! tried beside its code on an invented repository that breaks it.

mod circles;
mod crates;
mod design;
mod functions;
mod house;
mod modules;
mod paths;
mod sizes;
mod tokens;

use house::House;

/// The only dependencies between the project's crates (DESIGN.md, "Layout").
const ARROWS: [crates::Arrows<'_>; 13] = [
    ("format", &[]),
    ("threads", &[]),
    ("device", &["format"]),
    ("cpu", &["device", "format", "threads"]),
    ("cuda", &["device", "format"]),
    ("engine", &["device", "format", "threads"]),
    ("quant", &["device", "engine", "format", "threads"]),
    (
        "dualgrain",
        &[
            "cpu", "cuda", "device", "engine", "format", "perf", "quant", "threads",
        ],
    ),
    ("perf", &["cpu", "cuda", "device", "format"]),
    ("server", &["dualgrain"]),
    ("hub", &["format"]),
    ("export", &["engine", "format"]),
    ("testing", &["device"]),
];

/// What the binary may depend on: engine, quantizer and format come through the library.
const BINARY: [&str; 8] = [
    "cpu",
    "cuda",
    "device",
    "dualgrain",
    "export",
    "hub",
    "perf",
    "server",
];

/// The Python package: its name, its manifest, what it may depend on, and the packages that nothing else may have.
const PYTHON: (&str, &str) = ("python", "adapters/python/Cargo.toml");
const OF_PYTHON: [&str; 2] = ["dualgrain", "perf"];
const PYTHONS_OWN: [&str; 2] = ["pyo3", "numpy"];
/// The worker of Dynamo, and what it may depend on.
const DYNAMO: (&str, &str) = ("dynamo", "adapters/dynamo/Cargo.toml");
const OF_DYNAMO: [&str; 2] = ["dualgrain", "server"];
/// Where they begin.
const ADAPTERS: [&str; 2] = ["adapters/python/src/lib.rs", "adapters/dynamo/src/main.rs"];

/// Crates with unsafe code: what threads share, instructions, foreign functions.
const UNSAFE: [&str; 3] = ["threads", "cpu", "cuda"];
/// The crate that maps files, in one file.
const MAPS_FILES: &str = "engine";

/// Macros whose bodies may name what is in files that use them, and why: a body is read where the macro is used.
const FREE_MACROS: [(&str, &str); 0] = [];

#[track_caller]
fn none(violations: Vec<String>) {
    let list = violations.join("\n  ");
    assert!(
        violations.is_empty(),
        "{} violations:\n  {list}",
        violations.len()
    );
}

#[test]
fn files_of_a_crate_do_not_import_each_other_in_circles() {
    none(circles::violations(&House::here(), &FREE_MACROS));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    none(crates::undrawn_arrows(&House::here(), &ARROWS));
}

#[test]
fn the_binary_reaches_engine_and_quantizer_through_the_library() {
    none(crates::undrawn_arrows_of_the_binary(&House::here(), &BINARY));
}

#[test]
fn the_python_package_reaches_everything_through_the_library_and_prices() {
    none(crates::undrawn_arrows_of(&House::here(), PYTHON, &OF_PYTHON));
}

#[test]
fn the_worker_of_dynamo_reaches_everything_through_the_library() {
    none(crates::undrawn_arrows_of(&House::here(), DYNAMO, &OF_DYNAMO));
}

#[test]
fn nothing_else_depends_on_python() {
    let house = House::here();
    let strangers = PYTHONS_OWN.map(|package| crates::strangers_with(&house, package, PYTHON.0));
    none(strangers.concat());
}

#[test]
fn unsafe_code_lives_in_three_crates_and_the_one_mapping() {
    none(crates::misplaced_unsafe(&House::here(), &UNSAFE, MAPS_FILES));
}

#[test]
fn every_other_crate_keeps_unsafe_code_out() {
    none(crates::unguarded_crates(
        &House::here(),
        &UNSAFE,
        MAPS_FILES,
        &ADAPTERS,
    ));
}

#[test]
fn functions_are_not_long() {
    none(sizes::long_functions(&House::here()));
}

#[test]
fn the_usual_function_is_short() {
    none(sizes::usual_functions(&House::here()));
}

#[test]
fn files_are_not_long() {
    none(sizes::long_files(&House::here()));
}

#[test]
fn folders_are_not_full() {
    none(sizes::full_folders(&House::here()));
}

#[test]
fn files_and_folders_are_named_by_nouns() {
    none(sizes::empty_names(&House::here()));
}

#[test]
fn paths_that_the_design_names_exist() {
    none(design::lost_paths(&House::here()));
}
