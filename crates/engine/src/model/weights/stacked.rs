//! Experts whose tensors a file stacks (gpt-oss): a linear of all experts is one tensor there. Here each expert has tensors of its own,
//! which are slices of that one, under the names that other families give them.
//!
//! | in the file | of an expert |
//! |---|---|
//! | `experts.NAME` `[experts, in, out]` | `experts.E.NAME.weight` `[out, in]` |
//! | `experts.NAME_bias` `[experts, out]` | `experts.E.NAME.bias` `[out]` |
//! | `experts.NAME_blocks` `[experts, out, ..]` | `experts.E.NAME.blocks` `[out, ..]`, which another program packed |
//! | `experts.NAME_scales` `[experts, out, ..]` | `experts.E.NAME.scales` `[out, ..]` |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use dualgrain_device::MAX_EXPERTS;
use dualgrain_format::checkpoint::{Dtype, TensorEntry};

use super::error::WeightsError;
use super::tensors::{Tensor, Weights};

/// Linears that are stacked.
const LINEARS: [&str; 2] = ["gate_up_proj", "down_proj"];
/// What follows their names, and what the tensor of an expert is called.
const PARTS: [(&str, &str); 4] = [
    ("", "weight"),
    ("_bias", "bias"),
    ("_blocks", "blocks"),
    ("_scales", "scales"),
];
/// Rows of a transpose that are written side by side.
const TRANSPOSED: usize = 32;

/// A stacked tensor.
struct Stack<'n> {
    /// What stands before the number of an expert.
    experts: &'n str,
    linear: &'static str,
    part: &'static str,
}

impl<'n> Stack<'n> {
    fn of(name: &'n str) -> Option<Self> {
        let (experts, last) = name.rsplit_once('.')?;
        if experts.rsplit('.').next() != Some("experts") {
            return None;
        }
        LINEARS.iter().find_map(|&linear| {
            let rest = last.strip_prefix(linear)?;
            let (_, part) = PARTS.iter().find(|(end, _)| *end == rest)?;
            Some(Self {
                experts,
                linear,
                part,
            })
        })
    }

    fn name_of(&self, expert: usize) -> String {
        format!("{}.{expert}.{}.{}", self.experts, self.linear, self.part)
    }

    /// Shape and bytes of each expert's slice, if the tensor can be cut into experts. What cannot stays a tensor that no model asks for.
    fn slices(&self, entry: &TensorEntry) -> Option<(Vec<usize>, Vec<Range<usize>>)> {
        let (&num_experts, rest) = entry.shape.split_first()?;
        let is_float = matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        let fits = match (self.part, rest) {
            ("weight", [_, _]) | ("bias", [_]) => is_float,
            ("blocks" | "scales", [_, ..]) => entry.dtype == Dtype::U8,
            _ => false,
        };
        let is_whole =
            (1..=MAX_EXPERTS).contains(&num_experts) && entry.bytes.len().is_multiple_of(num_experts);
        if !fits || !is_whole {
            return None;
        }
        let (first, len) = (entry.bytes.start, entry.bytes.len() / num_experts);
        let slices = (0..num_experts).map(|expert| first + expert * len..first + (expert + 1) * len);
        let mut shape = rest.to_vec();
        if self.is_transposed() {
            shape.reverse();
        }
        Some((shape, slices.collect()))
    }

    fn is_transposed(&self) -> bool {
        self.part == "weight"
    }
}

impl Weights {
    /// Puts the tensors of each expert in the place of stacked ones.
    ///
    /// # Errors
    /// An expert's tensor is there already.
    pub(super) fn split_stacks(&mut self) -> Result<(), WeightsError> {
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        for name in &names {
            let Some(stack) = Stack::of(name) else { continue };
            let slices = |tensor: &Tensor| stack.slices(&tensor.entry);
            let Some((shape, slices)) = self.tensors.get(name).and_then(slices) else {
                continue;
            };
            let Some(stacked) = self.tensors.remove(name) else {
                continue;
            };
            for (expert, bytes) in slices.into_iter().enumerate() {
                let entry = TensorEntry {
                    dtype: stacked.entry.dtype,
                    shape: shape.clone(),
                    bytes,
                };
                let tensor = Tensor {
                    shard: stacked.shard,
                    entry,
                    used: AtomicBool::new(false),
                    parts: BTreeMap::new(),
                    blocks: None,
                    transposed: stack.is_transposed(),
                };
                let own = stack.name_of(expert);
                if self.tensors.insert(own.clone(), tensor).is_some() {
                    return Err(WeightsError::Index {
                        path: self.dir.clone(),
                        problem: format!(
                            "tensor `{own}` is there both by itself and in `{name}`: which one counts is not known"
                        ),
                    });
                }
            }
        }
        Ok(())
    }

    /// The stacked tensors that may hold an expert's `name`, which is not there.
    pub(super) fn stacks_of(name: &str) -> Vec<String> {
        let within = |linear: &str| {
            let before = name
                .strip_suffix(".weight")
                .or_else(|| name.strip_suffix(".bias"))?;
            let (experts, number) = before.strip_suffix(linear)?.strip_suffix('.')?.rsplit_once('.')?;
            number.parse::<usize>().ok()?;
            Some(PARTS.map(|(end, _)| format!("{experts}.{linear}{end}")))
        };
        LINEARS
            .iter()
            .filter_map(|linear| within(linear))
            .flatten()
            .collect()
    }

    /// Bytes of some rows of a tensor that its file holds transposed.
    pub(super) fn transposed_rows(
        &self,
        (name, tensor): (&str, &Tensor),
        rows: Range<usize>,
    ) -> Result<Cow<'_, [u8]>, WeightsError> {
        let shape = match *tensor.entry.shape {
            [n, k] => (n, k),
            _ => (0, 0),
        };
        let size = tensor.entry.dtype.bitsize() / 8;
        let mut out = self.room(name, rows.len() * shape.1 * size)?;
        out.resize(rows.len() * shape.1 * size, 0);
        let stored = self.tensor_bytes(tensor);
        match size {
            2 => transpose::<2>(stored, shape, rows, &mut out),
            _ => transpose::<4>(stored, shape, rows, &mut out),
        }
        Ok(Cow::Owned(out))
    }
}

/// Rows of a matrix `[n, k]` of elements of so many bytes, which is stored as `[k, n]`.
fn transpose<const SIZE: usize>(stored: &[u8], (n, k): (usize, usize), rows: Range<usize>, out: &mut [u8]) {
    let (stored, out) = (stored.as_chunks::<SIZE>().0, out.as_chunks_mut::<SIZE>().0);
    if n == 0 || k == 0 {
        return;
    }
    let first = rows.clone().step_by(TRANSPOSED);
    for (first, out) in first.zip(out.chunks_mut(TRANSPOSED * k)) {
        for (column, stored) in stored.chunks_exact(n).enumerate() {
            let elements = &stored[first..rows.end.min(first + TRANSPOSED)];
            for (row, element) in out.chunks_exact_mut(k).zip(elements) {
                row[column] = *element;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stacks_become_those_of_experts() {
        for (name, own) in [
            (
                "model.layers.0.mlp.experts.gate_up_proj",
                Some("model.layers.0.mlp.experts.7.gate_up_proj.weight"),
            ),
            (
                "layers.0.mlp.experts.down_proj_bias",
                Some("layers.0.mlp.experts.7.down_proj.bias"),
            ),
            (
                "mlp.experts.down_proj_blocks",
                Some("mlp.experts.7.down_proj.blocks"),
            ),
            (
                "mlp.experts.gate_up_proj_scales",
                Some("mlp.experts.7.gate_up_proj.scales"),
            ),
            ("mlp.experts.gate_up_proj_other", None),
            ("mlp.experts.0.gate_up_proj", None),
            ("mlp.shared_experts.gate_up_proj", None),
            ("gate_up_proj", None),
        ] {
            let stack = Stack::of(name);
            assert_eq!(stack.map(|stack| stack.name_of(7)).as_deref(), own, "{name}");
        }
        let stacks = Weights::stacks_of("a.experts.12.down_proj.weight");
        assert!(
            stacks.contains(&"a.experts.down_proj".to_owned())
                && stacks.contains(&"a.experts.down_proj_blocks".to_owned())
        );
        assert!(Weights::stacks_of("a.experts.x.down_proj.weight").is_empty());
    }

    #[test]
    fn what_cannot_be_cut_stays() {
        let entry = |shape: &[usize], dtype, len: usize| TensorEntry {
            dtype,
            shape: shape.to_vec(),
            bytes: 10..10 + len,
        };
        let slices = |name: &str, entry: &TensorEntry| Stack::of(name).and_then(|stack| stack.slices(entry));
        let weight = entry(&[2, 3, 5], Dtype::F32, 120);
        let expected = (vec![5, 3], vec![10..70, 70..130]);
        assert_eq!(slices("experts.down_proj", &weight), Some(expected));
        for (name, entry) in [
            ("experts.down_proj", entry(&[], Dtype::F32, 4)),
            ("experts.down_proj", entry(&[0, 3, 5], Dtype::F32, 0)),
            ("experts.down_proj", entry(&[1 << 60, 0, 5], Dtype::F32, 0)),
            ("experts.down_proj", entry(&[2, 15], Dtype::F32, 120)),
            ("experts.down_proj", entry(&[2, 3, 5], Dtype::U8, 30)),
            ("experts.down_proj_blocks", entry(&[2, 3, 5], Dtype::F32, 120)),
            ("experts.down_proj_bias", entry(&[2], Dtype::F32, 8)),
        ] {
            assert_eq!(slices(name, &entry), None, "{name} {entry:?}");
        }
    }

    #[test]
    fn rows_are_columns_of_what_is_stored() {
        let (n, k) = (2 * TRANSPOSED + 3, 5);
        let stored: Vec<u8> = (0..n * k).flat_map(|v| (v as u16).to_le_bytes()).collect();
        for rows in [0..n, 1..2, 30..67, 4..4] {
            let mut out = vec![0; 2 * k * rows.len()];
            transpose::<2>(&stored, (n, k), rows.clone(), &mut out);
            let expected = rows.flat_map(|row| (0..k).map(move |column| (column * n + row) as u16));
            let expected: Vec<u8> = expected.flat_map(u16::to_le_bytes).collect();
            assert_eq!(out, expected);
        }
    }
}
