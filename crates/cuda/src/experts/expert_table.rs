//! Where the weights of each expert of a mixture lie, for kernels that learn on the card which experts were chosen.

use bytemuck::{Pod, Zeroable};

use crate::driver::{Buffer, Gpu};
use crate::error::CudaError;
use crate::fit::{count, exactly};
use crate::gemm::{PackedLinear, groups_per_block};
use crate::linear::{FloatKind, LinearFloat, LinearW8};

/// The weights of an expert.
#[derive(Clone, Copy)]
pub enum ExpertLinear<'a> {
    /// 4-bit weights, of any group size.
    W4(&'a PackedLinear),
    /// INT8 weights.
    W8(&'a LinearW8),
    /// Float weights.
    Float(&'a LinearFloat),
}

/// What an expert's weights are kept in: each has kernels of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpertWeightsKind {
    /// 4-bit weights.
    W4,
    /// INT8 weights.
    W8,
    /// Floats.
    Float(FloatKind),
}

impl ExpertWeightsKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::W4,
        Self::W8,
        Self::Float(FloatKind::F32),
        Self::Float(FloatKind::Bf16),
    ];

    /// Its number in the table and in a kernel's arguments.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::W4 => 0,
            Self::W8 => 1,
            Self::Float(FloatKind::F32) => 2,
            Self::Float(FloatKind::Bf16) => 3,
        }
    }
}

/// As `Expert` in cu/experts/experts.cuh.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Entry {
    weights: u64,
    s1: u64,
    bias: u64,
    kind: i32,
    groups: i32,
}

/// The experts of a mixture, in a card's memory. The linears themselves are the caller's, who keeps them.
pub struct ExpertTable {
    shape: (usize, usize),
    num_experts: usize,
    kinds: Vec<ExpertWeightsKind>,
    entries: Buffer,
}

impl ExpertLinear<'_> {
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::W4(linear) => linear.shape(),
            Self::W8(linear) => linear.shape(),
            Self::Float(linear) => linear.shape(),
        }
    }

    fn kind(&self) -> ExpertWeightsKind {
        match self {
            Self::W4(_) => ExpertWeightsKind::W4,
            Self::W8(_) => ExpertWeightsKind::W8,
            Self::Float(linear) => ExpertWeightsKind::Float(linear.kind()),
        }
    }

    fn entry(&self) -> Entry {
        let (weights, s1, bias) = match self {
            Self::W4(linear) => {
                let bias = linear.bias().map_or(0, Buffer::address);
                (linear.image().address(), linear.s1().address(), bias)
            }
            Self::W8(linear) => linear.addresses(),
            Self::Float(linear) => {
                let (weights, bias) = linear.addresses();
                (weights, 0, bias)
            }
        };
        let groups = match self {
            Self::W4(linear) => groups_per_block(linear.group()),
            Self::W8(_) | Self::Float(_) => 0,
        };
        Entry {
            weights,
            s1,
            bias,
            kind: self.kind().code(),
            groups: groups as i32,
        }
    }
}

impl ExpertTable {
    /// The table of some linears.
    ///
    /// # Errors
    /// No linear, linears of different shapes, float group scales, or no memory.
    pub fn new(gpu: &Gpu, linears: &[ExpertLinear<'_>]) -> Result<Self, CudaError> {
        count("experts", linears.len())?;
        let shape = linears[0].shape();
        let mut kinds = Vec::new();
        for linear in linears {
            let (n, k) = linear.shape();
            exactly("N of an expert", shape.0, n)?;
            exactly("K of an expert", shape.1, k)?;
            if let ExpertLinear::W4(linear) = linear {
                exactly(
                    "float group scales of an expert",
                    0,
                    usize::from(linear.has_float_scales()),
                )?;
            }
            if !kinds.contains(&linear.kind()) {
                kinds.push(linear.kind());
            }
        }
        let entries: Vec<Entry> = linears.iter().map(ExpertLinear::entry).collect();
        Ok(Self {
            shape,
            num_experts: linears.len(),
            kinds,
            entries: gpu.upload(&entries)?,
        })
    }

    /// Output features and input features of an expert.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// How many experts there are.
    pub fn num_experts(&self) -> usize {
        self.num_experts
    }

    /// What weights are kept in, each once.
    pub fn kinds(&self) -> &[ExpertWeightsKind] {
        &self.kinds
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        self.entries.len_bytes()
    }

    pub(crate) fn address(&self) -> u64 {
        self.entries.address()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<Entry>(), 32);
    }

    #[test]
    fn kinds_have_numbers_of_their_own() {
        let codes = ExpertWeightsKind::ALL.map(ExpertWeightsKind::code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }
}
