//! `fit`, `predict` and `select` as a user meets them, on rows cut out of the committed set of the H200; and the model of
//! that card that comes with the program.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dualgrain_perf::{Dataset, RowWriter};
use program::{dualgrain, failure, text};
use serde_json::Value;

fn json(arguments: &[&str]) -> Value {
    program::json(&[arguments, &["--json"]].concat())
}

fn scratch(name: &str) -> PathBuf {
    program::scratch("choose", name)
}

/// Every eighth shape of the committed set, all its rows: some 50 shapes, a few of them searched exhaustively.
fn write_cut(folder: &Path) {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/data/h200");
    let data = Dataset::read(&whole).unwrap();
    let mut shapes: Vec<(usize, usize, usize)> = data.rows.iter().map(|row| (row.m, row.n, row.k)).collect();
    shapes.sort_unstable();
    shapes.dedup();
    let kept: Vec<_> = shapes.into_iter().step_by(8).collect();
    let mut writer = RowWriter::open(folder, &data.manifest).unwrap();
    for row in &data.rows {
        if kept.binary_search(&(row.m, row.n, row.k)).is_ok() {
            writer.append(row).unwrap();
        }
    }
}

/// A cut of the set and a model fitted to it, once for all tests of this file; with what `fit --json` said.
fn fitted() -> &'static (PathBuf, PathBuf, Value) {
    static FITTED: OnceLock<(PathBuf, PathBuf, Value)> = OnceLock::new();
    FITTED.get_or_init(|| {
        let folder = scratch("fitted");
        let (data, model) = (folder.join("data"), folder.join("card.dgm"));
        write_cut(&data);
        let said = json(&["fit", text(&data), "--out", text(&model)]);
        (data, model, said)
    })
}

#[test]
fn fit_says_how_well_unseen_shapes_are_predicted_and_the_same_seed_gives_the_same_file() {
    let (data, model, said) = fitted();
    for split in ["shape", "random"] {
        for target in ["runtime", "power", "energy", "throughput", "throughput_per_watt"] {
            let score = &said[split][target];
            for figure in [
                "r2",
                "r2_log",
                "mse",
                "mae",
                "mean_percent_error",
                "median_percent_error",
            ] {
                assert!(score[figure].is_f64(), "{split} {target} {figure}: {score}");
            }
        }
    }
    let of = |split: &str| said[split]["runtime"]["mean_percent_error"].as_f64().unwrap();
    assert!(
        of("random") < of("shape"),
        "rows of a shape are near copies: {said}"
    );
    assert!(
        of("shape") < 30.0,
        "an eighth of the set teaches this much: {said}"
    );
    assert!(said["shape"]["runtime"]["coverage"].as_f64().unwrap() > 0.8);
    let again = model.with_extension("again");
    let other_threads = ["fit", text(data), "--out", text(&again), "--threads", "1"];
    assert_eq!(&json(&other_threads), said);
    assert_eq!(fs::read(model).unwrap(), fs::read(&again).unwrap());
    let words = String::from_utf8(dualgrain(&["fit", text(data), "--out", text(&again)]).stdout).unwrap();
    assert!(
        words.contains("in 90 % interval") && words.contains("what power depends on"),
        "{words}"
    );
}

#[test]
fn predict_ranks_the_configurations_of_a_product_with_intervals_around_their_figures() {
    let (_, model, _) = fitted();
    let product = ["--m", "64", "--n", "4096", "--k", "4096", "--model", text(model)];
    let said = json(&[&["predict"][..], &product].concat());
    let predictions = said["predictions"].as_array().unwrap();
    assert!(predictions.len() > 20 && said["machine"] == "NVIDIA H200");
    let mut last = (false, 0.0);
    for one in predictions {
        let figure = |target: &str, end: &str| one[target][end].as_f64().unwrap();
        for target in ["time_s", "power_w", "energy_j", "ops_per_s", "ops_per_j"] {
            let (low, value, high) = (
                figure(target, "low"),
                figure(target, "value"),
                figure(target, "high"),
            );
            assert!(0.0 < low && low < value && value < high, "{target}: {one}");
        }
        let energy_j = figure("time_s", "value") * figure("power_w", "value");
        assert!((energy_j / figure("energy_j", "value") - 1.0).abs() < 1e-9);
        let place = (one["extrapolated"].as_bool().unwrap(), figure("time_s", "value"));
        assert!(place >= last, "{place:?} behind {last:?}");
        last = place;
    }
    let config = predictions[0]["config"].as_str().unwrap();
    let kernel = predictions[0]["kernel"].as_str().unwrap();
    let one = json(
        &[
            &["predict"][..],
            &product,
            &["--kernel", kernel, "--config", config],
        ]
        .concat(),
    );
    assert_eq!(one["predictions"][0]["time_s"], predictions[0]["time_s"]);
}

#[test]
fn a_configuration_is_found_in_every_kernel_that_has_it_and_asked_back_where_none_does() {
    let product = ["predict", "--m", "16", "--n", "4096", "--k", "4096"];
    let of = |more: &[&str]| json(&[&product[..], more].concat())["predictions"].clone();
    let all = of(&[]);
    let first = of(&["--config", all[0]["config"].as_str().unwrap()]);
    assert_eq!(first.as_array().unwrap().len(), 1);
    assert_eq!(first[0], all[0]);
    // Sizes of CPU kernels are their threads, and several kernels have those.
    let two = of(&["--device", "cpu", "--config", "t2"]);
    let kernels: Vec<&str> = two
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["kernel"].as_str().unwrap())
        .collect();
    assert!(
        kernels.contains(&"gemm_w4a8_amx") && kernels.contains(&"gemm_w4a8_avx2"),
        "{kernels:?}"
    );
    let none = failure(&[&product[..], &["--config", "m16n64k128_w1x1_c1_k3"]].concat());
    assert!(none.contains("did you mean m16n64k128_w1x1_c1_k"), "{none}");
}

#[test]
fn each_configuration_is_ranked_once_with_the_output_it_was_mostly_measured_with() {
    let product = ["predict", "--m", "16", "--n", "4096", "--k", "4096"];
    for (more, output) in [
        (&[][..], "bf16"),
        (&["--output", "f32"], "f32"),
        (&["--kernel", "int8"], "i32"),
        (&["--device", "cpu"], "f32"),
    ] {
        let said = json(&[&product[..], more].concat());
        let rows = said["predictions"].as_array().unwrap();
        let mut names: Vec<_> = rows
            .iter()
            .map(|row| (row["kernel"].to_string(), row["config"].to_string()))
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), rows.len(), "{more:?}");
        assert!(rows.iter().all(|row| row["output"] == output), "{more:?}: {said}");
    }
    let words = String::from_utf8(dualgrain(&product).stdout).unwrap();
    assert!(words.contains("output") && words.contains("bf16"), "{words}");
}

#[test]
fn products_that_a_kernel_has_no_way_to_run_are_refused_in_words() {
    for verb in ["predict", "select"] {
        let refused = |more: &[&str]| failure(&[&[verb, "--m", "16", "--k", "4096"][..], more].concat());
        let odd = refused(&["--n", "32001", "--kernel", "int8"]);
        assert!(
            odd.contains("expected multiples of 16 for cublaslt_int8"),
            "{odd}"
        );
        let turned = refused(&["--n", "4096", "--layout", "nn"]);
        assert!(
            turned.contains("expected (NT, 1, 0) for gemm_w4a8_sm90"),
            "{turned}"
        );
        let blended = refused(&["--n", "4096", "--alpha", "3", "--beta", "2"]);
        assert!(blended.contains("is (NT, 3, 2)"), "{blended}");
    }
    let energy = failure(&[
        "select", "--m", "16", "--n", "4096", "--k", "4096", "--device", "cpu", "--by", "energy",
    ]);
    assert!(
        energy.contains("energy of products on") && energy.contains("not measured"),
        "{energy}"
    );
    let others = [
        "predict", "--m", "16", "--n", "4096", "--k", "4096", "--layout", "nn", "--beta", "2",
    ];
    for kernel in ["cublas_bf16", "sgemm_tiled"] {
        let said = json(&[&others[..], &["--kernel", kernel]].concat());
        assert!(said["predictions"][0]["time_s"]["value"].is_f64(), "{said}");
    }
}

#[test]
fn select_takes_what_predict_ranks_first_and_shows_what_costs_less_energy() {
    let (_, model, _) = fitted();
    let product = ["--m", "256", "--n", "8192", "--k", "8192", "--model", text(model)];
    let of = |by: &str| json(&[&["select"][..], &product, &["--by", by]].concat());
    let ranked = json(&[&["predict"][..], &product].concat());
    let fastest = of("time");
    assert_eq!(fastest["best"]["config"], ranked["predictions"][0]["config"]);
    let front = fastest["pareto"].as_array().unwrap();
    let cost = |row: &Value, target: &str| row[target]["value"].as_f64().unwrap();
    for pair in front.windows(2) {
        assert!(cost(&pair[0], "time_s") < cost(&pair[1], "time_s"));
        assert!(cost(&pair[0], "energy_j") > cost(&pair[1], "energy_j"));
    }
    let leanest = of("energy");
    let least = cost(&leanest["best"], "energy_j");
    assert!(
        ranked["predictions"]
            .as_array()
            .unwrap()
            .iter()
            .all(|row| { row["extrapolated"] == true || cost(row, "energy_j") >= least })
    );
    assert_eq!(of("edp")["by"], "energy times time");
}

#[test]
fn regret_is_that_of_held_out_products_and_a_table_is_what_the_kernels_read() {
    let (data, model, _) = fitted();
    let said = json(&["select", "--regret", text(data), "--by", "time"]);
    let figure = |name: &str| said[name].as_f64().unwrap();
    assert!(figure("shapes") >= 1.0, "{said}");
    assert!(0.0 <= figure("mean_regret") && figure("mean_regret") <= figure("worst_regret"));
    assert!(figure("mean_regret") < 0.3, "{said}");
    let words = dualgrain(&["select", "--regret", text(data), "--by", "energy", "--seed", "1"]);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(
        words.contains("by predicted energy") && words.contains("learned") && words.contains("by formula"),
        "{words}"
    );
    let table = scratch("table").join("h200.txt");
    let said = json(&["select", "--model", text(model), "--table", text(&table)]);
    let written = fs::read_to_string(&table).unwrap();
    assert_eq!(said["lines"], written.lines().count());
    assert!(written.starts_with("dualgrain-selection 1\ncard 132 NVIDIA H200\n"));
}

#[test]
fn choices_known_from_the_card_stand_before_predictions() {
    let (_, model, _) = fitted();
    let folder = scratch("known");
    let (table, known) = (folder.join("table.txt"), folder.join("gemm.csv"));
    let write = |m: usize| {
        let rows = format!(
            "# words\nm,n,k,group_size,chosen,config\n\
             {m},4096,4096,128,true,m256n128k128_w2x1_c2_k1\n{m},4096,8192,128,false,m64n256k128_w2x2_c2_k1\n"
        );
        fs::write(&known, rows).unwrap();
    };
    let arguments = [
        "select",
        "--model",
        text(model),
        "--table",
        text(&table),
        "--known",
        text(&known),
    ];
    // No prediction puts 256 tokens' tile on one.
    write(1);
    json(&arguments);
    let written = fs::read_to_string(&table).unwrap();
    let of = |word: &str| -> Vec<&str> {
        let line = written.lines().find(|line| line.starts_with(word));
        line.unwrap().split(' ').collect()
    };
    let configs: Vec<&str> = written
        .lines()
        .filter_map(|line| line.strip_prefix("config "))
        .collect();
    let place = of("k ").iter().position(|&k| k == "4096").unwrap();
    let number: usize = of("cell 128 1 4096 ")[place + 3].parse().unwrap();
    assert_eq!(configs[number], "m256n128k128_w2x1_c2_k1");
    write(9);
    let between = failure(&arguments);
    assert!(
        between.contains("M of a known choice is 9") && between.contains("10"),
        "{between}"
    );
    fs::write(&known, "m,n,k\n1,2,3\n").unwrap();
    let columns = failure(&arguments);
    assert!(
        columns.contains("gemm.csv") && columns.contains("no column group_size"),
        "{columns}"
    );
}

#[test]
fn rows_and_models_that_are_damaged_or_of_another_version_are_refused_in_words() {
    let (data, model, _) = fitted();
    let folder = scratch("damaged");
    let out = folder.join("m.dgm");
    fs::copy(data.join("manifest.json"), folder.join("manifest.json")).unwrap();
    let rows = fs::read_to_string(data.join("rows.csv")).unwrap();
    fs::write(folder.join("rows.csv"), rows.replacen(",NT,", ",NX,", 1)).unwrap();
    let corrupt = failure(&["fit", text(&folder), "--out", text(&out)]);
    assert!(
        corrupt.contains("rows.csv") && corrupt.contains("line "),
        "{corrupt}"
    );
    assert!(!out.exists());
    let few: String = rows.split_inclusive('\n').take(20).collect();
    fs::write(folder.join("rows.csv"), few).unwrap();
    let little = failure(&["fit", text(&folder), "--out", text(&out)]);
    assert!(little.contains("expected at least 50"), "{little}");
    let mut old = fs::read(model).unwrap();
    old[8] = 1;
    fs::write(&out, &old).unwrap();
    let product = ["--m", "1", "--n", "64", "--k", "64", "--model", text(&out)];
    let version = failure(&[&["predict"][..], &product].concat());
    assert!(
        version.contains("version 1") && version.contains("fit again"),
        "{version}"
    );
    let nowhere = failure(&["fit", text(&folder.join("absent"))]);
    assert!(nowhere.contains("absent: no such folder"), "{nowhere}");
    let unwritable = failure(&["fit", text(data), "--out", text(&folder.join("absent/m.dgm"))]);
    assert!(
        unwritable.starts_with("error: --out: ") && unwritable.matches("m.dgm").count() == 1,
        "told after learning, or twice: {unwritable}"
    );
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/data/xeon-amx");
    let packed = fs::read(committed.join("rows.csv.gz")).unwrap();
    fs::remove_file(folder.join("rows.csv")).unwrap();
    // Rows are judged by the machine that their manifest names.
    fs::copy(committed.join("manifest.json"), folder.join("manifest.json")).unwrap();
    fs::write(folder.join("rows.csv.gz"), &packed[..20_000]).unwrap();
    let cut = failure(&["fit", text(&folder)]);
    assert!(
        cut.contains("rows.csv.gz: ") && cut.contains("copy it again"),
        "{cut}"
    );
    fs::write(&out, &fs::read(model).unwrap()[..5000]).unwrap();
    let short = failure(&[&["select"][..], &product].concat());
    assert!(short.contains("m.dgm") && short.contains("check sum"), "{short}");
    let none = failure(&[
        "predict", "--m", "1", "--n", "64", "--k", "64", "--device", "h2000",
    ]);
    assert!(
        none.contains("h2000") && none.contains("did you mean h200?"),
        "{none}"
    );
}

#[test]
fn products_that_no_machine_runs_get_an_error_and_never_a_number() {
    let model = text(&fitted().1);
    for wrong in [
        ["0", "64", "64"],
        ["1", "0", "64"],
        ["1", "64", "4294967296"],
        ["1", "64", "131072"],
        ["-1", "64", "64"],
    ] {
        let arguments = [
            "predict", "--m", wrong[0], "--n", wrong[1], "--k", wrong[2], "--model", model,
        ];
        assert_eq!(dualgrain(&arguments).status.code(), Some(2), "{wrong:?}");
    }
    // 2^24 by 2^17 weights of 16 bits are 4 TB.
    let (n, k) = ("16777216", "131071");
    let large = [
        "--m", "16", "--n", n, "--k", k, "--kernel", "bf16", "--model", model,
    ];
    let beyond = failure(&[&["predict"][..], &large].concat());
    assert!(beyond.contains("memory"), "{beyond}");
    let beyond = failure(&[&["select"][..], &large].concat());
    assert!(beyond.contains("memory"), "{beyond}");
    let product = ["predict", "--m", "1", "--n", "64", "--k", "64", "--model", model];
    let kernel = failure(&[&product[..], &["--kernel", "w3a8"]].concat());
    assert!(
        kernel.contains("w3a8") && kernel.contains("measured were"),
        "{kernel}"
    );
    let both = ["--kernel", "gemm_w4a8_sm90", "--config", "m1n1"];
    let config = failure(&[&product[..], &both].concat());
    assert!(
        config.contains("m1n1") && config.contains("did you mean"),
        "{config}"
    );
}

#[test]
fn models_that_come_with_the_program_are_the_default() {
    let said = json(&["predict", "--m", "16", "--n", "4096", "--k", "4096"]);
    assert_eq!(said["machine"], "NVIDIA H200");
    assert!(said["predictions"][0]["time_s"]["value"].as_f64().unwrap() < 1e-4);
    let folder = scratch("shipped");
    let config = folder.join("config.json");
    let llama = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 8192}"#;
    fs::write(&config, llama).unwrap();
    // The library for integers takes multiples of 16 only.
    let odd = folder.join("odd.json");
    fs::write(&odd, llama.replace("128256", "32001")).unwrap();
    let head = failure(&["cost", text(&odd), "--lm-head", "int8"]);
    assert!(
        head.contains("head (1x32001x4096 in w8a8; another --lm-head may do)")
            && head.contains("multiples of 16"),
        "{head}"
    );
    assert!(json(&["cost", text(&odd), "--lm-head", "w4a8"])["batches"].is_array());
    let cost = json(&["cost", text(&config), "--device", "h200", "--batch", "1,32"]);
    let batches = cost["batches"].as_array().unwrap();
    let speed = |at: usize| batches[at]["decode_tokens_per_s"]["value"].as_f64().unwrap();
    assert!(speed(1) > 4.0 * speed(0), "{cost}");
    // 8 G weights of half a byte, read once a token at 4.4 TB/s, allow 1,000 tokens a second.
    assert!((50.0..1_100.0).contains(&speed(0)), "{cost}");
}
