//! The folder that is exported: its configuration, its quantized linears, and the tensors that stay as they are.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use dualgrain_engine::{
    BlockSpec, Family, LEADING, LinearSpec, ModelConfig, ModelFolder, RawTensor, Role, Weights,
};
use dualgrain_format::checkpoint::Dtype;
use dualgrain_format::{KEY_SCALES_TENSOR, LinearScheme, LinearWeights, VALUE_SCALES_TENSOR};

use crate::error::ExportError;
use crate::formats::ExportFormat;

/// A judged folder.
pub struct Source {
    /// What config.json says.
    pub config: ModelConfig,
    /// Its tensors.
    pub weights: Weights,
    /// What a person should know of the folder, a sentence each.
    pub notices: Vec<String>,
    /// The linears that are stored in integers, block by block, the head last.
    pub linears: Vec<StoredLinear>,
    /// Every other tensor that the model needs.
    pub others: Vec<OtherTensor>,
}

/// A linear in integers.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLinear {
    /// Its name in the folder, without `.weight`.
    pub name: String,
    /// Its name in the family's published checkpoints.
    pub published: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Whether `name.bias` is there.
    pub has_bias: bool,
    /// How it is stored.
    pub scheme: LinearScheme,
    /// Its input is transformed in blocks of so many channels while the model runs.
    pub hadamard: Option<usize>,
}

/// A tensor that is no part of a linear in integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherTensor {
    /// Its name in the folder.
    pub stored: String,
    /// Its name in the family's checkpoints: folders may leave the leading part out.
    pub name: String,
}

/// What the parts of a linear in integers are called.
const PARTS: [&str; 8] = ["q", "zero", "s2", "s1", "w8", "weight", "bias", "ta"];
/// Weights that are read at a time.
const SLICE_WEIGHTS: usize = 1 << 24;

impl Source {
    /// Opens and judges the folder `dir`, for one of the formats.
    ///
    /// # Errors
    /// What loading the model would refuse.
    pub fn open(dir: &Path, format: ExportFormat) -> Result<Self, ExportError> {
        let ModelFolder {
            config,
            weights,
            notices,
        } = ModelFolder::open(dir)?;
        if config.family == Family::GptOss {
            return Err(ExportError::Stacked { format });
        }
        let mut linears = linears(&config);
        let others = others(&config, &weights, &linears);
        if format != ExportFormat::Gguf && rounds_a_tied_head(&config) {
            linears.retain(|linear| linear.name != config.family.head_name());
        }
        Ok(Self {
            config,
            weights,
            notices,
            linears,
            others,
        })
    }

    /// Whether any linear is in integers.
    pub fn is_quantized(&self) -> bool {
        !self.linears.is_empty()
    }

    /// Name of the head, without `.weight`.
    pub fn head_name(&self) -> &'static str {
        self.config.family.head_name()
    }

    /// Whether the head has weights of its own.
    pub fn has_own_head(&self) -> bool {
        !self.config.tie_embeddings || self.linears.iter().any(|linear| linear.name == self.head_name())
    }

    /// Linears of the blocks that are stored as floats.
    pub fn float_linears(&self) -> Vec<String> {
        let specs = all_linears(&self.config).into_iter();
        let members = specs.flat_map(|spec| spec.members);
        let is_float = |name: &String| !self.linears.iter().any(|linear| linear.name == *name);
        members.map(|member| member.name).filter(is_float).collect()
    }

    /// A linear, whole.
    ///
    /// # Errors
    /// Missing or damaged tensors.
    pub fn read(&self, linear: &StoredLinear) -> Result<LinearWeights, ExportError> {
        self.rows(linear, 0..linear.n)
    }

    /// Some rows of a linear.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn rows(&self, linear: &StoredLinear, rows: Range<usize>) -> Result<LinearWeights, ExportError> {
        let quantization = self.config.quantization.as_ref();
        let shape = (linear.n, linear.k);
        let read = self
            .weights
            .linear_rows(&linear.name, (shape, rows), linear.has_bias, quantization);
        self.weights.release_pages();
        Ok(read?)
    }

    /// Type and shape of a tensor as [`Self::raw`] gives it.
    ///
    /// # Errors
    /// It is missing.
    pub fn shape(&self, tensor: &OtherTensor) -> Result<(Dtype, &[usize]), ExportError> {
        let (dtype, shape, _) = self.weights.stored(&tensor.stored)?;
        Ok((dtype, shape))
    }

    /// Type, shape and bytes of a tensor that stays as it is.
    ///
    /// # Errors
    /// It is missing.
    pub fn raw(&self, tensor: &OtherTensor) -> Result<RawTensor<'_>, ExportError> {
        Ok(self.weights.raw(&tensor.stored)?)
    }
}

impl StoredLinear {
    /// Runs of rows that fit the memory well.
    pub fn slices(&self) -> impl Iterator<Item = Range<usize>> {
        let (n, step) = (self.n, (SLICE_WEIGHTS / self.k.max(1)).max(1));
        (0..n)
            .step_by(step)
            .map(move |first| first..first.saturating_add(step).min(n))
    }
}

fn all_linears(config: &ModelConfig) -> Vec<LinearSpec> {
    (0..config.num_layers)
        .flat_map(|layer| BlockSpec::new(config, layer).linears.into_values())
        .collect()
}

fn linears(config: &ModelConfig) -> Vec<StoredLinear> {
    let Some(quantization) = &config.quantization else {
        return Vec::new();
    };
    let stored = |name: String, (n, k), has_bias, hadamard| StoredLinear {
        scheme: quantization.scheme(&name),
        published: published(config, &name),
        name,
        n,
        k,
        has_bias,
        hadamard,
    };
    let mut linears = Vec::new();
    for LinearSpec { id, k, members, .. } in all_linears(config) {
        let hadamard = config.hadamard_down.filter(|_| id.role == Role::Down);
        let members = members.into_iter();
        linears
            .extend(members.map(|member| stored(member.name, (member.rows.len(), k), member.bias, hadamard)));
    }
    let shape = (config.vocab_size, config.hidden_size);
    linears.push(stored(config.family.head_name().into(), shape, false, None));
    // Floats stay as they are, unless they are those of a transformed input.
    linears.retain(|linear| linear.scheme != LinearScheme::Float || linear.hadamard.is_some());
    linears
}

/// Whether the head in integers is the embedding, rounded: then the embedding stands for it, as programs expect of a tied model.
fn rounds_a_tied_head(config: &ModelConfig) -> bool {
    let is_rotated = config
        .quantization
        .as_ref()
        .is_some_and(|q| !q.rotation.is_empty());
    config.tie_embeddings && !is_rotated
}

/// A tensor's name in published checkpoints: GPT-NeoX's call the head otherwise.
fn published(config: &ModelConfig, name: &str) -> String {
    match name.strip_prefix(config.family.head_name()) {
        Some(rest) if config.family == Family::GptNeoX => format!("embed_out{rest}"),
        _ => name.to_owned(),
    }
}

fn others(config: &ModelConfig, weights: &Weights, linears: &[StoredLinear]) -> Vec<OtherTensor> {
    let parts = linears
        .iter()
        .flat_map(|linear| PARTS.map(|part| format!("{}.{part}", linear.name)));
    let parts: BTreeSet<String> = parts.collect();
    let head = format!("{}.weight", config.family.head_name());
    let is_needed = |tensor: &OtherTensor| {
        let name = &full_name(config, &tensor.stored);
        // A tied head that is stored too is the embedding once more.
        let is_copy = config.tie_embeddings && *name == head;
        !is_copy && !parts.contains(name) && name != KEY_SCALES_TENSOR && name != VALUE_SCALES_TENSOR
    };
    let used = weights.used_names().into_iter();
    let named = used.map(|stored| OtherTensor {
        name: published(config, &full_name(config, &stored)),
        stored,
    });
    named.filter(is_needed).collect()
}

/// A tensor's name in the family's checkpoints.
fn full_name(config: &ModelConfig, stored: &str) -> String {
    let (embedding, head) = (config.family.embedding_name(), config.family.head_name());
    let leading = LEADING.iter().find(|leading| embedding.starts_with(**leading));
    let is_outside = stored.starts_with(head) || stored == KEY_SCALES_TENSOR || stored == VALUE_SCALES_TENSOR;
    match leading {
        Some(leading) if !is_outside && !stored.starts_with(leading) => format!("{leading}{stored}"),
        _ => stored.to_owned(),
    }
}
