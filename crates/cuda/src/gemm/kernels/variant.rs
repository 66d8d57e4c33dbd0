//! A kernel in one of its sizes, whichever it is.

use std::fmt;

use dualgrain_format::GroupSize;

use super::gemm_w4a8_sm80::GemmSm80;
use super::gemm_w4a8_sm90::GemmSm90;
use super::gemm_w4f_sm90;
use super::gemv_w4a8_sm90::GemvSm90;
use super::geometry::Split;
use crate::compiler::Source;
use crate::cu;
use crate::driver::GpuInfo;
use crate::gemm::operands::{group_macro, knows_group};
use crate::gemm::problem::{GemmProblem, Output};

/// A kernel in one of its sizes: a row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `gemm_w4a8_sm90`.
    Gemm(GemmSm90),
    /// `gemv_w4a8_sm90`.
    Gemv(GemvSm90),
    /// `gemm_w4a8_sm80`.
    Ampere(GemmSm80),
    /// `gemm_w4f_sm90`, the product with float group scales: never enumerated, for comparison only.
    FloatScales(GemmSm90),
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gemm(gemm) => gemm.fmt(f),
            Self::Gemv(gemv) => gemv.fmt(f),
            Self::Ampere(ampere) => ampere.fmt(f),
            Self::FloatScales(gemm) => gemm.fmt(f),
        }
    }
}

impl Variant {
    /// The kernel's symbol, file, and key in records.
    pub fn kernel(&self) -> &'static str {
        match self {
            Self::Gemm(_) => "gemm_w4a8_sm90",
            Self::Gemv(_) => "gemv_w4a8_sm90",
            Self::Ampere(_) => "gemm_w4a8_sm80",
            Self::FloatScales(_) => "gemm_w4f_sm90",
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Gemm(_) => cu::GEMM_W4A8_SM90,
            Self::Gemv(_) => cu::GEMV_W4A8_SM90,
            Self::Ampere(_) => cu::GEMM_W4A8_SM80,
            Self::FloatScales(_) => cu::GEMM_W4F_SM90,
        }
    }

    /// Whether the kernel runs on a compute capability. wgmma is Hopper's alone.
    pub fn runs_on(&self, capability: (i32, i32)) -> bool {
        match self {
            Self::Gemm(_) | Self::FloatScales(_) => capability == (9, 0),
            Self::Gemv(_) | Self::Ampere(_) => capability >= (8, 0),
        }
    }

    /// Whether the kernel is compiled with these: its ring fits shared memory, its numbers fit registers.
    pub fn exists(&self, group: GroupSize, output: Output) -> bool {
        knows_group(group)
            && match self {
                Self::Gemm(gemm) => gemm.exists(group, output),
                Self::Gemv(gemv) => gemv.exists(group),
                Self::Ampere(_) => true,
                Self::FloatScales(gemm) => gemm_w4f_sm90::exists(gemm, group, output),
            }
    }

    /// Tokens of a tile.
    pub fn tile_m(&self) -> usize {
        match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.tile_m,
            Self::Gemv(gemv) => gemv.tile_m,
            Self::Ampere(ampere) => ampere.tile_m,
        }
    }

    /// Output features of a tile.
    pub fn tile_n(&self) -> usize {
        match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.tile_n(),
            Self::Gemv(gemv) => gemv.tile_n(),
            Self::Ampere(ampere) => ampere.tile_n(),
        }
    }

    /// Threads of a CTA.
    pub fn threads(&self) -> usize {
        match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.threads(),
            Self::Gemv(gemv) => gemv.threads(),
            Self::Ampere(ampere) => ampere.threads(),
        }
    }

    /// The text and macros to compile.
    pub fn source(&self, group: GroupSize, output: Output) -> Source {
        let mut macros = match self {
            Self::Gemm(gemm) | Self::FloatScales(gemm) => gemm.macros(group, output),
            Self::Gemv(gemv) => gemv.macros(),
            Self::Ampere(ampere) => ampere.macros(),
        };
        macros.extend([group_macro(group), ("OUT", output.code())]);
        Source {
            name: self.kernel(),
            text: self.text(),
            headers: cu::HEADERS,
            macros,
        }
    }

    /// Splits that it has.
    pub(crate) fn splits(&self) -> &'static [Split] {
        match self {
            Self::Gemm(gemm) => gemm.splits(),
            Self::Ampere(_) => &[Split::Whole, Split::All],
            Self::Gemv(_) | Self::FloatScales(_) => &[Split::Whole],
        }
    }

    /// Whether it can run a product on a card.
    pub fn can_run(&self, problem: &GemmProblem, gpu: &GpuInfo) -> bool {
        self.runs_on(gpu.capability)
            && self.exists(problem.group, problem.output)
            && match self {
                Self::Gemm(gemm) | Self::FloatScales(gemm) => {
                    gemm.shared_bytes(problem.group, problem.output) <= gpu.shared_bytes
                }
                Self::Gemv(gemv) => gemv.fits(problem, gpu),
                Self::Ampere(ampere) => ampere.shared_bytes(problem.group) <= gpu.shared_bytes,
            }
    }
}

/// Column at which a size's second part of K begins; `None` when one CTA does all of K, or the first part is empty, or group
/// scales are no floats.
pub fn float_scales_cut(variant: &Variant, k: usize) -> Option<usize> {
    match variant {
        Variant::FloatScales(gemm) => gemm_w4f_sm90::second_part(gemm, k),
        Variant::Gemm(_) | Variant::Gemv(_) | Variant::Ampere(_) => None,
    }
}
