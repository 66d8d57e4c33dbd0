//! The finished folder: quantized tensors from the journal, everything else as it was, in one piece.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use dualgrain_device::Statistics;
use dualgrain_engine::{BlockSpec, EngineError, LEADING, ModelConfig, Weights};
use dualgrain_format::checkpoint::{
    CheckpointError, Dtype, FolderWriter, INDEX, LinearLayout, MODEL_FILES, TEMPLATES, TensorBytes,
    TensorEntry, TensorSpec, TensorTable, f32_bytes, templates_in,
};
use dualgrain_format::text::without_mark;
use dualgrain_format::{
    CacheScheme, KEY_SCALES_TENSOR, LinearScheme, LinearWeights, QuantizationConfig, VALUE_SCALES_TENSOR,
};

use crate::error::QuantError;
use crate::options::{QuantJob, QuantOptions};
use crate::report::html::html;
use crate::report::json::QuantReport;
use crate::run::context::RunContext;
use crate::run::journal::{FinishedBlock, Journal};

/// The report's file names inside the output.
pub const REPORT_JSON: &str = "quantization_report.json";
/// The report as a page.
pub const REPORT_HTML: &str = "quantization_report.html";

/// Whether a file of that name in an output folder is one that [`assemble`] writes.
pub fn is_written(name: &str) -> bool {
    let fixed = ["config.json", REPORT_JSON, REPORT_HTML, INDEX];
    fixed.contains(&name) || MODEL_FILES.contains(&name) || name.ends_with(".safetensors")
}

/// Whether a folder in an output folder is one that [`assemble`] writes.
pub fn is_written_folder(dir: &Path) -> bool {
    let holds = fs::read_dir(dir).map_or(0, Iterator::count);
    dir.file_name().is_some_and(|name| name == TEMPLATES) && templates_in(dir).len() == holds
}

/// Writes the output folder from the journal of all blocks.
///
/// # Errors
/// An I/O error; the target is then what it was before.
pub fn assemble<D: Statistics>(
    job: &QuantJob,
    run: &RunContext<'_, D>,
    journal: &Journal,
    (finished, head): (&[FinishedBlock], Option<&LinearWeights>),
    report: &QuantReport,
) -> Result<(), QuantError> {
    let (config, weights) = (run.config, run.original.weights());
    let blocks = (0..config.num_layers).map(|layer| BlockFile::open(&journal.tensors_path(layer)));
    let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
    let linears = block_linears(config, &job.options);
    let outer = run.original.outer_tensors()?;
    let copied = copied_tensors(config, weights, (&blocks, &outer), (&linears, head.is_some()));
    let mut writer = FolderWriter::create(&job.out_dir, job.replace)?;
    let mut announced = specs(config, weights, &blocks, &copied, head, job)?;
    announced.extend(outer.iter().map(|(spec, _)| spec.clone()));
    writer.start_tensors(announced)?;
    for name in &copied {
        let (_, _, bytes) = weights.raw(name).map_err(EngineError::from)?;
        writer.write_tensor(name, &bytes)?;
        weights.release_pages();
    }
    for (spec, bytes) in outer {
        writer.write_tensor(&spec.name, &bytes)?;
    }
    if let Some(head) = head {
        writer.write_linear(config.family.head_name(), head)?;
    }
    for block in &blocks {
        block.copy_to(&mut writer)?;
    }
    write_cache_scales(&mut writer, finished, job)?;
    write_files(&mut writer, job, config, report)?;
    writer.commit()?;
    Ok(())
}

/// The tensors of a finished block, read when they are needed.
struct BlockFile {
    path: PathBuf,
    table: TensorTable,
}

impl BlockFile {
    fn open(path: &Path) -> Result<Self, QuantError> {
        let bytes = fs::read(path).map_err(CheckpointError::io("read", path))?;
        Ok(Self {
            table: TensorTable::parse(path, &bytes)?,
            path: path.to_path_buf(),
        })
    }

    fn copy_to(&self, writer: &mut FolderWriter) -> Result<(), QuantError> {
        let bytes = fs::read(&self.path).map_err(CheckpointError::io("read", &self.path))?;
        for (name, TensorEntry { bytes: range, .. }) in &self.table.tensors {
            writer.write_tensor(name, bytes.get(range.clone()).unwrap_or_default())?;
        }
        Ok(())
    }
}

fn specs(
    config: &ModelConfig,
    weights: &Weights,
    blocks: &[BlockFile],
    copied: &[String],
    head: Option<&LinearWeights>,
    job: &QuantJob,
) -> Result<Vec<TensorSpec>, QuantError> {
    let spec = |name: &str, dtype, shape: &[usize]| TensorSpec {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    let mut specs = Vec::new();
    for name in copied {
        let (dtype, shape, _) = weights.stored(name).map_err(EngineError::from)?;
        specs.push(spec(name, dtype, shape));
    }
    if let Some(head) = head {
        let layout = LinearLayout::of(head);
        specs.extend(layout.specs(config.family.head_name()));
    }
    let tensors = blocks.iter().flat_map(|block| &block.table.tensors);
    specs.extend(tensors.map(|(name, entry)| spec(name, entry.dtype, &entry.shape)));
    if job.options.kv_cache == CacheScheme::Int8Static {
        let shape = [config.num_layers];
        specs.push(spec(KEY_SCALES_TENSOR, Dtype::F32, &shape));
        specs.push(spec(VALUE_SCALES_TENSOR, Dtype::F32, &shape));
    }
    Ok(specs)
}

/// Names, as stored, of the original tensors that stay.
fn copied_tensors(
    config: &ModelConfig,
    weights: &Weights,
    (blocks, outer): (&[BlockFile], &[TensorBytes]),
    (linears, new_head): (&BTreeMap<String, LinearScheme>, bool),
) -> Vec<String> {
    let mut replaced: BTreeSet<String> = linears
        .keys()
        .flat_map(|name| [format!("{name}.weight"), format!("{name}.bias")])
        .collect();
    replaced.extend(
        blocks
            .iter()
            .flat_map(|block| block.table.tensors.keys().cloned()),
    );
    replaced.extend(outer.iter().map(|(spec, _)| spec.name.clone()));
    // A tied head that is stored too is the embedding once more.
    if new_head || config.tie_embeddings {
        replaced.insert(format!("{}.weight", config.family.head_name()));
    }
    let is_replaced = |stored: &str| {
        let full = LEADING.iter().map(|leading| format!("{leading}{stored}"));
        std::iter::once(stored.to_owned())
            .chain(full)
            .any(|name| replaced.contains(&name))
    };
    // What the model did not ask for stays behind.
    let used = weights.used_names().into_iter();
    used.filter(|name| !is_replaced(name)).collect()
}

/// The linears of all blocks that do not stay as they were, by their checkpoint names.
fn block_linears(config: &ModelConfig, options: &QuantOptions) -> BTreeMap<String, LinearScheme> {
    let mut linears = BTreeMap::new();
    for layer in 0..config.num_layers {
        for (id, linear) in BlockSpec::new(config, layer).linears {
            let scheme = options.scheme(id);
            if scheme != LinearScheme::Float {
                linears.extend(linear.members.into_iter().map(|member| (member.name, scheme)));
            }
        }
    }
    linears
}

fn write_cache_scales(
    writer: &mut FolderWriter,
    finished: &[FinishedBlock],
    job: &QuantJob,
) -> Result<(), QuantError> {
    if job.options.kv_cache != CacheScheme::Int8Static {
        return Ok(());
    }
    let scales = |part: usize| -> Vec<f32> {
        finished
            .iter()
            .map(|block| block.cache_scales.map_or(0.0, |scales| scales[part]))
            .collect()
    };
    writer.write_tensor(KEY_SCALES_TENSOR, &f32_bytes(&scales(0)))?;
    writer.write_tensor(VALUE_SCALES_TENSOR, &f32_bytes(&scales(1)))?;
    Ok(())
}

fn write_files(
    writer: &mut FolderWriter,
    job: &QuantJob,
    config: &ModelConfig,
    report: &QuantReport,
) -> Result<(), QuantError> {
    writer.copy_model_files(&job.model_dir)?;
    let path = job.model_dir.join("config.json");
    let original = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let json = |source| QuantError::Json {
        path: path.clone(),
        source,
    };
    let mut value: serde_json::Value = serde_json::from_slice(without_mark(&original)).map_err(json)?;
    if options_untie(&job.options) && config.tie_embeddings {
        value["tie_word_embeddings"] = false.into();
    }
    if let Some(fields) = value.as_object_mut() {
        // What older folders of compressed-tensors call theirs.
        fields.shift_remove("compression_config");
    }
    value["quantization_config"] = serde_json::to_value(quantization_config(job, config)).map_err(json)?;
    writer.write_file("config.json", format!("{value:#}\n").as_bytes())?;
    let text = serde_json::to_string_pretty(report).map_err(json)?;
    writer.write_file(REPORT_JSON, text.as_bytes())?;
    writer.write_file(REPORT_HTML, html(report).as_bytes())?;
    Ok(())
}

/// Whether a head that shared its weights with the embedding has floats of its own: norm and rotation are in them.
fn options_untie(options: &QuantOptions) -> bool {
    options.rotate && options.lm_head == LinearScheme::Float
}

fn quantization_config(job: &QuantJob, config: &ModelConfig) -> QuantizationConfig {
    let options = &job.options;
    let mut described = QuantizationConfig::new(options.group_size, options.activations, options.kv_cache);
    described.smoothing = options.smoothing.to_string();
    described.rotation = options.rotation();
    described.hadamard_down = config.hadamard_down;
    described.search = options.search.to_string();
    described.linears = block_linears(config, options);
    if options.lm_head != LinearScheme::Float {
        described
            .linears
            .insert(config.family.head_name().into(), options.lm_head);
    }
    described
}
