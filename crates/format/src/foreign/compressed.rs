//! compressed-tensors, as llm-compressor writes it and vLLM reads it.
//!
//! `config_groups` say which linears are stored how; `format` says in which tensors. `pack-quantized`: `weight_packed` I32
//! `[n, ceil(k * bits / 32)]` with codes around 0 plus half their range, `weight_shape` `[2]`, `weight_scale`, and where the groups are not
//! symmetric `weight_zero_point`, packed along the outputs (early versions: signed bytes). `int-quantized`, `float-quantized` and
//! `naive-quantized`: `weight` in I8 or F8_E4M3 with `weight_scale`.

use safetensors::Dtype;
use serde_json::Value;

use super::error::ForeignError;
use super::fields::Fields;
use super::fp8::{blocks, rows};
use super::gptq::listed_groups;
use super::packed::{Codes, Groups, PackedLinear, Scales, Zeros};
use super::part::{Named, Parts};
use super::target::{Closeness, Target, closest};
use super::words::{Words, words_of};

/// Ends of the names of a linear's tensors.
pub const PARTS: [&str; 6] = [
    "weight_packed",
    "weight",
    "weight_scale",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
];

/// What belongs to activations, which stay floats here.
pub const LEFT_OUT: [&str; 4] = [
    "input_scale",
    "input_zero_point",
    "output_scale",
    "output_zero_point",
];

const FORMATS: &str = "pack-quantized, int-quantized, float-quantized, naive-quantized or dense";

/// How a folder's linears were quantized.
#[derive(Debug)]
pub struct Compressed {
    groups: Vec<Group>,
    ignore: Vec<Target>,
    /// What of the configuration a model of floats does not do; each the middle of a sentence.
    left_out: Vec<&'static str>,
}

/// Linears that are stored alike.
#[derive(Debug)]
struct Group {
    targets: Vec<Target>,
    /// `None` where weights stay floats.
    weights: Option<Weights>,
}

#[derive(Debug, Clone, Copy)]
struct Weights {
    bits: u32,
    is_float: bool,
    symmetric: bool,
    strategy: Strategy,
    /// The groups of inputs are those that `weight_g_idx` lists.
    listed: bool,
}

/// Weights that share a scale.
#[derive(Debug, Clone, Copy)]
enum Strategy {
    /// All of them, or those of an output.
    Rows,
    /// So many inputs of an output.
    Group(usize),
    /// A block of so many outputs and inputs.
    Block([usize; 2]),
}

impl Compressed {
    pub fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        refuse_sparsity(fields)?;
        refuse_transforms(fields)?;
        let format = fields.text("format")?.unwrap_or("dense");
        // The groups say their own formats then.
        if !is_read(format) && format != "mixed-precision" {
            return Err(fields.refused("format", FORMATS));
        }
        let listed = fields.object("config_groups")?;
        let listed = listed.ok_or_else(|| fields.refused("config_groups", "an object"))?;
        let mut left_out = Vec::new();
        if fields.value("kv_cache_scheme").is_some() {
            left_out.push("keys and values");
        }
        let mut groups = Vec::new();
        for (name, value) in listed.entries() {
            let group = Fields::of(value, &format!("config_groups.{name}"))?;
            let has_activations =
                ["input_activations", "output_activations"].map(|of| group.value(of).is_some());
            if has_activations != [false; 2] && !left_out.contains(&"activations") {
                left_out.push("activations");
            }
            groups.push(Group::read(&group)?);
        }
        Ok(Self {
            groups,
            ignore: targets(fields, "ignore")?,
            left_out,
        })
    }

    /// What was done, for people.
    pub fn described(&self) -> String {
        let kinds = self
            .groups
            .iter()
            .filter_map(|group| Some(group.weights?.described()));
        let mut kinds: Vec<_> = kinds.collect();
        kinds.dedup();
        format!("compressed-tensors ({})", kinds.join(" and "))
    }

    /// What the configuration asks for besides, and is not done; empty where there is nothing.
    pub fn left_out(&self) -> String {
        self.left_out.join(", and of ")
    }

    pub fn unpack<'a>(&self, name: &str, parts: &Parts<'a>) -> Result<PackedLinear<'a>, ForeignError> {
        let weights = self.weights_of(name)?;
        let codes = match parts.optional("weight_packed") {
            Some(packed) => packed_codes(packed, parts, weights)?,
            None => stored_codes(parts.required("weight", "")?)?,
        };
        let shape @ [n, k] = codes.shape;
        let scale = parts.required("weight_scale", "")?;
        let (scales, groups) = match weights.strategy {
            Strategy::Rows => rows(scale, shape)?,
            Strategy::Group(len) => grouped(scale, shape, len)?,
            Strategy::Block(block) => blocks(scale, shape, block)?,
        };
        Ok(PackedLinear {
            n,
            k,
            codes: codes.codes,
            zeros: zeros(parts, weights, (scale, n), codes.zero)?,
            groups: weights.groups(parts, groups, scale, k)?,
            scales,
        })
    }

    fn weights_of(&self, name: &str) -> Result<Weights, ForeignError> {
        let untargeted = |reason: &str| ForeignError::Untargeted {
            reason: reason.to_owned(),
        };
        if closest(&self.ignore, name)?.is_some() {
            return Err(untargeted("quantization_config.ignore names it"));
        }
        // As the library does: the closest entry of all groups decides, and among equals the first.
        let mut found: Option<(Closeness, &Group)> = None;
        for group in &self.groups {
            if let Some(closeness) = closest(&group.targets, name)?
                && found.is_none_or(|(other, _)| closeness < other)
            {
                found = Some((closeness, group));
            }
        }
        let none = || untargeted("no group of quantization_config.config_groups targets it");
        let (_, group) = found.ok_or_else(none)?;
        let weights = group.weights;
        weights.ok_or_else(|| untargeted("its group of config_groups has no `weights`"))
    }
}

impl Group {
    fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        if !fields.text("format")?.is_none_or(is_read) {
            return Err(fields.refused("format", FORMATS));
        }
        let weights = fields.object("weights")?;
        Ok(Self {
            targets: targets(fields, "targets")?,
            weights: weights.as_ref().map(Weights::read).transpose()?,
        })
    }
}

impl Weights {
    fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        let is_float = match fields.text("type")?.unwrap_or("int") {
            "int" => false,
            "float" => true,
            _ => return Err(fields.refused("type", "int or float")),
        };
        let bits = match (fields.count("num_bits")?.unwrap_or(8), is_float) {
            (bits @ (2 | 4 | 8), false) | (bits @ 8, true) => bits as u32,
            (_, false) => return Err(fields.refused("num_bits", "2, 4 or 8")),
            (_, true) => return Err(fields.refused("num_bits", "8, as floats")),
        };
        let listed = match fields.value("actorder") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::String(word)) if ["weight", "static"].contains(&word.as_str()) => false,
            Some(Value::String(word)) if ["group", "dynamic"].contains(&word.as_str()) => true,
            Some(_) => return Err(fields.refused("actorder", "weight, static, group or dynamic")),
        };
        Ok(Self {
            bits,
            is_float,
            symmetric: fields.flag("symmetric", true)?,
            strategy: Strategy::read(fields)?,
            listed,
        })
    }

    fn described(self) -> String {
        let kind = if self.is_float { "floats of " } else { "" };
        let sharing = match self.strategy {
            Strategy::Rows => "with a scale a row or tensor".to_owned(),
            Strategy::Group(len) => format!("in groups of {len}"),
            Strategy::Block([rows, columns]) => format!("in blocks of {rows} x {columns}"),
        };
        format!("{kind}{} bits {sharing}", self.bits)
    }

    /// The groups of inputs, by the list of the file where there is one; a list of -1 stands for none.
    fn groups(
        self,
        parts: &Parts<'_>,
        usual: Groups,
        scale: Named<'_>,
        k: usize,
    ) -> Result<Groups, ForeignError> {
        let Strategy::Group(_) = self.strategy else {
            return Ok(usual);
        };
        let list = match self.listed {
            true => parts.required(
                "weight_g_idx",
                ", and `actorder` says that groups are no runs of inputs",
            )?,
            false => match parts.optional("weight_g_idx") {
                Some(list) => list,
                None => return Ok(usual),
            },
        };
        let list = list.shaped(&[k])?;
        if list.i32s()?.iter().all(|&group| group == -1) {
            return Ok(usual);
        }
        let [_, num_groups] = scale.matrix()?;
        listed_groups(list, num_groups)
    }
}

impl Strategy {
    fn read(fields: &Fields<'_>) -> Result<Self, ForeignError> {
        let group_size = match fields.value("group_size") {
            Some(_) => fields.group_size("group_size")?,
            None => None,
        };
        match (fields.text("strategy")?, group_size) {
            (Some("tensor" | "channel"), _) | (None, None) => Ok(Self::Rows),
            (Some("group") | None, Some(len)) => Ok(Self::Group(len)),
            (Some("group"), None) => Err(fields.refused("group_size", "a whole number above 0")),
            (Some("block"), _) => {
                let block = fields.sides("block_structure")?;
                block
                    .map(Self::Block)
                    .ok_or_else(|| fields.refused("block_structure", "the two sides of a block"))
            }
            _ => Err(fields.refused("strategy", "tensor, channel, group or block")),
        }
    }
}

/// Codes with the shape of their matrix, and the code that stands for 0.
struct Stored<'a> {
    codes: Codes<'a>,
    shape: [usize; 2],
    zero: f32,
}

fn packed_codes<'a>(
    packed: Named<'a>,
    parts: &Parts<'a>,
    weights: Weights,
) -> Result<Stored<'a>, ForeignError> {
    let words = Words::of(packed)?;
    let [rows, columns] = packed.matrix()?;
    let shape = parts.required("weight_shape", "")?.shaped(&[2])?;
    let [n, k] = stored_shape(shape)?;
    if weights.is_float || n != rows || words_of(k, weights.bits) != Some(columns) || k == 0 {
        let bits = weights.bits;
        return Err(packed.misshapen(format!("what holds {n} rows of {k} integers of {bits} bits")));
    }
    Ok(Stored {
        codes: Codes::Rows {
            words,
            bits: weights.bits,
        },
        shape: [n, k],
        zero: (1_u32 << (weights.bits - 1)) as f32,
    })
}

/// The numbers in `weight_shape`.
fn stored_shape(shape: Named<'_>) -> Result<[usize; 2], ForeignError> {
    let numbers: Vec<i64> = match shape.part.dtype {
        Dtype::I64 => {
            let words = shape.part.bytes.as_chunks::<8>().0;
            words.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
        }
        _ => shape.i32s()?.into_iter().map(i64::from).collect(),
    };
    let sizes: Option<Vec<usize>> = numbers.iter().map(|&side| usize::try_from(side).ok()).collect();
    let sizes = sizes.and_then(|sizes| sizes.try_into().ok());
    sizes.ok_or_else(|| shape.misshapen(format!("two sizes; it holds {numbers:?}")))
}

fn stored_codes(weight: Named<'_>) -> Result<Stored<'_>, ForeignError> {
    let weight = weight.of_type(&[Dtype::I8, Dtype::F8_E4M3], "I8 or F8_E4M3")?;
    let codes = match weight.part.dtype {
        Dtype::I8 => Codes::Int8(weight.part.bytes),
        _ => Codes::float8(weight.part.bytes),
    };
    Ok(Stored {
        codes,
        shape: weight.matrix()?,
        zero: 0.0,
    })
}

/// Scales `[n, k / len]`.
fn grouped<'a>(
    scale: Named<'a>,
    [n, k]: [usize; 2],
    len: usize,
) -> Result<(Scales<'a>, Groups), ForeignError> {
    // A row shorter than a group is one.
    let len = len.min(k);
    if !k.is_multiple_of(len) {
        return Err(scale.misshapen(format!(
            "a row of {k} weights that the group size ({len}) divides"
        )));
    }
    let num_groups = k / len;
    let scale = scale.shaped(&[n, num_groups])?;
    let scales = Scales {
        name: scale.name,
        values: scale.floats()?,
        outputs: 1,
        strides: [num_groups, 1],
    };
    Ok((scales, Groups::Runs(len)))
}

/// The zero points, `zero` plus what the file holds; packed ones are shifted as the codes are.
fn zeros<'a>(
    parts: &Parts<'a>,
    weights: Weights,
    (scale, n): (Named<'a>, usize),
    zero: f32,
) -> Result<Zeros<'a>, ForeignError> {
    let stored = match weights.symmetric {
        true => parts.optional("weight_zero_point"),
        false => Some(parts.required("weight_zero_point", ", and `symmetric` is false")?),
    };
    match stored {
        None => Ok(Zeros::One(zero)),
        Some(stored) if stored.part.dtype == Dtype::I32 => {
            let num_groups = scale.part.shape.get(1).copied().unwrap_or(1);
            let num_words = words_of(n, weights.bits).unwrap_or(usize::MAX);
            let stored = stored.shaped(&[num_words, num_groups])?;
            Ok(Zeros::Columns {
                words: Words::of(stored)?,
                bits: weights.bits,
            })
        }
        Some(stored) => {
            let stored = stored.of_type(&[Dtype::I8], "I32 or I8")?;
            let stored = stored.shaped(scale.part.shape)?;
            Ok(Zeros::Int8 {
                bytes: stored.part.bytes,
                zero,
            })
        }
    }
}

fn targets(fields: &Fields<'_>, name: &str) -> Result<Vec<Target>, ForeignError> {
    let texts = fields.texts(name)?.into_iter();
    let targets = texts.map(|text| {
        Target::of(text).ok_or_else(|| ForeignError::Field {
            field: name.to_owned(),
            got: format!("`{text}`"),
            expected: "a name, a class, or `re:` with a regular expression".to_owned(),
        })
    });
    targets.collect()
}

fn is_read(format: &str) -> bool {
    let formats = [
        "pack-quantized",
        "int-quantized",
        "float-quantized",
        "naive-quantized",
        "dense",
    ];
    formats.contains(&format)
}

fn refuse_sparsity(fields: &Fields<'_>) -> Result<(), ForeignError> {
    let Some(sparsity) = fields.object("sparsity_config")? else {
        return Ok(());
    };
    match sparsity.text("format")? {
        None | Some("dense") => Ok(()),
        Some(_) => Err(sparsity.refused("format", "dense")),
    }
}

/// Transforms that run with the model are not part of its weights.
fn refuse_transforms(fields: &Fields<'_>) -> Result<(), ForeignError> {
    let transforms = fields.object("transform_config")?;
    let groups = transforms
        .map(|config| config.object("config_groups"))
        .transpose()?
        .flatten();
    match groups.is_some_and(|groups| groups.entries().next().is_some()) {
        true => Err(fields.refused(
            "transform_config",
            "none: a model runs without transforms of its activations",
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<Compressed, ForeignError> {
        Compressed::read(&Fields::of(value, "")?)
    }

    #[test]
    fn a_pattern_of_a_later_group_counts_before_a_class() {
        let value = json!({"format": "pack-quantized", "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}},
            "group_1": {"targets": ["re:.*down_proj$"], "weights": {"num_bits": 8}},
            "group_2": {"targets": ["re:.*down_proj$"], "weights": {"num_bits": 2}},
        }});
        let compressed = read(&value).unwrap();
        let bits = |name: &str| compressed.weights_of(name).unwrap().bits;
        assert_eq!(bits("model.layers.0.mlp.down_proj"), 8);
        assert_eq!(bits("model.layers.0.mlp.up_proj"), 4);
        assert!(compressed.weights_of("model.embed_tokens").is_err());
    }

    #[test]
    fn sides_of_a_block_are_a_list_or_a_text() {
        let block = |structure: Value| -> Result<[usize; 2], String> {
            let weights = json!({"type": "float", "strategy": "block", "block_structure": structure});
            let value = json!({"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}});
            let compressed = read(&value).map_err(|error| error.to_string())?;
            let weights = compressed
                .weights_of("q_proj")
                .map_err(|error| error.to_string())?;
            match weights.strategy {
                Strategy::Block(sides) => Ok(sides),
                other => Err(format!("{other:?}")),
            }
        };
        assert_eq!(block(json!([128, 64])), Ok([128, 64]));
        assert_eq!(block(json!("128x64")), Ok([128, 64]));
        for broken in ["128", "0x128", "128x", "axb"] {
            let error = block(json!(broken)).unwrap_err();
            assert!(error.contains("block_structure"), "{error}");
        }
    }
}
