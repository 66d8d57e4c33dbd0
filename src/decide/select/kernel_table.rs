//! `select --table FILE`: the table of configurations that the kernels read.

use std::path::Path;

#[cfg(feature = "cuda")]
use anyhow::Context;
use anyhow::Result;
#[cfg(feature = "cuda")]
use dualgrain_cuda::{Output, SelectionTable};
use dualgrain_perf::Model;
#[cfg(feature = "cuda")]
use dualgrain_perf::choose::gpu::{self, KnownChoice};

use crate::cli::arguments::Select;
#[cfg(feature = "cuda")]
use crate::cli::output_file;
use crate::cli::terminal::Terminal;
#[cfg(feature = "cuda")]
use crate::decide::request::by;

#[cfg(feature = "cuda")]
pub fn write(model: &Model, options: &Select, path: &Path, terminal: &Terminal) -> Result<()> {
    output_file::check(path, output_file::TABLE, options.replacing.replace)?;
    let known = options.known.as_deref().map(known_choices).transpose()?;
    let known = known.unwrap_or_default();
    let text = gpu::table(model, by(options.by), Output::Bf16, &known)?;
    SelectionTable::parse(&text).context("the table that was made")?;
    std::fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
    let lines = text.lines().count();
    let words = format!(
        "{}: {} lines for {}, {} choices known\n",
        path.display(),
        lines,
        model.machine().name,
        known.len()
    );
    terminal.result(&serde_json::json!({ "file": path, "lines": lines }), &words)
}

/// What `bench gemm --csv` chose and timed, groups of 128.
#[cfg(feature = "cuda")]
fn known_choices(path: &Path) -> Result<Vec<KnownChoice>> {
    let rows = crate::cli::columns::read(path, ["m", "n", "k", "group_size", "chosen", "config"])?;
    let chosen = rows
        .into_iter()
        .filter(|[.., group, chosen, _]| group == "128" && chosen == "true");
    let known = chosen.map(|[m, n, k, _, _, config]| {
        let side = |text: &str| {
            text.parse()
                .with_context(|| format!("{}: size {text:?}", path.display()))
        };
        Ok(KnownChoice {
            shape: dualgrain::format::GemmShape {
                m: side(&m)?,
                n: side(&n)?,
                k: side(&k)?,
            },
            config,
        })
    });
    known.collect()
}

#[cfg(not(feature = "cuda"))]
pub fn write(_: &Model, _: &Select, _: &Path, _: &Terminal) -> Result<()> {
    anyhow::bail!("--table: this program was built without the feature `cuda`, whose kernels read the table")
}
