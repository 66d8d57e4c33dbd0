//! The verbs over measurements as a user meets them, on a set that is computed: pages that open offline, figures that agree,
//! errors in words.

mod program;
mod synthetic;

use std::fs;
use std::path::{Path, PathBuf};

use program::{dualgrain, json, text};
use serde_json::Value;

/// Nothing is told before the error.
fn failure(arguments: &[&str]) -> String {
    let message = program::failure(arguments);
    assert!(message.starts_with("error: "), "{message}");
    message
}

fn scratch(name: &str) -> PathBuf {
    program::scratch("perf", name)
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
    assert_eq!(tiles["speedup_16_over_8"]["least_side"], 8192);
    let speedup = tiles["speedup_16_over_8"]["mean"].as_f64().unwrap();
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
    // A card of the same name with fewer units.
    let manifest = data.join("manifest.json");
    let mut smaller: Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    let whole = smaller.to_string();
    smaller["machine"]["name"] = "NVIDIA H200".into();
    smaller["machine"]["num_units"] = 114.into();
    fs::write(&manifest, smaller.to_string()).unwrap();
    let mixed = failure(&["report", text(&data), "h200", "--out", text(&out)]);
    assert!(
        mixed.contains("114 units") && mixed.contains("132 units"),
        "{mixed}"
    );
    fs::write(&manifest, whole).unwrap();
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

/// Llama-3-70B's public sizes.
const LLAMA_3_70B: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192,
    "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0, "torch_dtype": "bfloat16"}"#;

/// A model fitted to the computed set, once for all tests of this file.
fn fitted() -> &'static Path {
    static FILE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FILE.get_or_init(|| {
        let folder = scratch("fitted");
        synthetic::write(&folder.join("data"), 40);
        let file = folder.join("card.dgm");
        json(&["fit", text(&folder.join("data")), "--out", text(&file), "--json"]);
        file
    })
}

fn config(name: &str, json: &str) -> PathBuf {
    let folder = scratch(name);
    fs::write(folder.join("config.json"), json).unwrap();
    folder
}

#[test]
fn cost_of_a_70b_model_takes_a_second_and_its_page_shows_the_figures_of_its_json() {
    let folder = config("llama-3-70b", LLAMA_3_70B);
    let page = folder.join("cost.html");
    let arguments = [
        "cost",
        text(&folder),
        "--model",
        text(fitted()),
        "--html",
        text(&page),
        "--json",
    ];
    let start = std::time::Instant::now();
    let cost = json(&arguments);
    let time = start.elapsed();
    assert!(time.as_secs_f64() < 1.0, "{time:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert_offline(&html);
    assert_eq!(
        (&cost["model"], &cost["scheme"]),
        (&"llama-3-70b".into(), &"w4a8".into())
    );
    let batches = cost["batches"].as_array().unwrap();
    assert_eq!(batches.len(), 3);
    for batch in batches {
        let shown = |field: &str, unit: &str| {
            let figure =
                dualgrain_perf::report::plot::quantity(batch[field]["value"].as_f64().unwrap(), unit);
            assert!(html.contains(&figure), "{field}: {figure}");
        };
        shown("time_to_first_token_s", "s");
        shown("decode_tokens_per_s", "tok/s");
        shown("joules_per_token", "J");
        assert_eq!(batch["memory"]["fits"], true);
        // 68.5 G weights of 4.1 bits, a head of 8 bits, an embedding of 16.
        let weights = batch["memory"]["weights_bytes"].as_f64().unwrap();
        assert!((weights / 38.4e9 - 1.0).abs() < 0.02, "{weights}");
        let products = batch["products"].as_array().unwrap();
        assert_eq!(products.len(), 10);
        assert!(
            products
                .iter()
                .all(|line| line["estimate"] == false && line["kernel"] != "")
        );
        let estimates = batch["estimates"].as_array().unwrap();
        assert!(estimates.iter().all(|line| line["estimate"] == true));
    }
}

#[test]
fn cost_in_other_schemes_takes_other_kernels_and_more_memory() {
    let folder = config("schemes", LLAMA_3_70B);
    let of = |scheme: &str| {
        let arguments = [
            "cost",
            text(&folder),
            "--model",
            text(fitted()),
            "--batch",
            "4",
            "--scheme",
            scheme,
            "--json",
        ];
        json(&arguments)["batches"][0].clone()
    };
    let kernel = |batch: &Value| batch["products"][0]["kernel"].as_str().unwrap().to_owned();
    let (w4, w8, floats) = (of("w4a8"), of("w8a8"), of("bf16"));
    assert!(kernel(&w4).contains("w4a8"));
    assert_eq!(
        (kernel(&w8).as_str(), kernel(&floats).as_str()),
        ("cublaslt_int8", "cublas_bf16")
    );
    let weights = |batch: &Value| batch["memory"]["weights_bytes"].as_f64().unwrap();
    assert!(weights(&w4) < weights(&w8) && weights(&w8) < weights(&floats));
    let speed = |batch: &Value| batch["decode_tokens_per_s"]["value"].as_f64().unwrap();
    assert!(speed(&w4) > speed(&w8) && speed(&w8) > speed(&floats));
    let table = dualgrain(&["cost", text(&folder), "--model", text(fitted()), "--batch", "1,2"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(
        table.contains("at batch 2") && table.contains("not measured, estimated"),
        "{table}"
    );
    assert!(table.contains("on a card of that kind"), "{table}");
}

#[test]
fn cost_on_a_cpu_is_that_of_the_threads_it_names() {
    let folder = config("threads", LLAMA_3_70B);
    let of = |threads: &[&str]| {
        let arguments = [
            &["cost", text(&folder), "--device", "cpu", "--batch", "1", "--json"][..],
            threads,
        ];
        json(&arguments.concat())
    };
    let speed = |cost: &Value| {
        cost["batches"][0]["decode_tokens_per_s"]["value"]
            .as_f64()
            .unwrap()
    };
    let (one, two, usual) = (of(&["--threads", "1"]), of(&["--threads", "2"]), of(&[]));
    assert_eq!(
        (&one["threads"], &two["threads"], &usual["threads"]),
        (&1.into(), &2.into(), &2.into())
    );
    assert!(speed(&two) > 1.2 * speed(&one) && speed(&usual) == speed(&two));
    for line in one["batches"][0]["products"].as_array().unwrap() {
        assert_eq!(line["config"], "t1");
    }
    let words = dualgrain(&["cost", text(&folder), "--device", "cpu", "--batch", "1"]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("(2 threads)"));
    let three = failure(&["cost", text(&folder), "--device", "cpu", "--threads", "3"]);
    assert!(
        three.contains("--threads is 3") && three.contains("1, 2"),
        "{three}"
    );
    let product = ["--m", "1", "--n", "2048", "--k", "2048", "--device", "cpu"];
    for verb in ["predict", "select"] {
        let arguments = [&[verb][..], &product, &["--threads", "1"]].concat();
        let output = dualgrain(&arguments);
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(words.contains(" t1 ") && !words.contains(" t2 "), "{words}");
    }
}

#[test]
fn what_cannot_be_priced_is_refused_in_words() {
    let folder = config("unpriced", LLAMA_3_70B);
    let model = text(fitted());
    let of = |more: &[&str]| failure(&[&["cost", text(&folder)][..], more].concat());
    let long = of(&["--model", model, "--prompt", "8190"]);
    assert!(long.contains("8254") && long.contains("8192"), "{long}");
    let device = of(&["--device", "h2000"]);
    assert!(device.contains("h2000") && device.contains("h200"), "{device}");
    let missing = failure(&["cost", "nowhere", "--model", model]);
    assert!(missing.contains("nowhere"), "{missing}");
    let family = config("family", r#"{"model_type": "mamba", "hidden_size": 64}"#);
    let unknown = failure(&["cost", text(&family), "--model", model]);
    assert!(
        unknown.contains("mamba") && unknown.contains("LlamaForCausalLM"),
        "{unknown}"
    );
    let file = failure(&["cost", text(&family.join("config.json")), "--model", model]);
    assert!(file.contains("config.json") && file.contains("mamba"), "{file}");
    for wrong in [["--batch", "0"], ["--generate", "0"], ["--scheme", "w2a2"]] {
        let arguments = ["cost", text(&folder), wrong[0], wrong[1]];
        assert_eq!(dualgrain(&arguments).status.code(), Some(2), "{wrong:?}");
    }
}
