//! Log-likelihoods of task options against transformers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dualgrain_cpu::CpuDevice;
use dualgrain_engine::evaluate::{EvaluateError, ItemScore, Task, TaskForm, TaskReport, score_task};
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_engine::{LoadOptions, Model};
use dualgrain_testing::skipped;
use serde::Deserialize;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/llama-tiny");
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tasks");
const SHARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/eval");
const TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Fixture {
    files: BTreeMap<String, Vec<ExpectedItem>>,
}

#[derive(Deserialize)]
struct ExpectedItem {
    options: Vec<ExpectedOption>,
    line: Option<usize>,
    gold: Option<usize>,
    best: Option<usize>,
    best_per_byte: Option<usize>,
}

#[derive(Deserialize)]
struct ExpectedOption {
    loglikelihood: f64,
    tokens: usize,
    greedy: bool,
    bytes: usize,
}

fn fixture(text: &str) -> Fixture {
    serde_json::from_str(text).unwrap()
}

fn model() -> &'static Arc<Model<CpuDevice>> {
    static MODEL_CELL: OnceLock<Arc<Model<CpuDevice>>> = OnceLock::new();
    MODEL_CELL.get_or_init(|| {
        let device = Arc::new(CpuDevice::new(0).unwrap());
        Arc::new(Model::load(device, Path::new(MODEL), &LoadOptions::default()).unwrap())
    })
}

fn score(task: &Task, context: usize) -> Result<(TaskReport, Vec<ItemScore>), EvaluateError> {
    let tokenizer = Tokenizer::load(Path::new(MODEL), model().config().vocab_size).unwrap();
    score_task(model(), &tokenizer, task, context, &mut |_, _| {})
}

fn assert_as_expected(file: &str, score: &ItemScore, expected: &ExpectedItem) {
    let place = format!("{file}:{}", score.line);
    assert_eq!(score.options.len(), expected.options.len(), "{place}");
    for (got, expected) in score.options.iter().zip(&expected.options) {
        let (a, b) = (got.loglikelihood, expected.loglikelihood);
        assert!((a - b).abs() < TOLERANCE, "{place}: expected {b}, got {a}");
        assert_eq!(
            (got.tokens, got.greedy, got.bytes, got.cut_tokens),
            (expected.tokens, expected.greedy, expected.bytes, 0),
            "{place}"
        );
    }
    if let (Some(best), Some(best_per_byte)) = (expected.best, expected.best_per_byte) {
        assert_eq!(
            (score.best(), score.best_per_byte()),
            (best, best_per_byte),
            "{place}"
        );
    }
}

#[test]
fn twenty_items_of_every_form_have_the_log_likelihoods_of_transformers() {
    let fixture = fixture(include_str!("fixtures/tasks/expected.json"));
    let mut num_items = 0;
    for (file, expected) in &fixture.files {
        let task = Task::load(&Path::new(FIXTURES).join(file), None).unwrap();
        let (report, scores) = score(&task, 1024).unwrap();
        assert_eq!(scores.len(), expected.len());
        for (score, expected) in scores.iter().zip(expected) {
            assert_eq!(score.gold, expected.gold);
            assert_as_expected(file, score, expected);
        }
        assert_report(&report, expected);
        num_items += scores.len();
    }
    assert_eq!(num_items, 20);
}

/// The report recomputed from the expected items by its definition.
fn assert_report(report: &TaskReport, expected: &[ExpectedItem]) {
    let n = expected.len() as f64;
    let share = |is_right: &dyn Fn(&ExpectedItem) -> bool| {
        expected.iter().filter(|item| is_right(item)).count() as f64 / n
    };
    let accuracy = match report.form {
        TaskForm::Continuation => share(&|item| item.options[0].greedy),
        _ => share(&|item| item.best == item.gold),
    };
    assert!((report.accuracy - accuracy).abs() < 1e-12);
    assert!((report.accuracy_stderr - (accuracy * (1.0 - accuracy) / (n - 1.0)).sqrt()).abs() < 1e-12);
    let normalized =
        (report.form == TaskForm::Choices).then(|| share(&|item| item.best_per_byte == item.gold));
    assert_eq!(
        report.accuracy_byte_normalized.map(|a| (a * n).round()),
        normalized.map(|a| (a * n).round())
    );
    let mean = expected
        .iter()
        .map(|item| item.options[0].loglikelihood)
        .sum::<f64>()
        / n;
    let perplexity = (report.form == TaskForm::Continuation).then(|| (-mean).exp());
    assert_eq!(report.perplexity.is_some(), perplexity.is_some());
    if let (Some(got), Some(expected)) = (report.perplexity, perplexity) {
        assert!(
            (got / expected - 1.0).abs() < TOLERANCE,
            "expected {expected}, got {got}"
        );
    }
}

#[test]
fn first_items_of_the_public_tasks_have_the_log_likelihoods_of_transformers() {
    if !Path::new(SHARED).is_dir() {
        skipped("shared", "no public task was read");
        return;
    }
    for (file, expected) in &fixture(include_str!("fixtures/tasks/shared_expected.json")).files {
        let task = Task::load(&Path::new(SHARED).join(file), Some(expected.len())).unwrap();
        let (_, scores) = score(&task, 1024).unwrap();
        for (score, expected) in scores.iter().zip(expected) {
            assert_eq!(Some(score.line - 1), expected.line);
            assert_as_expected(file, score, expected);
        }
    }
}

#[test]
fn every_line_of_the_public_tasks_is_an_item() {
    if !Path::new(SHARED).is_dir() {
        skipped("shared", "no public task was read");
        return;
    }
    for file in fixture(include_str!("fixtures/tasks/shared_expected.json"))
        .files
        .keys()
    {
        let path = Path::new(SHARED).join(file);
        let num_lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!(
            Task::load(&path, None).unwrap().items().len(),
            num_lines,
            "{file}"
        );
    }
}

fn task(text: &str) -> Task {
    Task::parse(&PathBuf::from("made_up.jsonl"), text, None).unwrap()
}

#[test]
fn long_contexts_are_cut_on_the_left_and_scored_as_their_end_alone() {
    // 700 tokens and more: longer than a step too.
    let long = "one two three ".repeat(400);
    let line = |context: &str| {
        format!(
            "{}\n",
            serde_json::json!({"context": context.trim_end(), "continuation": "four"})
        )
    };
    let (report, scores) = score(&task(&line(&long)), 64).unwrap();
    let option = scores[0].options[0];
    assert!(option.cut_tokens > 500 && report.cut_items == 1, "{option:?}");
    let (_, whole) = score(&task(&line(&long)), 2048).unwrap();
    assert_eq!(
        (whole[0].options[0].cut_tokens, whole[0].options[0].tokens),
        (0, option.tokens)
    );
    // The same 64 input tokens by hand: the end of the long context without the token a text begins with.
    let tokenizer = Tokenizer::load(Path::new(MODEL), model().config().vocab_size).unwrap();
    let ids = tokenizer.encode(&format!("{}four", long), true).unwrap();
    let limits = dualgrain_engine::SessionLimits {
        logit_rows: 64,
        ..dualgrain_engine::SessionLimits::new(1, 64, 64)
    };
    let mut session = dualgrain_engine::Session::new(model().clone(), limits).unwrap();
    let inputs = &ids[ids.len() - 65..ids.len() - 1];
    session.run(&[(0, inputs)]).unwrap();
    let rows: Vec<u32> = (0..64).collect();
    let vocab_size = model().config().vocab_size;
    let mut values = vec![0.0; 64 * vocab_size];
    let logits = session.logits(&rows).unwrap();
    use dualgrain_device::Device;
    model().device().log_softmax(logits).unwrap();
    model().device().download(logits, 0..64, &mut values).unwrap();
    let expected: f64 = (ids.len() - option.tokens..ids.len())
        .map(|at| f64::from(values[(63 - (ids.len() - 1 - at)) * vocab_size + ids[at] as usize]))
        .sum();
    assert_eq!(option.loglikelihood, expected);
}

#[test]
fn scores_do_not_depend_on_the_company_of_other_items() {
    let fixture = Task::load(&Path::new(FIXTURES).join("choices.jsonl"), None).unwrap();
    let (_, together) = score(&fixture, 1024).unwrap();
    let text = std::fs::read_to_string(Path::new(FIXTURES).join("choices.jsonl")).unwrap();
    for (line, together) in text.lines().zip(&together) {
        let (_, alone) = score(&task(line), 1024).unwrap();
        assert_eq!(alone[0].options, together.options);
    }
}

#[test]
fn an_empty_context_is_scored_after_the_first_token_of_a_text() {
    let (_, scores) = score(&task(r#"{"context": "", "continuation": "The"}"#), 64).unwrap();
    assert_eq!(scores[0].options[0].tokens, 1);
    assert!(scores[0].options[0].loglikelihood < 0.0);
}

#[test]
fn a_continuation_longer_than_the_context_names_its_line() {
    let line = serde_json::json!({"context": "a", "continuation": "one two three ".repeat(30)}).to_string();
    let error = score(&task(&format!("\n{line}")), 16).unwrap_err().to_string();
    assert!(
        error.starts_with("made_up.jsonl:2: expected a context and a continuation of 1 to 16 tokens"),
        "{error}"
    );
}
