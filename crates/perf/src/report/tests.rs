//! Whole reports from few rows: sections with data are drawn, the others say what they lack.

use dualgrain_format::GroupSize;

use super::document::render;
use super::findings::Findings;
use super::summary::Summary;
use crate::choose::Regret;
use crate::data::{Cut, Dataset, Manifest, PROTOCOL, QualityFlag, Row};
use crate::learn::HeldOut;
use crate::machine::{Machine, MachineKind};
use crate::predict::{Interval, Prediction};
use crate::product::Layout;
use crate::report::sections::Choice;

fn manifest() -> Manifest {
    Manifest {
        protocol: PROTOCOL,
        machine: Machine {
            name: "a <card>".to_owned(),
            kind: MachineKind::Gpu,
            num_units: 132,
            clock_hz: 1.98e9,
            read_bytes_per_s: 4e12,
            last_level_cache_bytes: 60 << 20,
            memory_bytes: 140 << 30,
            shared_bytes: 232_448,
            capability: 90,
            int8_ops_per_s: 1.4e15,
            half_ops_per_s: 7e14,
            float_ops_per_s: 5e13,
            idle_power_w: None,
            power_limit_w: None,
            small_ops: None,
            timed_models: Vec::new(),
        },
        driver: "a & b".to_owned(),
        version: String::new(),
        date: String::new(),
        method: String::new(),
        operands: String::new(),
    }
}

/// A row of the naive kernel with a square tile.
fn tiled(side: usize, tile: usize, time_s: f64, power_w: Option<f64>) -> Row {
    Row {
        kernel: "sgemm_tiled".to_owned(),
        config: format!("t{tile}"),
        m: side,
        n: side,
        k: side,
        group_size: GroupSize::WholeRow,
        layout: Layout::Nn,
        alpha: 1.0,
        beta: 0.0,
        output: "f32".to_owned(),
        tile_m: tile,
        tile_n: tile,
        tile_k: tile,
        stages: 1,
        threads: tile * tile,
        cluster: 1,
        split_k: 1,
        cut: Cut::Whole,
        ctas: 1,
        ctas_per_sm: 1,
        occupancy: 0.5,
        registers: 32,
        shared_bytes: 8 * tile * tile,
        waves: 1.0,
        verified: "freivalds".to_owned(),
        flag: None,
        time_s: Some(time_s),
        time_q1_s: None,
        time_q3_s: None,
        runs: 3,
        power_w,
        energy_j: power_w.map(|power| power * time_s),
        energy_window_s: None,
        energy_runs: 0,
        sm_clock_hz: None,
        memory_clock_hz: None,
        temperature_c: None,
        throttle_reasons: None,
    }
}

fn dataset(rows: Vec<Row>) -> Dataset {
    Dataset {
        manifest: manifest(),
        rows,
    }
}

fn drawn(data: &Dataset, held_out: &[HeldOut]) -> (String, Summary) {
    render(&Findings {
        data: Some(data),
        held_out,
        ..Findings::default()
    })
}

#[test]
fn page_of_nothing_says_of_every_section_why_it_is_empty() {
    let (html, summary) = render(&Findings::default());
    assert_eq!(summary.absent.len(), 11);
    assert_eq!(html.matches("class=\"absent\"").count(), 11);
    assert!(!html.contains("<svg"));
}

#[test]
fn names_from_files_cannot_become_markup() {
    let mut row = tiled(8192, 8, 1.0, None);
    row.kernel = "sgemm_<script>".to_owned();
    let rows = vec![row; 12];
    let (html, _) = drawn(&dataset(rows), &[]);
    assert!(html.contains("a &lt;card&gt;") && html.contains("a &amp; b"));
    assert!(!html.contains("<script>") && !html.contains("<card>"));
}

#[test]
fn marked_rows_are_counted_and_not_drawn() {
    let mut wrong = tiled(8192, 16, 1e-9, None);
    wrong.flag = Some(QualityFlag::Wrong);
    let (_, summary) = drawn(&dataset(vec![tiled(8192, 8, 1.0, None), wrong]), &[]);
    assert_eq!((summary.rows, summary.sound_rows), (2, 1));
    assert_eq!(summary.flags["wrong"], 1);
    assert_eq!(summary.tiles, None, "one tile is no choice");
}

#[test]
fn tiles_are_compared_on_the_same_product_and_large_ones_only() {
    let data = dataset(vec![
        tiled(8192, 8, 3.0, Some(400.0)),
        tiled(8192, 16, 1.0, Some(380.0)),
        tiled(8192, 32, 1.2, Some(300.0)),
        tiled(16_384, 8, 20.0, Some(400.0)),
        tiled(16_384, 16, 10.0, None),
        tiled(16_384, 32, 9.0, Some(320.0)),
        // Small: counts for the fastest tile alone.
        tiled(64, 8, 1.0, None),
        tiled(64, 16, 5.0, None),
    ]);
    let (html, summary) = drawn(&data, &[]);
    let study = summary.tiles.unwrap();
    let speedup = study.speedup_16_over_8.unwrap();
    assert_eq!(
        (study.products, speedup.products, speedup.least_side),
        (3, 3, 1),
        "two large ones are too few"
    );
    assert!((speedup.mean - (3.0 + 2.0 + 0.2) / 3.0).abs() < 1e-12 && speedup.most == 3.0);
    // With energy there are only two products in all, both large.
    let saved = study.power_saved_32_over_8_percent.unwrap();
    assert_eq!((saved.products, saved.least_side), (2, 8192));
    assert!((saved.mean - 22.5).abs() < 1e-9 && (saved.most - 25.0).abs() < 1e-9);
    assert_eq!(study.fastest, [(8, 1), (16, 1), (32, 1)].into());
    assert!(html.contains("1.73 times on average, 3.00 at most") && html.contains("22.5 % less"));
}

#[test]
fn errors_are_those_of_a_small_case_by_hand() {
    let data = dataset(vec![tiled(512, 8, 1.0, Some(100.0)), tiled(512, 16, 2.0, None)]);
    let around = |value: f64| Interval {
        value,
        low: 0.95 * value,
        high: 1.05 * value,
    };
    let held_out = |row_idx, time: f64| HeldOut {
        row_idx,
        prediction: Prediction {
            time_s: around(time),
            power_w: Some(around(150.0)),
            energy_j: None,
            ops_per_s: around(1.0),
            ops_per_j: None,
            extrapolated: false,
        },
    };
    // 10 % too high, outside its interval; 2 % too low, inside. An index beyond the set is left out.
    let (html, summary) = drawn(&data, &[held_out(0, 1.1), held_out(1, 1.96), held_out(9, 1.0)]);
    let time = &summary.held_out["runtime"];
    assert!((time.mean_percent_error - 6.0).abs() < 1e-9);
    assert!((time.coverage.unwrap() - 0.5).abs() < 1e-12);
    // Measured 1 and 2: variance 0.5; errors 0.1 and 0.04.
    assert!((time.r2 - (1.0 - 0.0116 / 0.5)).abs() < 1e-9);
    assert!((summary.held_out["power"].median_percent_error - 50.0).abs() < 1e-9);
    assert!(!summary.held_out.contains_key("energy"));
    assert!(html.contains("Time, 2 rows"), "{html}");
    assert!(html.contains("mean error 6.0 %"));
}

#[test]
fn regret_is_told_for_each_goal() {
    let regret = |regret: f64| Regret {
        m: 16,
        n: 4096,
        k: 4096,
        group_size: GroupSize::Along(128),
        candidates: 12,
        chosen: "m<16>".to_owned(),
        best: "m64".to_owned(),
        regret,
    };
    let choice = |by, regrets: &[f64]| Choice {
        by,
        kernel: "w4a8".to_owned(),
        regrets: regrets.iter().copied().map(regret).collect(),
    };
    let choices = [choice("time", &[0.04, 0.0]), choice("energy", &[0.1])];
    let (html, summary) = render(&Findings {
        choices: &choices,
        ..Findings::default()
    });
    assert_eq!(
        (summary.regret.len(), summary.regret[1].regret.worst_regret),
        (2, 0.1)
    );
    assert!(html.contains("w4a8 by time: mean 2.00 %, worst 4.0 %, 2 products"));
    assert!(html.contains("m&lt;16&gt; was chosen, 10.0 % more than m64"));
}
