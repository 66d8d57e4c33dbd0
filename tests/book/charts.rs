//! The pictures in docs/pictures that show records.

use dualgrain_perf::report::plot::{Axis, Chart, Series};

use crate::bars::{bars, picture};
use crate::committed::assert_is;
use crate::csv::{Row, best, number, rows};
use crate::figures::{DECODE_ROWS, table};

const CPU: &str = "2026-11-23_xeon_inference.csv";
const QUALITY: &str = "2026-11-30_xeon_amx_quality.csv";
/// Room for the title of a picture above a chart.
const ABOVE: f64 = 46.0;
const SIZE: (f64, f64) = (440.0, 330.0);
const SHAPE: &str = "Llama shape, 1.1 B parameters, two cores with AMX, 2026-11-23";

/// Programs and formats on the CPU, with what their rows in the record have.
const ON_CPU: [(&str, &[(&str, &str)]); 5] = [
    (
        "dualgrain, INT8 head",
        &[("program", "dualgrain"), ("head", "int8"), ("kernels", "amx")],
    ),
    (
        "dualgrain, W4A8 head",
        &[("program", "dualgrain"), ("head", "w4a8"), ("kernels", "amx")],
    ),
    ("llama.cpp Q4_0", &[("weights", "Q4_0"), ("kernels", "native")]),
    (
        "llama.cpp Q4_K_M",
        &[("weights", "Q4_K_M"), ("kernels", "native")],
    ),
    ("llama.cpp F16", &[("weights", "F16"), ("kernels", "native")]),
];

/// The best run of each program with two threads and one sequence.
fn on_cpu(column: &str) -> Vec<(&'static str, f64)> {
    let rows = rows(CPU);
    let one = [("threads", "2"), ("batch", "1")];
    let value = |wanted: &[(&str, &str)]| best(&rows, &[wanted, &one].concat(), column);
    ON_CPU
        .iter()
        .map(|(name, wanted)| (*name, value(wanted)))
        .collect()
}

#[test]
fn prefill_on_a_cpu() {
    let values = on_cpu("prefill_tokens_per_s");
    let svg = bars("Prefill of 512 tokens, tokens per second", SHAPE, &values);
    assert_is("docs/pictures/cpu-prefill.svg", &svg);
}

#[test]
fn decode_on_a_cpu() {
    let values = on_cpu("decode_tokens_per_s");
    let svg = bars("Decode of one sequence, tokens per second", SHAPE, &values);
    assert_is("docs/pictures/cpu-decode.svg", &svg);
}

/// A chart below a title.
fn titled(title: &str, below: &str, chart: Chart) -> String {
    let (width, height) = SIZE;
    let inner = chart.svg().replacen(
        "<svg ",
        &format!("<svg y=\"{ABOVE}\" width=\"{width}\" height=\"{height}\" "),
        1,
    );
    picture(title, below, (width, height + ABOVE + 6.0), &(inner + "\n"))
}

/// A line with its marks, named beside its end or its beginning.
fn drawn(
    chart: Chart,
    index: usize,
    points: &[(f64, f64)],
    (at, anchor): ((f64, f64), &str),
    name: &str,
) -> Chart {
    let series = Series(index);
    let chart = chart.line(series, points.iter().copied());
    let mark = |chart: Chart, point: &(f64, f64)| {
        chart.marker(series, *point, &format!("{name}: {} at {}", point.1, point.0))
    };
    points.iter().fold(chart, mark).words(at, anchor, name)
}

#[test]
fn decode_on_an_h200() {
    let table = table("docs/comparison.md", "decode, 1 sequence");
    let points = |program: &str| -> Vec<(f64, f64)> {
        let value = |(row, batch): &(&str, f64)| Some((*batch, table.value(row, program)?));
        DECODE_ROWS.iter().filter_map(value).collect()
    };
    let sequences = Axis::log("sequences at once", "", DECODE_ROWS.map(|(_, batch)| batch)).unwrap();
    let speeds = Axis::log("tokens per second", "", [150.0, 40_000.0]).unwrap();
    let mut chart = Chart::new("Decode on an H200", SIZE, sequences, speeds);
    // Places of names, where no line passes.
    let shown = [
        ("dualgrain W4A8", ((64.0, 24_000.0), "end")),
        ("vLLM FP8", ((270.0, 8_000.0), "end")),
        ("llama.cpp Q4_0", ((60.0, 2_600.0), "start")),
    ];
    for (index, (program, place)) in shown.into_iter().enumerate() {
        chart = drawn(chart, index, &points(program), place, program);
    }
    let below = "Llama shape of 8 B parameters, 2026-11-28 and 12-01";
    assert_is(
        "docs/pictures/h200-decode.svg",
        &titled("Decode on one NVIDIA H200", below, chart),
    );
}

/// Bits and divergence of variants of llama-small.
fn quality(rows: &[Row], variants: &[&str]) -> Vec<(f64, f64)> {
    let point = |variant: &&str| {
        let row = rows
            .iter()
            .find(|row| row["model"] == "llama-small" && row["variant"] == *variant);
        let row = row.unwrap_or_else(|| panic!("{QUALITY} has no row of {variant}"));
        let value = |name| number(row, name).expect("a number");
        (value("bits_per_weight"), value("kl_divergence"))
    };
    variants.iter().map(point).collect()
}

#[test]
fn divergence_over_bits() {
    let rows = rows(QUALITY);
    let bits = Axis::between("bits a weight", "", 4.13, 4.27);
    let divergence = Axis::between("KL divergence, nats", "", 0.0, 0.05);
    let mut chart = Chart::new("KL divergence over bits a weight", SIZE, bits, divergence);
    let shown: [(&str, (f64, f64), &[&str]); 3] = [
        (
            "the search alone (--method dgq)",
            (4.163, 0.046),
            &["search alone", "search alone, group 64"],
        ),
        (
            "the default",
            (4.163, 0.0293),
            &["default", "group 64", "4.25 bits"],
        ),
        (
            "--rotate --hadamard-down",
            (4.145, 0.0185),
            &[
                "rotated and transformed",
                "rotated and transformed, group 64",
                "rotated and transformed, 4.25 bits",
            ],
        ),
    ];
    for (index, (name, at, variants)) in shown.into_iter().enumerate() {
        chart = drawn(chart, 2 - index, &quality(&rows, variants), (at, "start"), name);
    }
    let below = "llama-small, groups of 128 and 64, and --bits 4.25; 2026-11-30";
    assert_is(
        "docs/pictures/kl-bits.svg",
        &titled("KL divergence over bits a weight", below, chart),
    );
}
