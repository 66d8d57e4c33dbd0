//! The verbs over measurements as a user meets them, on a set that is computed: pages that open offline, figures that agree,
//! errors in words.

mod synthetic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn dualgrain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dualgrain"))
        .args(arguments)
        .output()
        .expect("starting dualgrain")
}

fn json(arguments: &[&str]) -> Value {
    let output = dualgrain(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {message}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
}

fn failure(arguments: &[&str]) -> String {
    let output = dualgrain(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert!(
        message.starts_with("error: ") && !message.contains("panicked"),
        "{message}"
    );
    message
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("perf").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// What makes a page need something from outside.
fn assert_offline(html: &str) {
    for outside in ["<script", "http:", "https:", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("prefers-color-scheme:dark") && html.contains("</html>"));
    assert!(
        !html.contains("NaN") && !html.contains("inf "),
        "a number that is none"
    );
}

#[test]
fn report_of_a_set_is_one_small_page_with_every_picture_that_the_data_allow() {
    let folder = scratch("report");
    synthetic::write(&folder.join("data"), 60);
    let page = folder.join("report.html");
    let summary = json(&[
        "report",
        text(&folder.join("data")),
        "--out",
        text(&page),
        "--json",
    ]);
    let html = fs::read_to_string(&page).unwrap();
    assert_offline(&html);
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    assert_eq!(summary["size_bytes"], html.len());
    let rows = summary["rows"].as_u64().unwrap();
    assert_eq!(rows, 60 * 14 + 5 * 32 * 4);
    assert!(html.contains(&format!("{rows} measured")));
    let tiles = &summary["tiles"];
    assert_eq!(tiles["large_side"], 8192);
    let speedup = tiles["speedup_16_over_8"][0].as_f64().unwrap();
    // The set was computed with 2 ^ 1.4 between the two.
    assert!((2.4..2.9).contains(&speedup), "{speedup}");
    assert!(html.contains(&format!("{speedup:.2} times on average")));
    for section in [
        "correlation",
        "tiles",
        "resources",
        "layouts",
        "roofline",
        "trade",
    ] {
        assert!(summary["absent"][section].is_null(), "{section}");
        assert!(html.contains(&format!("<h2 id=\"{section}\"")), "{section}");
    }
}

#[test]
fn what_cannot_be_reported_on_is_refused_in_words() {
    let folder = scratch("refused");
    let out = folder.join("r.html");
    let missing = failure(&["report", text(&folder.join("nowhere/set")), "--out", text(&out)]);
    assert!(
        missing.contains("nowhere") && missing.contains("measured set"),
        "{missing}"
    );
    let empty = failure(&["report", text(&folder), "--out", text(&out)]);
    assert!(empty.contains("manifest.json"), "{empty}");
    let unknown = failure(&["report", "h2000", "--out", text(&out)]);
    assert!(unknown.contains("h2000"), "{unknown}");
    let two = failure(&["report", "h200", "xeon-amx", "--out", text(&out)]);
    assert!(two.contains("xeon-amx"), "{two}");
    let data = folder.join("data");
    synthetic::write(&data, 1);
    let rows = data.join("rows.csv");
    let torn = fs::read_to_string(&rows)
        .unwrap()
        .replace(",Nt,", ",Nx,")
        .replace(",NT,", ",NX,");
    fs::write(&rows, torn).unwrap();
    let corrupt = failure(&["report", text(&data), "--out", text(&out)]);
    assert!(corrupt.contains("line 2"), "{corrupt}");
    assert!(!out.exists());
}
