//! The file, tensor by tensor.

use std::borrow::Cow;
use std::path::Path;

use dualgrain_engine::ModelConfig;
use dualgrain_format::checkpoint::{Dtype, FolderWriter, f32_bytes, widen};
use dualgrain_format::gguf::{GgufKind, GgufTensor, GgufWriter};
use dualgrain_format::{GroupSize, LinearScheme, LinearWeights};

use crate::card;
use crate::error::ExportError;
use crate::folding::Folding;
use crate::formats::ExportFormat;
use crate::gguf::blocks::{BLOCK, q4_1, q8_0};
use crate::gguf::experts::{Stack, check_stacks, chooses, stacked};
use crate::gguf::metadata::{Described, describe};
use crate::gguf::names::{Rotated, architecture, is_rotated, rows_in_pairs};
use crate::gguf::tokenizer;
use crate::source::{OtherTensor, Source, StoredLinear};
use crate::watch::{Meter, Watch};

/// The file in the folder.
const FILE: &str = "model.gguf";
/// The tensor of the frequencies' divisors.
const DIVISORS: &str = "rope_freqs.weight";

/// What was written.
pub struct Written {
    /// Tensors and their bytes.
    pub tensors: (usize, u64),
    /// What became of the scales.
    pub folding: Folding,
    /// What a person should know, a sentence each.
    pub notices: Vec<String>,
}

/// Writes the folder `out` from `source`, which was read from `dir`.
///
/// # Errors
/// See [`ExportError`]; nothing is left at `out` then.
pub fn write(source: &Source, (dir, out): (&Path, &Path), watch: Watch<'_>) -> Result<Written, ExportError> {
    if out
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
    {
        let path = out.to_path_buf();
        return Err(ExportError::FileForFolder { path, inside: FILE });
    }
    let rows = RowOrder::of(&source.config)?;
    let stacks = Stacks::of(source);
    check_linears(source, &stacks)?;
    let Described {
        mut metadata,
        divisors,
        mut notices,
    } = describe(source, dir, rows.architecture)?;
    let (of_tokenizer, of_tokens) = tokenizer::metadata(dir, &source.config)?;
    metadata.extend(of_tokenizer);
    notices.extend(of_tokens);
    let tensors = tensors(source, &stacks, divisors.as_deref())?;
    let num_tensors = tensors.len();
    let meter = Meter::new(
        watch,
        tensors
            .iter()
            .filter_map(GgufTensor::num_bytes)
            .map(|bytes| bytes as u64)
            .sum(),
    );
    let mut folder = FolderWriter::create(out, false)?;
    let file = GgufWriter::create(&folder.partial_path().join(FILE), &metadata, tensors)?;
    let mut filler = Filler {
        source,
        rows,
        file,
        folding: Folding::new(ExportFormat::Gguf),
        meter,
    };
    filler.fill(&stacks, divisors.as_deref())?;
    let (folding, meter) = (filler.folding, filler.meter);
    filler.file.finish()?;
    folder.write_file(
        "README.md",
        card::text(source, dir, ExportFormat::Gguf).as_bytes(),
    )?;
    folder.commit()?;
    Ok(Written {
        tensors: (num_tensors, meter.done()),
        folding,
        notices,
    })
}

/// In which order the rows of queries and keys lie.
struct RowOrder {
    architecture: &'static str,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
}

impl RowOrder {
    fn of(config: &ModelConfig) -> Result<Self, ExportError> {
        let Some(architecture) = architecture(config.family) else {
            return Err(ExportError::Unsupported {
                format: ExportFormat::Gguf,
                what: format!("the family {}", config.family.class_prefix()),
                expected: "Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen2-MoE or Qwen3-MoE".into(),
            });
        };
        Ok(Self {
            architecture,
            num_heads: config.num_heads,
            num_kv_heads: config.num_kv_heads,
            head_dim: config.head_dim,
        })
    }

    /// The new order of the rows of a part; `None` where they stay.
    fn of_part(&self, part: &str) -> Option<Vec<usize>> {
        let rotated = is_rotated(part).filter(|_| self.architecture == "llama")?;
        let heads = match rotated {
            Rotated::Queries => self.num_heads,
            Rotated::Keys => self.num_kv_heads,
        };
        Some(rows_in_pairs(heads, self.head_dim))
    }
}

/// The tensors of the folder as the file has them.
struct Stacks<'a> {
    others: Vec<Stack<'a, OtherTensor>>,
    linears: Vec<Stack<'a, StoredLinear>>,
}

impl<'a> Stacks<'a> {
    fn of(source: &'a Source) -> Self {
        let part = |tensor: &'a OtherTensor| tensor.name.strip_suffix(".weight").unwrap_or_default();
        Self {
            others: stacked(&source.others, part),
            linears: stacked(&source.linears, |linear| &linear.name),
        }
    }
}

/// Refuses rows that are no whole blocks, and experts that one tensor cannot hold.
fn check_linears(source: &Source, stacks: &Stacks<'_>) -> Result<(), ExportError> {
    if let Some(block) = source.config.hadamard_down {
        let format = ExportFormat::Gguf;
        return Err(ExportError::Transform { block, format });
    }
    source.linears.iter().try_for_each(check_row)?;
    let of_linear = |linear: &StoredLinear| Ok((linear.scheme, linear.n, linear.k, linear.has_bias));
    check_stacks(&stacks.linears, &source.config, of_linear)?;
    let of_other = |tensor: &OtherTensor| source.shape(tensor).map(|(dtype, shape)| (dtype, shape.to_vec()));
    check_stacks(&stacks.others, &source.config, of_other)
}

fn check_row(linear: &StoredLinear) -> Result<(), ExportError> {
    match linear.k.is_multiple_of(BLOCK) {
        true => Ok(()),
        false => Err(ExportError::Groups {
            linear: linear.name.clone(),
            k: linear.k,
            group_size: linear.scheme.group_size().unwrap_or(GroupSize::WholeRow),
            multiple: BLOCK,
            format: ExportFormat::Gguf,
        }),
    }
}

/// All tensors in the order in which they are written.
fn tensors(
    source: &Source,
    stacks: &Stacks<'_>,
    divisors: Option<&[f32]>,
) -> Result<Vec<GgufTensor>, ExportError> {
    let mut tensors = Vec::new();
    let tensor = |name, kind, shape: &[usize]| GgufTensor {
        name,
        kind,
        shape: shape.to_vec(),
    };
    for stack in &stacks.others {
        let (dtype, shape) = source.shape(stack.members[0])?;
        let (name, shape) = (other_name(stack)?, shape_of(stack, shape));
        let kind = float_type(&name, dtype, &shape)?;
        tensors.push(tensor(name, kind, &shape));
    }
    tensors.extend(divisors.map(|divisors| tensor(DIVISORS.to_owned(), GgufKind::F32, &[divisors.len()])));
    for stack in &stacks.linears {
        let (name, linear) = (linear_name(stack)?, stack.members[0]);
        let kind = match linear.scheme {
            LinearScheme::W4 { .. } => GgufKind::Q4_1,
            LinearScheme::W8 | LinearScheme::Float => GgufKind::Q8_0,
        };
        let shape = shape_of(stack, &[linear.n, linear.k]);
        tensors.push(tensor(format!("{name}.weight"), kind, &shape));
        if linear.has_bias {
            tensors.push(tensor(format!("{name}.bias"), GgufKind::F32, &[linear.n]));
        }
    }
    Ok(tensors)
}

/// The shape of a tensor of the file whose members have the shape `of_member`. A gate of a single row is a vector there.
fn shape_of<T>(stack: &Stack<'_, T>, of_member: &[usize]) -> Vec<usize> {
    match (&stack.name, of_member) {
        (Some(_), _) => [&[stack.members.len()], of_member].concat(),
        (None, [1, len]) => vec![*len],
        (None, shape) => shape.to_vec(),
    }
}

/// Vectors and what chooses experts are 32-bit floats in every file; other matrices stay as they are.
fn float_type(name: &str, dtype: Dtype, shape: &[usize]) -> Result<GgufKind, ExportError> {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 if shape.len() < 2 || chooses(name) => Ok(GgufKind::F32),
        Dtype::F32 => Ok(GgufKind::F32),
        Dtype::F16 => Ok(GgufKind::F16),
        Dtype::BF16 => Ok(GgufKind::Bf16),
        other => Err(ExportError::Unsupported {
            format: ExportFormat::Gguf,
            what: format!("a tensor of type {other:?}"),
            expected: "F32, F16 or BF16".into(),
        }),
    }
}

fn other_name(stack: &Stack<'_, OtherTensor>) -> Result<String, ExportError> {
    let name = &stack.members[0].name;
    let (part, end) = name.rsplit_once('.').unwrap_or_default();
    match stack.part_name(part) {
        Some(part) if matches!(end, "weight" | "bias") => Ok(format!("{part}.{end}")),
        _ => Err(unnamed(name)),
    }
}

fn linear_name(stack: &Stack<'_, StoredLinear>) -> Result<String, ExportError> {
    let name = &stack.members[0].name;
    stack.part_name(name).ok_or_else(|| unnamed(name))
}

fn unnamed(name: &str) -> ExportError {
    ExportError::Unsupported {
        format: ExportFormat::Gguf,
        what: format!("the tensor `{name}`"),
        expected: "the tensors of a Llama, Mistral, Mixtral, Qwen2, Qwen3, Qwen2-MoE or Qwen3-MoE".into(),
    }
}

/// Fills the file with data.
struct Filler<'a> {
    source: &'a Source,
    rows: RowOrder,
    file: GgufWriter,
    folding: Folding,
    meter: Meter<'a>,
}

impl Filler<'_> {
    fn fill(&mut self, stacks: &Stacks<'_>, divisors: Option<&[f32]>) -> Result<(), ExportError> {
        stacks.others.iter().try_for_each(|stack| self.other(stack))?;
        if let Some(divisors) = divisors {
            self.put(DIVISORS, &f32_bytes(divisors))?;
        }
        stacks.linears.iter().try_for_each(|stack| self.linear(stack))
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        self.file.write(name, bytes)?;
        self.meter.add(bytes.len());
        Ok(())
    }

    fn other(&mut self, stack: &Stack<'_, OtherTensor>) -> Result<(), ExportError> {
        let (source, name) = (self.source, other_name(stack)?);
        let mut all = Cow::Borrowed(&[][..]);
        for tensor in &stack.members {
            self.meter.start(&tensor.name)?;
            let (dtype, shape, mut bytes) = source.raw(tensor)?;
            let is_f32 = float_type(&name, dtype, &shape_of(stack, shape))? == GgufKind::F32;
            if is_f32 && dtype != Dtype::F32 {
                bytes = Cow::Owned(wide_bytes(dtype, &bytes));
            }
            let (part, _) = tensor.name.rsplit_once('.').unwrap_or_default();
            if let Some(order) = self.rows.of_part(part) {
                bytes = Cow::Owned(reordered(&bytes, &order));
            }
            // A tensor by itself is not copied.
            match stack.members.len() {
                1 => all = bytes,
                _ => all.to_mut().extend_from_slice(&bytes),
            }
        }
        self.put(&name, &all)?;
        source.weights.release_pages();
        Ok(())
    }

    fn linear(&mut self, stack: &Stack<'_, StoredLinear>) -> Result<(), ExportError> {
        let name = linear_name(stack)?;
        let (mut bytes, mut bias) = (Vec::new(), None);
        for linear in &stack.members {
            self.meter.start(&linear.name)?;
            let mut weights = self.source.read(linear)?;
            if let Some(order) = self.rows.of_part(&linear.name) {
                weights = weights.select_rows(&order)?;
            }
            bytes.extend(match &weights {
                LinearWeights::W4(weights) => q4_1(&linear.name, weights, &mut self.folding)?,
                LinearWeights::W8(weights) => q8_0(&linear.name, weights, &mut self.folding)?,
                LinearWeights::Float(_) => return Err(unnamed(&linear.name)),
            });
            bias = weights.bias().map(f32_bytes);
        }
        self.put(&format!("{name}.weight"), &bytes)?;
        match bias {
            Some(bias) => self.put(&format!("{name}.bias"), &bias),
            None => Ok(()),
        }
    }
}

fn wide_bytes(dtype: Dtype, bytes: &[u8]) -> Vec<u8> {
    let mut values = vec![0.0; 8 * bytes.len() / dtype.bitsize()];
    widen(dtype, bytes, &mut values);
    f32_bytes(&values)
}

/// Rows of equal length in another order.
fn reordered(bytes: &[u8], order: &[usize]) -> Vec<u8> {
    let row_bytes = bytes.len() / order.len().max(1);
    let row = |&row: &usize| &bytes[row * row_bytes..(row + 1) * row_bytes];
    order.iter().map(row).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_no_whole_blocks_are_refused_by_name() {
        let linear = |k: usize| StoredLinear {
            name: "model.layers.0.mlp.down_proj".into(),
            published: String::new(),
            n: 64,
            k,
            has_bias: false,
            scheme: LinearScheme::w4(GroupSize::WholeRow),
            hadamard: None,
        };
        assert!(check_row(&linear(96)).is_ok());
        let error = check_row(&linear(100)).unwrap_err().to_string();
        for part in [
            "`model.layers.0.mlp.down_proj`",
            "rows of 100 weights",
            "a multiple of 32",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn rows_are_put_in_order_whatever_their_length() {
        assert_eq!(reordered(&[1, 2, 3, 4, 5, 6], &[2, 0, 1]), [5, 6, 1, 2, 3, 4]);
        assert_eq!(reordered(&[1, 2, 3], &[2, 0, 1]), [3, 1, 2]);
    }
}
