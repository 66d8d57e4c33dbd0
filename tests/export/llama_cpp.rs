//! llama.cpp itself: the same tokens of the same texts, and the same perplexity.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dualgrain::engine::tokenizer::Tokenizer;
use dualgrain_testing::skipped;

use crate::models::{in_floats, log_softmax, logits, quantized};
use crate::program::{self, text};

/// Names a folder with the programs of llama.cpp.
const FOLDER: &str = "DUALGRAIN_LLAMA_CPP";
/// Tokens of a window.
const CONTEXT: usize = 512;
/// Windows that are scored, and texts that are cut into tokens.
const WINDOWS: usize = 64;
const TEXTS: usize = 1000;
/// Vocabulary of llama-tiny.
const VOCABULARY: usize = 8192;

fn llama_cpp(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty());
    if folder.is_none() {
        skipped("llama-cpp", format_args!("{FOLDER} names no folder with {name}"));
    }
    Some(Path::new(&folder?).join(name))
}

/// WikiText-2, or the bundled prose where it is not there.
fn long_text() -> String {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/eval/wikitext2_test.txt");
    fs::read_to_string(shared).unwrap_or_else(|_| dualgrain::SAMPLE_EVALUATION.to_owned())
}

fn gguf(name: &str) -> PathBuf {
    let out = program::scratch("export", name).join("out");
    crate::run(quantized(), "gguf", &out);
    out.join("model.gguf")
}

/// As llama-perplexity scores a window: its first token is the one that begins texts, the second half counts.
fn our_perplexity(tokens: &[u32]) -> f64 {
    let model = in_floats(quantized());
    let (mut sum, mut count) = (0.0, 0);
    for window in tokens.chunks_exact(CONTEXT).take(WINDOWS) {
        let mut window = window.to_vec();
        window[0] = 0;
        let rows = logits(&model, &window);
        for place in CONTEXT / 2..CONTEXT - 1 {
            let row = &rows[place * VOCABULARY..(place + 1) * VOCABULARY];
            sum -= log_softmax(row)[window[place + 1] as usize];
            count += 1;
        }
    }
    (sum / f64::from(count)).exp()
}

#[test]
#[ignore = "needs llama.cpp, and minutes: name its folder in DUALGRAIN_LLAMA_CPP"]
fn llama_cpp_has_our_perplexity() {
    let Some(program) = llama_cpp("llama-perplexity") else {
        return;
    };
    let (model, source) = (gguf("llama-perplexity"), long_text());
    let file = model.with_file_name("text.txt");
    fs::write(&file, &source).unwrap();
    let options = ["-c", "512", "-t", "2", "--chunks", "64"];
    let output = Command::new(program)
        .args(["-m", text(&model), "-f", text(&file)])
        .args(options)
        .output()
        .unwrap();
    let told = program::stdout(&output) + &program::stderr(&output);
    let (_, found) = told.split_once("PPL = ").unwrap_or_else(|| panic!("{told}"));
    let theirs: f64 = found.split_whitespace().next().unwrap().parse().unwrap();
    let tokenizer = Tokenizer::load(quantized(), VOCABULARY).unwrap();
    let ours = our_perplexity(&tokenizer.encode(&source, true).unwrap());
    println!("perplexity {ours} here, {theirs} there");
    assert!((theirs / ours - 1.0).abs() < 0.005, "{ours} {theirs}");
}

/// Lines of prose, and what tokenizers stumble over.
fn texts() -> Vec<String> {
    let hard = [
        " ",
        "  a",
        "a  ",
        "\n\n\n",
        "\t\tx = 1;\r\n",
        "don't DON'T",
        "3.14159 1,000,000",
        "naïve façade",
        "日本語のテキスト",
        "🙂🙃 family 👨‍👩‍👧",
        "<|endoftext|>x",
        "a<|user|>b<|assistant|> c",
        "e\u{301}",
        "\u{feff}x",
        "\u{a0}\u{2003}x",
        "/* c */ if (a<b) { return; }",
        "Ａ１",
        "مرحبا",
        "x\u{200b}y",
    ];
    let long = long_text();
    let lines = long
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_owned);
    let mut texts: Vec<String> = hard.map(str::to_owned).into();
    texts.extend(lines);
    texts.truncate(TEXTS);
    texts
}

#[test]
#[ignore = "needs llama.cpp, and minutes: name its folder in DUALGRAIN_LLAMA_CPP"]
fn llama_cpp_cuts_a_thousand_texts_into_our_tokens() {
    let Some(program) = llama_cpp("llama-tokenize") else {
        return;
    };
    let model = gguf("llama-tokenize");
    let tokenizer = Tokenizer::load(quantized(), VOCABULARY).unwrap();
    let texts = texts();
    let file = model.with_file_name("text.txt");
    let mut different = Vec::new();
    for source in &texts {
        fs::write(&file, source).unwrap();
        let arguments = ["-m", text(&model), "-f", text(&file), "--ids", "--log-disable"];
        let output = Command::new(&program).args(arguments).output().unwrap();
        let theirs: Vec<u32> = serde_json::from_slice(&output.stdout).unwrap();
        if theirs != tokenizer.encode(source, true).unwrap() {
            different.push(source);
        }
    }
    println!("{} of {} texts", texts.len() - different.len(), texts.len());
    assert!(different.is_empty() && texts.len() == TEXTS, "{different:?}");
}
