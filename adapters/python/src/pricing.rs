//! What a model or a product will cost.

use std::path::{Path, PathBuf};

use dualgrain::cost::{Asked, config_of_folder, network, shipped, workload};
use dualgrain::{Error, ModelConfig};
use dualgrain_perf::cost::Prices;
use dualgrain_perf::{
    KernelConfig, Layout, MachineKind, Model, Objective, Prediction, Product, group_number,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;

use crate::errors::{ArgumentError, exception, of_price};
use crate::evaluation::json;
use crate::fields::Fields;
use crate::names;
use crate::watch;

/// The fitted model of a machine, or of a file.
fn fitted(machine: &str, file: Option<&Path>) -> PyResult<Model> {
    match file {
        Some(path) => Model::read(path),
        None => shipped(machine),
    }
    .map_err(of_price)
}

/// The configuration in a folder or a file, and what to call the model.
fn read_config(path: &Path) -> PyResult<(ModelConfig, String)> {
    let config = match path.is_dir() {
        true => config_of_folder(path),
        false if path.exists() => ModelConfig::read(path).map_err(Error::from),
        false => Err(Error::NoFolder { dir: path.to_owned() }),
    };
    let whole = path.canonicalize().unwrap_or(path.to_owned());
    let nameless = whole.file_name().is_some_and(|name| name == "config.json");
    let named = whole.parent().filter(|_| nameless).unwrap_or(&whole);
    let name = named
        .file_name()
        .map_or("the model".into(), |name| name.to_string_lossy().into_owned());
    Ok((config.map_err(exception)?, name))
}

/// What a language model will cost on a machine, as JSON.
#[pyfunction]
pub fn cost(py: Python<'_>, arguments: &Bound<'_, PyDict>) -> PyResult<String> {
    let fields = Fields(arguments);
    let (path, machine): (PathBuf, String) = (fields.value("model")?, fields.value("machine")?);
    let file = names::path(&fields, "fitted")?;
    let asked = asked(&fields)?;
    let by = fields.choice("by", names::objective)?;
    let threads = fields.value::<Option<usize>>("threads")?;
    watch::run(py, None, |_| {
        let model = fitted(&machine, file.as_deref())?;
        let (config, name) = read_config(&path)?;
        let workload = workload(asked, &config, model.machine().kind);
        let mut prices = Prices::of_model(&model, workload.group_size, by, threads).map_err(of_price)?;
        let network = network(&config, name);
        let cost = dualgrain_perf::cost::cost(&network, model.machine(), &workload, &mut prices);
        json(&cost.map_err(of_price)?)
    })
}

fn asked(fields: &Fields<'_, '_>) -> PyResult<Asked> {
    let batches: Vec<usize> = fields.value("batch")?;
    if batches.is_empty() {
        return Err(ArgumentError::new_err(
            "batch: expected at least one number of sequences, got none",
        ));
    }
    Ok(Asked {
        batches,
        prompt_tokens: fields.value("prompt_tokens")?,
        generate_tokens: fields.value("generate_tokens")?,
        step_tokens: fields.value("step_tokens")?,
        scheme: fields.choice("scheme", names::scheme)?,
        head_scheme: fields.optional_choice("lm_head", names::priced_output_layer)?,
        kv_cache: fields.optional_choice("kv_cache", names::cache_scheme)?,
    })
}

/// A configuration of a kernel, and what a product is predicted to cost in it.
#[derive(Serialize)]
struct Row<'a> {
    kernel: &'a str,
    config: &'a str,
    output: &'a str,
    #[serde(flatten)]
    prediction: Prediction,
}

impl<'a> Row<'a> {
    fn new((facts, prediction): &(&'a KernelConfig, Prediction)) -> Self {
        Self {
            kernel: &facts.kernel,
            config: &facts.config,
            output: &facts.output,
            prediction: *prediction,
        }
    }
}

/// A product that was asked for.
struct Asking {
    sizes: (usize, usize, usize),
    kernel: String,
    config: Option<String>,
    group_number: usize,
    layout: Layout,
    factors: (f64, f64),
    output: String,
    threads: Option<usize>,
}

impl Asking {
    fn new(fields: &Fields<'_, '_>) -> PyResult<Self> {
        let layout = |text: &str| match text {
            "nn" => Ok(Layout::Nn),
            "nt" => Ok(Layout::Nt),
            "tn" => Ok(Layout::Tn),
            "tt" => Ok(Layout::Tt),
            _ => Err("one of nn, nt, tn, tt".to_owned()),
        };
        Ok(Self {
            sizes: (fields.value("m")?, fields.value("n")?, fields.value("k")?),
            kernel: fields.value("kernel")?,
            config: fields.value("config")?,
            group_number: fields.value("group_size")?,
            layout: fields.choice("layout", layout)?,
            factors: (fields.value("alpha")?, fields.value("beta")?),
            output: fields.value("output")?,
            threads: fields.value("threads")?,
        })
    }

    fn product(&self) -> Product<'_> {
        let (m, n, k) = self.sizes;
        Product {
            group_size: group_number::group_size(self.group_number),
            layout: self.layout,
            alpha: self.factors.0,
            beta: self.factors.1,
            output: &self.output,
            ..Product::new(m, n, k)
        }
    }

    fn predictions(&self, model: &Model) -> PyResult<String> {
        let product = self.product();
        let predictions = match &self.config {
            Some(config) => model.in_config(&self.kernel, config, &product),
            None => model.ranked(&self.kernel, &product, Objective::Time),
        };
        let mut predictions = predictions.map_err(of_price)?;
        if let Some(threads) = self.threads.filter(|_| model.machine().kind == MachineKind::Cpu) {
            predictions.retain(|(facts, _)| facts.threads == threads);
            if predictions.is_empty() {
                return Err(ArgumentError::new_err(format!(
                    "threads: nothing of this was measured with {threads} threads on {}",
                    model.machine().name
                )));
            }
        }
        json(&predictions.iter().map(Row::new).collect::<Vec<_>>())
    }
}

/// What a product costs in every configuration of a kernel, or in one, as JSON.
#[pyfunction]
pub fn predict(py: Python<'_>, arguments: &Bound<'_, PyDict>) -> PyResult<String> {
    let fields = Fields(arguments);
    let asking = Asking::new(&fields)?;
    let machine: String = fields.value("machine")?;
    let file = names::path(&fields, "fitted")?;
    watch::run(py, None, |_| {
        asking.predictions(&fitted(&machine, file.as_deref())?)
    })
}

/// Machines whose fitted models come with the package.
#[pyfunction]
pub fn machines() -> Vec<&'static str> {
    Model::shipped_machines().collect()
}
