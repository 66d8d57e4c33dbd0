//! A linear of another program, in the terms that all of their formats have in common.

use std::ops::Range;

use super::error::ForeignError;
use super::part::Floats;
use super::small_floats::{e2m1, e4m3_table};
use super::words::{Words, code_at, fill};

/// A linear `[n,k]` that another program packed, checked but for the values of its scales; rows become floats one by one.
#[derive(Debug)]
pub struct PackedLinear<'a> {
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) codes: Codes<'a>,
    pub(super) scales: Scales<'a>,
    pub(super) zeros: Zeros<'a>,
    pub(super) groups: Groups,
}

/// Where the code of output n and input k lies.
#[derive(Debug)]
pub(super) enum Codes<'a> {
    /// Words `[ceil(k * bits / 32), n]`: codes follow each other along the inputs.
    AlongInputs { words: Words<'a>, bits: u32 },
    /// Words `[n, ceil(k * bits / 32)]`, each row by itself.
    Rows { words: Words<'a>, bits: u32 },
    /// Words `[k, n / 8]`: eight outputs of one input, in the order [`PLACES`].
    Interleaved(Words<'a>),
    /// `[n, k]` signed bytes.
    Int8(&'a [u8]),
    /// `[n, k]` floats of eight bits.
    Float8(&'a [u8], Box<[f32; 256]>),
    /// `[n, k / 2]` pairs of floats of four bits, the first in the low half.
    Float4(&'a [u8]),
}

/// The nibble of a word in which AWQ keeps each of eight neighbours.
pub(super) const PLACES: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Scales of groups.
#[derive(Debug)]
pub(super) struct Scales<'a> {
    pub name: &'static str,
    pub values: Floats<'a>,
    /// Neighbouring outputs that share a row of scales.
    pub outputs: usize,
    /// How far apart the scales of neighbouring rows and groups lie.
    pub strides: [usize; 2],
}

/// Zero points of groups.
#[derive(Debug)]
pub(super) enum Zeros<'a> {
    /// One for all.
    One(f32),
    /// Words `[groups, ceil(n * bits / 32)]`, codes along the outputs; `less_one` where each is stored less 1.
    AlongOutputs {
        words: Words<'a>,
        bits: u32,
        less_one: bool,
    },
    /// Words `[groups, n / 8]` in the order [`PLACES`].
    Interleaved(Words<'a>),
    /// Words `[ceil(n * bits / 32), groups]`, codes along the outputs.
    Columns { words: Words<'a>, bits: u32 },
    /// Signed bytes, placed as the scales are; `zero` is the code that they count from.
    Int8 { bytes: &'a [u8], zero: f32 },
}

/// Which group an input belongs to.
#[derive(Debug)]
pub(super) enum Groups {
    /// Runs of so many inputs.
    Runs(usize),
    /// The group of each input.
    Listed(Vec<usize>),
}

impl PackedLinear<'_> {
    /// `[n, k]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// Writes the weights of some rows, one after the other, into `out` `[rows.len(), k]`.
    ///
    /// # Errors
    /// A scale that is not finite.
    ///
    /// # Panics
    /// When `rows` are not rows of the linear, or `out` has another length.
    pub fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), ForeignError> {
        assert!(
            rows.end <= self.n && out.len() == rows.len() * self.k,
            "rows of the linear"
        );
        let mut factors = vec![(0.0, 0.0); self.num_groups()];
        for (row, out) in rows.zip(out.chunks_exact_mut(self.k)) {
            self.read_factors(row, &mut factors)?;
            self.read_codes(row, out);
            self.scale(&factors, out);
        }
        Ok(())
    }

    fn num_groups(&self) -> usize {
        match &self.groups {
            Groups::Runs(len) => self.k.div_ceil(*len),
            Groups::Listed(groups) => groups.iter().max().map_or(0, |last| last + 1),
        }
    }

    /// Zero point and scale of each group of a row.
    fn read_factors(&self, row: usize, factors: &mut [(f32, f32)]) -> Result<(), ForeignError> {
        let Scales { strides, outputs, .. } = self.scales;
        for (group, factor) in factors.iter_mut().enumerate() {
            let place = row / outputs * strides[0] + group * strides[1];
            let scale = self.scales.values.at(place);
            if !scale.is_finite() {
                return Err(ForeignError::Scale {
                    part: self.scales.name,
                    row,
                    group,
                    got: scale,
                });
            }
            *factor = (self.zeros.at(row, group, place), scale);
        }
        Ok(())
    }

    fn read_codes(&self, row: usize, out: &mut [f32]) {
        let bytes = |bytes: &[u8]| row * self.k..((row + 1) * self.k).min(bytes.len());
        match &self.codes {
            Codes::AlongInputs { words, bits } => fill(out, *bits, (0..).map(|at| words.at(at, row))),
            Codes::Rows { words, bits } => fill(out, *bits, (0..).map(|at| words.at(row, at))),
            Codes::Interleaved(words) => {
                for (k, value) in out.iter_mut().enumerate() {
                    *value = nibble(words.at(k, row / 8), row) as f32;
                }
            }
            Codes::Int8(codes) => {
                let codes = codes[bytes(codes)]
                    .iter()
                    .map(|byte| f32::from(byte.cast_signed()));
                out.iter_mut().zip(codes).for_each(|(value, code)| *value = code);
            }
            Codes::Float8(codes, table) => {
                let codes = codes[bytes(codes)].iter().map(|&byte| table[usize::from(byte)]);
                out.iter_mut().zip(codes).for_each(|(value, code)| *value = code);
            }
            Codes::Float4(codes) => {
                let (pairs, len) = (out.as_chunks_mut::<2>().0, self.k / 2);
                for (pair, byte) in pairs.iter_mut().zip(&codes[row * len..(row + 1) * len]) {
                    *pair = [e2m1(*byte), e2m1(byte >> 4)];
                }
            }
        }
    }

    fn scale(&self, factors: &[(f32, f32)], out: &mut [f32]) {
        match &self.groups {
            Groups::Runs(len) => {
                for (run, &(zero, scale)) in out.chunks_mut(*len).zip(factors) {
                    run.iter_mut().for_each(|value| *value = (*value - zero) * scale);
                }
            }
            Groups::Listed(groups) => {
                for (value, &group) in out.iter_mut().zip(groups) {
                    let (zero, scale) = factors[group];
                    *value = (*value - zero) * scale;
                }
            }
        }
    }
}

impl<'a> Codes<'a> {
    pub fn float8(bytes: &'a [u8]) -> Self {
        Self::Float8(bytes, Box::new(e4m3_table()))
    }
}

/// The code of an output among eight that share a word.
fn nibble(word: u32, output: usize) -> u32 {
    word >> (4 * PLACES[output % 8]) & 15
}

impl Zeros<'_> {
    /// The zero point of a row and a group whose scale lies at `place`.
    fn at(&self, row: usize, group: usize, place: usize) -> f32 {
        match self {
            Self::One(zero) => *zero,
            Self::AlongOutputs {
                words,
                bits,
                less_one,
            } => zero_along_outputs(row, *bits, *less_one, |at| words.at(group, at)) as f32,
            Self::Interleaved(words) => nibble(words.at(group, row / 8), row) as f32,
            Self::Columns { words, bits } => code_at(row, *bits, |at| words.at(at, group)) as f32,
            Self::Int8 { bytes, zero } => zero + f32::from(bytes[place].cast_signed()),
        }
    }
}

/// A zero point of GPTQ. Programs that write it less 1 take 1 from every code of a word at once, so that a zero point of 0 borrows from
/// its neighbour: adding to the word gives back all of them. Codes of three bits lie across words and are changed each by itself.
fn zero_along_outputs(output: usize, bits: u32, less_one: bool, word: impl Fn(usize) -> u32) -> u32 {
    if !less_one {
        return code_at(output, bits, word);
    }
    if 32 % bits != 0 {
        return (code_at(output, bits, word) + 1) & ((1 << bits) - 1);
    }
    let ones = u32::MAX / ((1 << bits) - 1);
    code_at(output, bits, |at| word(at).wrapping_add(ones))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_points_of_0_survive_being_stored_less_1() {
        let zeros = [0_u32, 8, 0, 15, 1, 0, 7, 0];
        let packed = zeros.iter().rev().fold(0_u32, |word, zero| word << 4 | zero);
        let stored = packed.wrapping_sub(0x1111_1111);
        for (output, &zero) in zeros.iter().enumerate() {
            assert_eq!(zero_along_outputs(output, 4, true, |_| stored), zero);
            assert_eq!(zero_along_outputs(output, 4, false, |_| packed), zero);
        }
        assert_eq!(zero_along_outputs(3, 8, true, |_| 0x7f7f_7f7f), 128);
        assert_eq!(zero_along_outputs(0, 3, true, |_| 7), 0);
    }
}
