//! How much stands in one function, one file and one folder, and what files must not be called.

use std::collections::BTreeMap;
use std::path::Path;

use crate::functions::{Function, functions};
use crate::house::{House, read};
use crate::tokens::{tokens, without_tests};

const MAX_FUNCTION_LINES: usize = 60;
/// Half of all functions have at most so many lines.
const MAX_MEDIAN_LINES: usize = 9;
/// Nine of ten functions have at most so many lines.
const MAX_LINES_OF_NINE_IN_TEN: usize = 25;
const MAX_FILE_LINES: usize = 500;
/// Of a GPU kernel's file.
const MAX_KERNEL_LINES: usize = 400;
const MAX_FILES_IN_A_FOLDER: usize = 15;

/// Functions that are too long.
pub fn long_functions(house: &House) -> Vec<String> {
    let all = all_functions(house).into_iter();
    let long = all.filter(|(_, function)| function.num_lines > MAX_FUNCTION_LINES);
    long.map(|(file, function)| {
        let Function {
            name,
            line,
            num_lines,
        } = function;
        format!("{file}:{line}: fn {name} has {num_lines} lines, more than {MAX_FUNCTION_LINES}")
    })
    .collect()
}

/// Whether the usual function is too long, and where the longer ones stand.
pub fn usual_functions(house: &House) -> Vec<String> {
    let all = all_functions(house);
    let mut lengths: Vec<usize> = all.iter().map(|(_, function)| function.num_lines).collect();
    lengths.sort_unstable();
    let bounds = [(5, MAX_MEDIAN_LINES), (9, MAX_LINES_OF_NINE_IN_TEN)];
    let broken = bounds.into_iter().filter_map(|(tenths, most)| {
        let rank = (lengths.len() * tenths).div_ceil(10);
        let lines = *lengths.get(rank.checked_sub(1)?)?;
        let places = longer_by_place(&all, most);
        let num = lengths.len();
        (lines > most).then(|| {
            format!("{tenths} in 10 of {num} functions have up to {lines} lines, more than {most}; longer: {places}")
        })
    });
    broken.collect()
}

/// How many functions have more than `most` lines, by the two folders that come first in their files' names.
fn longer_by_place(all: &[(String, Function)], most: usize) -> String {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (file, _) in all.iter().filter(|(_, function)| function.num_lines > most) {
        let folders = file.rsplit_once('/').map_or("", |(folders, _)| folders);
        let place: Vec<&str> = folders.split('/').take(2).collect();
        *places.entry(place.join("/")).or_default() += 1;
    }
    let places: Vec<String> = places
        .into_iter()
        .map(|(place, num)| format!("{num} in {place}"))
        .collect();
    places.join(", ")
}

/// Each function apart from tests, with the name of its file.
fn all_functions(house: &House) -> Vec<(String, Function)> {
    let mut all = Vec::new();
    for file in house.rust_files_apart_from_tests() {
        let source = read(&file);
        let (kept, _) = without_tests(&tokens(&source));
        let name = house.name(&file);
        all.extend(
            functions(&kept)
                .into_iter()
                .map(|function| (name.clone(), function)),
        );
    }
    all
}

/// Files that are too long, without their tests.
pub fn long_files(house: &House) -> Vec<String> {
    let files = house.sources().into_iter().filter(|file| !house.is_test(file));
    let measured = files.map(|file| (lines_apart_from_tests(&file), file));
    let long = measured.filter(|(num_lines, file)| *num_lines > most_lines(file));
    long.map(|(num_lines, file)| {
        let (name, most) = (house.name(&file), most_lines(&file));
        format!("{name} has {num_lines} lines, more than {most}")
    })
    .collect()
}

fn most_lines(file: &Path) -> usize {
    match file.extension().is_some_and(|ending| ending == "rs") {
        true => MAX_FILE_LINES,
        false => MAX_KERNEL_LINES,
    }
}

fn lines_apart_from_tests(file: &Path) -> usize {
    let source = read(file);
    let num_lines = source.lines().count();
    if file.extension().is_none_or(|ending| ending != "rs") {
        return num_lines;
    }
    let (_, tests) = without_tests(&tokens(&source));
    num_lines - tests.into_iter().map(Iterator::count).sum::<usize>()
}

/// Folders with too many source files beside each other.
pub fn full_folders(house: &House) -> Vec<String> {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for file in house.sources() {
        *folders.entry(house.name(file.parent().unwrap())).or_default() += 1;
    }
    let full = folders
        .into_iter()
        .filter(|(_, files)| *files > MAX_FILES_IN_A_FOLDER);
    full.map(|(folder, files)| format!("{folder} has {files} files, more than {MAX_FILES_IN_A_FOLDER}"))
        .collect()
}

/// Files and folders whose names say nothing.
pub fn empty_names(house: &House) -> Vec<String> {
    const EMPTY: [&str; 6] = ["utils", "util", "common", "misc", "helpers", "helper"];
    let names = house.sources().into_iter().map(|file| house.name(&file));
    let says_nothing = |name: &String| {
        let stems = name.split('/').map(|part| part.split('.').next().unwrap());
        stems.into_iter().any(|stem| EMPTY.contains(&stem))
    };
    names
        .filter(says_nothing)
        .map(|name| format!("{name}: a helper gets a noun"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::invented;

    fn function(name: &str, num_lines: usize) -> String {
        format!("fn {name}() {{{}}}\n", "\n".repeat(num_lines - 1))
    }

    #[test]
    fn a_long_function_is_found_and_its_tests_are_not() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function("c", 90));
        let source = function("a", 60) + &function("b", 61) + &tests;
        let (_folder, house) = invented(&[("src/x.rs", &source), ("crates/y/tests/z.rs", &source)]);
        assert_eq!(
            long_functions(&house),
            ["src/x.rs:61: fn b has 61 lines, more than 60"]
        );
    }

    #[test]
    fn the_usual_function_is_measured_by_rank() {
        let functions = |lengths: &[usize]| -> String { lengths.iter().map(|&n| function("a", n)).collect() };
        let verdict = |lengths: &[usize]| {
            let (_folder, house) = invented(&[("examples/x.rs", &functions(lengths))]);
            usual_functions(&house)
        };
        assert_eq!(verdict(&[1, 1, 1, 1, 9, 10, 10, 10, 25, 60]), [""; 0]);
        assert_eq!(
            verdict(&[1, 1, 1, 1, 10, 10, 10, 10, 26, 26]),
            [
                "5 in 10 of 10 functions have up to 10 lines, more than 9; longer: 6 in examples",
                "9 in 10 of 10 functions have up to 26 lines, more than 25; longer: 2 in examples"
            ]
        );
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_are_not_counted() {
        let (most, tests) = ("\n".repeat(500), "#[cfg(test)]\nmod tests {\n\n}\n");
        let files = [
            ("src/most.rs", most.clone() + tests),
            ("src/long.rs", most.clone() + "\n" + tests),
            ("src/long/tests.rs", most.clone() + "\n"),
            ("crates/cuda/src/cu/a.cu", "\n".repeat(401)),
        ];
        let (_folder, house) = invented(&files.each_ref().map(|(name, text)| (*name, text.as_str())));
        assert_eq!(
            long_files(&house),
            [
                "src/long.rs has 501 lines, more than 500",
                "crates/cuda/src/cu/a.cu has 401 lines, more than 400"
            ]
        );
    }

    #[test]
    fn a_full_folder_is_found() {
        let names: Vec<String> = (0..15).map(|n| format!("crates/x/tests/{n}.cuh")).collect();
        let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        files.push(("crates/x/tests/more/a.rs", ""));
        let (_folder, house) = invented(&files);
        assert_eq!(full_folders(&house), [""; 0]);
        files.push(("crates/x/tests/a.rs", ""));
        let (_folder, house) = invented(&files);
        assert_eq!(
            full_folders(&house),
            ["crates/x/tests has 16 files, more than 15"]
        );
    }

    #[test]
    fn a_name_that_says_nothing_is_found() {
        let files = [
            ("src/misc.rs", ""),
            ("src/common/mod.rs", ""),
            ("src/commons.rs", ""),
        ];
        let (_folder, house) = invented(&files);
        assert_eq!(
            empty_names(&house),
            [
                "src/common/mod.rs: a helper gets a noun",
                "src/misc.rs: a helper gets a noun"
            ]
        );
    }
}
