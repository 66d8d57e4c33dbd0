//! Figures of the book's tables that records hold too.

use std::path::Path;

use dualgrain_testing::skipped;

use crate::bars::written;
use crate::committed::{file, read};
use crate::csv::{Row, best, parsed, rows};

/// Rows of decoding on an H200, with their numbers of sequences.
pub const DECODE_ROWS: [(&str, f64); 4] = [
    ("decode, 1 sequence", 1.0),
    ("decode, 16 sequences", 16.0),
    ("decode, 64 sequences", 64.0),
    ("decode, 256 sequences", 256.0),
];
const PREFILL_ROWS: [(&str, &str); 2] = [
    ("prefill of 2,048 tokens", "2048"),
    ("prefill of 8,192 tokens", "8192"),
];
const MODELS: &str = "2026-12-01_h200_models.csv";

/// A table of a page: its header and its rows.
pub struct Table(Vec<Vec<String>>);

/// The table of `page` that has a row which begins with `first`.
#[track_caller]
pub fn table(page: &str, first: &str) -> Table {
    let text = read(page);
    let blocks = text.split("\n\n").filter(|block| block.starts_with('|'));
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    let tables = blocks.map(|block| block.lines().map(cells).collect::<Vec<Vec<String>>>());
    let found = tables
        .into_iter()
        .find(|rows| rows.iter().any(|row| row[0] == first));
    Table(found.unwrap_or_else(|| panic!("{page} has no table with the row {first}")))
}

impl Table {
    /// A cell as it is written.
    #[track_caller]
    pub fn cell(&self, row: &str, column: &str) -> &str {
        let index = self.0[0].iter().position(|name| name == column);
        let index = index.unwrap_or_else(|| panic!("no column {column}"));
        let row = self
            .0
            .iter()
            .find(|cells| cells[0] == row)
            .unwrap_or_else(|| panic!("no row {row}"));
        &row[index]
    }

    /// A cell as a number; none for `-`.
    #[track_caller]
    pub fn value(&self, row: &str, column: &str) -> Option<f64> {
        self.cell(row, column).replace(',', "").parse().ok()
    }
}

#[test]
fn figures_of_an_h200_are_those_of_the_record() {
    let record = rows(MODELS);
    let table = table("docs/comparison.md", "decode, 1 sequence");
    for (row, batch) in DECODE_ROWS {
        let batch = batch.to_string();
        let wanted = [("batch", batch.as_str()), ("prompt_tokens", "1024")];
        let measured = best(&record, &wanted, "decode_tokens_per_s");
        assert_eq!(table.cell(row, "dualgrain W4A8"), written(measured), "{row}");
    }
    for (row, tokens) in PREFILL_ROWS {
        let measured = best(&record, &[("prompt_tokens", tokens)], "prefill_tokens_per_s");
        assert_eq!(table.cell(row, "dualgrain W4A8"), written(measured), "{row}");
    }
}

/// Columns of the table, and how rows of the file of rivals begin.
const RIVALS: [(&str, &str); 5] = [
    ("vLLM FP8", "vllm fp8"),
    ("vLLM W4A8-FP8", "vllm w4a8-fp8"),
    ("vLLM W4A16", "vllm w4a16"),
    ("vLLM bf16", "vllm bf16"),
    ("llama.cpp Q4_0", "llama.cpp Q4_0"),
];

fn is_of(row: &Row, rival: &str) -> bool {
    format!("{} {}", row["engine"], row["format"]).starts_with(rival)
}

#[test]
fn figures_of_rivals_are_those_that_were_measured() {
    let path = file("../shared/peers/e2e_h200.csv");
    if !Path::new(&path).is_file() {
        skipped("shared", "the figures of other programs were not compared");
        return;
    }
    let table = table("docs/comparison.md", "decode, 1 sequence");
    let rivals = parsed(&std::fs::read_to_string(path).unwrap());
    for (column, rival) in RIVALS {
        let rows: Vec<Row> = rivals.iter().filter(|row| is_of(row, rival)).cloned().collect();
        for (row, batch) in DECODE_ROWS {
            let Some(shown) = table.value(row, column) else {
                continue;
            };
            let measured = best(&rows, &[("batch", &batch.to_string())], "decode_tokens_per_s");
            assert!((shown - measured).abs() <= 1.0, "{column}, {row}: {measured}");
        }
        let measured = best(&rows, &[("prompt_tokens", "2048")], "prefill_tokens_per_s");
        let shown = table.value("prefill of 2,048 tokens", column).unwrap();
        assert!((shown - measured).abs() <= 1.0, "{column}: {measured}");
    }
}

#[test]
fn figures_of_quality_are_those_of_the_record() {
    let record = rows("2026-11-30_xeon_amx_quality.csv");
    let shown = [
        ("the default", "default"),
        ("`--rotate --hadamard-down`", "rotated and transformed"),
        (
            "`--rotate --hadamard-down --bits 4.25`",
            "rotated and transformed, 4.25 bits",
        ),
    ];
    let text = read("docs/comparison.md");
    for (variant, name) in shown {
        let row = [("model", "llama-small"), ("variant", name)];
        let (bits, divergence) = (
            best(&record, &row, "bits_per_weight"),
            best(&record, &row, "kl_divergence"),
        );
        let line = format!("| dualgrain | {variant} | {bits:.2} | {divergence:.4} |");
        assert!(text.contains(&line), "docs/comparison.md lacks: {line}");
    }
}
