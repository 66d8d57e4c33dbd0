//! The command line as a whole: the verbs, what is said of each, an example in its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cli::arguments::bench::Bench;
use crate::cli::arguments::cost::Cost;
use crate::cli::arguments::eval::{Eval, Inspect};
use crate::cli::arguments::fit::{Fit, Report};
use crate::cli::arguments::generate::{Chat, Generate};
use crate::cli::arguments::predict::{Predict, Select};
use crate::cli::arguments::profile::Profile;
use crate::cli::arguments::quantize::{Export, Pull, Quantize, Quickstart};
use crate::cli::arguments::serve::Serve;
use crate::cli::arguments::values::count;

/// Quantizes, judges and runs language models with 4-bit weights and 8-bit activations.
#[derive(Debug, Parser)]
#[command(
    name = "dualgrain",
    version,
    propagate_version = true,
    after_help = "Example:\n  dualgrain quickstart\n\nExit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted."
)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Common {
    /// Print one JSON object on stdout instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// CPU threads; 0 takes all cores.
    #[arg(long, global = true, default_value_t = 0, value_name = "COUNT", value_parser = count(0, 1024))]
    pub threads: usize,
    /// Say more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Quantize, judge and run the bundled model: the whole story in about a minute.
    #[command(after_help = "Example:\n  dualgrain quickstart --out quickstart")]
    Quickstart(Quickstart),
    /// Download a model from the Hugging Face hub.
    #[command(
        after_help = "Example:\n  dualgrain pull Qwen/Qwen2.5-0.5B-Instruct\n  HF_TOKEN=hf_... dualgrain pull meta-llama/Llama-3.2-1B --json\n\nEvery other command then takes the name in the place of a folder. Files lie in the hub's own cache, which its other programs use\ntoo: HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME say where. HF_ENDPOINT names another hub; HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE are\nfollowed. What was cut goes on with the same command."
    )]
    Pull(Pull),
    /// Turn a Hugging Face model into a W4A8 folder.
    #[command(
        after_help = "Example:\n  dualgrain quantize Llama-3.2-1B --out Llama-3.2-1B-W4A8 --calib c4.txt\n  dualgrain quantize Llama-3.2-1B --out out --plan\n  dualgrain quantize Qwen/Qwen2.5-0.5B-Instruct --out out    # from the hub"
    )]
    Quantize(Quantize),
    /// Write a quantized folder in the format of another program.
    #[command(
        after_help = "Example:\n  dualgrain export Llama-3.2-1B-W4A8 --format compressed-tensors --out Llama-3.2-1B-ct\n  dualgrain export Llama-3.2-1B-W4A8 --format gguf --out Llama-3.2-1B-gguf    # writes Llama-3.2-1B-gguf/model.gguf\n\nWhat a format has no place for is refused by name, before anything is written: docs/export.md."
    )]
    Export(Export),
    /// Measure quality: perplexity, divergence from the original, tasks.
    #[command(
        after_help = "Example:\n  dualgrain eval out --reference Llama-3.2-1B --text wikitext2_test.txt\n  dualgrain eval out --tasks piqa.jsonl,winogrande.jsonl"
    )]
    Eval(Eval),
    /// Continue a prompt.
    #[command(
        after_help = "Example:\n  dualgrain generate out \"The sea was\" --temperature 0.8 --top-p 0.95 --seed 7"
    )]
    Generate(Generate),
    /// Talk to a model that has a chat template.
    #[command(after_help = "Example:\n  dualgrain chat out --temperature 0.7")]
    Chat(Chat),
    /// Answer clients of OpenAI and Anthropic over HTTP.
    #[command(
        after_help = "Example:\n  dualgrain serve out --port 8080\n  dualgrain serve out --api-key-file keys.txt --max-sequences 16 --context 4096\n\nCtrl-C lets running answers end (--drain), a second one cuts them."
    )]
    Serve(Serve),
    /// Show what a model folder holds.
    #[command(after_help = "Example:\n  dualgrain inspect out")]
    Inspect(Inspect),
    /// Time prefill and decoding, single products on a GPU, or a server.
    #[command(
        after_help = "Example:\n  dualgrain bench out --prompt-tokens 128,512 --generate-tokens 64 --json\n  dualgrain bench gemm --m 1,64 --against cublas-bf16\n  dualgrain bench serve http://127.0.0.1:8080 --concurrency 16\n\nDUALGRAIN_BACKEND=NAME in the environment (portable, avx2, avxvnni, avx512vnni, amx) times other kernels than the fastest."
    )]
    Bench(Bench),
    /// Choose the configuration of a product by predicted time, energy or both; judge such choices.
    #[command(
        after_help = "Example:\n  dualgrain select --m 16 --n 4096 --k 4096 --by energy\n  dualgrain select --regret bench/data/h200 --json"
    )]
    Select(Select),
    /// Learn from measurements what products cost.
    #[command(
        after_help = "Example:\n  dualgrain fit bench/data/h200 --out h200.dgm\n  dualgrain fit --paper-log gpperf.csv --json"
    )]
    Fit(Fit),
    /// Measure what matrix products cost in time, power and energy, correctness first.
    #[command(
        after_help = "Example:\n  dualgrain profile --device cuda:0 --out h200 --budget 20m --resume\n  dualgrain profile --device cpu --kernels gemm_w4a8 --out cpu\n  dualgrain profile merge shard0 shard1 --out h200"
    )]
    Profile(Profile),
    /// Say what a product costs in time, power and energy, with an error bar; no GPU is needed.
    #[command(
        after_help = "Example:\n  dualgrain predict --m 16 --n 4096 --k 4096\n  dualgrain predict --m 4096 --n 57344 --k 8192 --kernel bf16 --group-size 0 --json"
    )]
    Predict(Predict),
    /// Say what a whole language model will cost on a machine: time to first token, tokens a second, joules a token, memory.
    #[command(
        after_help = "Example:\n  dualgrain cost Llama-3.2-1B --device h200 --batch 1,8,32 --prompt 512 --generate 64 --html cost.html\n  dualgrain cost config.json --device cpu --scheme bf16 --json"
    )]
    Cost(Cost),
    /// Draw what was measured and how well it is predicted, on one page that opens offline.
    #[command(
        after_help = "Example:\n  dualgrain report bench/data/h200 --out report.html\n  dualgrain report h200 --out model.html"
    )]
    Report(Report),
    /// Show what this machine offers and which kernels run on it.
    #[command(
        after_help = "Example:\n  dualgrain doctor\n\nDUALGRAIN_BACKEND=NAME in the environment makes every verb use one of the kernels listed."
    )]
    Doctor,
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  dualgrain completions bash > /etc/bash_completion.d/dualgrain")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual of all commands as Markdown, or write their man pages.
    #[command(
        after_help = "Example:\n  dualgrain manual\n  dualgrain manual --man /usr/local/share/man/man1"
    )]
    Manual {
        /// Write a man page of each command into this folder instead.
        #[arg(long, value_name = "DIR")]
        man: Option<PathBuf>,
    },
}

impl Verb {
    /// The folders of models that are read, each of which may be a name on the hub.
    pub fn models(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Quantize(options) => vec![&mut options.model],
            Self::Export(options) => vec![&mut options.model],
            Self::Eval(options) => options.reference.iter_mut().chain([&mut options.model]).collect(),
            Self::Generate(options) => vec![&mut options.model],
            Self::Chat(options) => vec![&mut options.model],
            Self::Serve(options) => vec![&mut options.model],
            Self::Inspect(options) => vec![&mut options.model],
            Self::Cost(options) => vec![&mut options.model],
            Self::Quickstart(options) => options.model.iter_mut().collect(),
            Self::Bench(options) => options.model.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}
