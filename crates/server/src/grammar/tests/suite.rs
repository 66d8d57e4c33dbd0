//! The official test suite of JSON Schema: what of it is claimed is followed, and the rest is refused.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;

use dualgrain_testing::skipped;
use serde_json::Value;

use super::walk::Walks;

/// Names a folder of the suite: `tests/draft2020-12`.
const SUITE: &str = "DUALGRAIN_SCHEMA_SUITE";

#[derive(Debug, Default)]
struct Figures {
    schemas: usize,
    followed: usize,
    walks: usize,
    ended: usize,
    /// Refused ones, by the last part of the path.
    refused: BTreeMap<String, usize>,
}

#[test]
fn the_official_suite_is_followed_or_refused() {
    let Some(folder) = env::var_os(SUITE) else {
        return skipped(
            "schema-suite",
            format_args!("{SUITE} names no folder of the JSON Schema test suite"),
        );
    };
    let mut walks = Walks::new(11);
    let mut figures = Figures::default();
    let mut files: Vec<_> = fs::read_dir(Path::new(&folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    files.sort();
    for file in files {
        let groups: Vec<Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for group in groups {
            follow(&group["schema"], &mut walks, &mut figures);
        }
    }
    println!("{figures:?}");
    assert!(figures.schemas > 300 && figures.followed > 100, "{figures:?}");
    assert!(2 * figures.ended > figures.walks, "{figures:?}");
}

fn follow(schema: &Value, walks: &mut Walks, figures: &mut Figures) {
    figures.schemas += 1;
    match walks.grammars.schema("schema", schema) {
        Err(error) => {
            assert_eq!(error.status.as_u16(), 400, "{schema}: {}", error.message);
            let path = error.message.split(": ").nth(1).unwrap_or_default();
            let keyword = path.rsplit('/').next().unwrap_or_default();
            *figures.refused.entry(keyword.to_owned()).or_default() += 1;
        }
        Ok(constraint) => {
            figures.followed += 1;
            for _ in 0..4 {
                figures.walks += 1;
                figures.ended += usize::from(walks.walk(schema, &constraint, 120));
            }
        }
    }
}
