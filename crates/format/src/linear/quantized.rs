//! The dual-grained 4-bit layer this project is about: codes, group zero points and integer scales, channel scales.

use crate::error::FormatError;
use crate::group_size::GroupSize;
use crate::int4;
use crate::linear::bias::join_biases;
use crate::linear::checks::{check_all_same, check_len, check_rows, check_scales, elements, no_layers};
use crate::weight::{GROUP_SCALES, INT8_RANGE, int8_weight};

/// The tensors of a dual-grained layer before they are checked; see [`QuantizedLinear::new`].
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedParts {
    /// 4-bit codes, packed rows: [N, ceil(K/2)] bytes.
    pub q: Vec<u8>,
    /// Group zero points, packed rows: [N, ceil(groups/2)] bytes.
    pub zero: Vec<u8>,
    /// Group scales [N, groups], 1..=127.
    pub s2: Vec<u8>,
    /// Channel scales `[N]`.
    pub s1: Vec<f32>,
    /// Bias `[N]`.
    pub bias: Option<Vec<f32>>,
    /// Static per-tensor activation scale; `None` means per-token.
    pub ta: Option<f32>,
}

/// A dual-grained 4-bit layer whose int8 weights are proved to lie in -127..=127.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedLinear {
    n: usize,
    k: usize,
    group_size: GroupSize,
    parts: QuantizedParts,
}

impl QuantizedLinear {
    /// The only constructor: checks lengths, group scales, padding, finiteness, and the int8 guard
    /// `|s2 * (q - zero)| <= 127` of every weight.
    ///
    /// # Errors
    /// The first violation found, with its place.
    pub fn new(
        (n, k): (usize, usize),
        group_size: GroupSize,
        parts: QuantizedParts,
    ) -> Result<Self, FormatError> {
        elements(n, k)?;
        let groups = group_size.num_groups(k);
        check_len("q", parts.q.len(), elements(n, int4::row_bytes(k))?)?;
        check_len("zero", parts.zero.len(), elements(n, int4::row_bytes(groups))?)?;
        check_len("s2", parts.s2.len(), elements(n, groups)?)?;
        check_scales(&parts.s1, n, &parts.bias, parts.ta)?;
        let linear = Self {
            n,
            k,
            group_size,
            parts,
        };
        (0..n).try_for_each(|row| linear.check_row(row))?;
        Ok(linear)
    }

    fn check_row(&self, row: usize) -> Result<(), FormatError> {
        let (q, zeros, scales) = (self.q_row(row), self.zero_row(row), self.s2_row(row));
        for (group, &group_scale) in scales.iter().enumerate() {
            if !GROUP_SCALES.contains(&group_scale) {
                return Err(FormatError::GroupScale {
                    row,
                    group,
                    got: group_scale,
                });
            }
            let (zero, columns) = (int4::at(zeros, group), self.group_size.range(group, self.k));
            let (least, most) = int4::extremes(q, columns.clone());
            let weight = |code: u8| int8_weight(code, zero, group_scale);
            let outside = |code: u8| !INT8_RANGE.contains(&weight(code));
            if (outside(least) || outside(most))
                && let Some(column) = columns.into_iter().find(|&column| outside(int4::at(q, column)))
            {
                let code = int4::at(q, column);
                return Err(FormatError::Int8Guard {
                    row,
                    column,
                    got: weight(code),
                    group_scale,
                    q: code,
                    zero,
                });
            }
        }
        let last_zero = int4::at(zeros, scales.len() - 1);
        check_padding("q", row, q, self.k, last_zero)?;
        check_padding("zero", row, zeros, scales.len(), 0)
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Elements along K that share a group scale.
    pub fn group_size(&self) -> GroupSize {
        self.group_size
    }

    /// Groups in a row.
    pub fn num_groups(&self) -> usize {
        self.group_size.num_groups(self.k)
    }

    /// The checked tensors.
    pub fn parts(&self) -> &QuantizedParts {
        &self.parts
    }

    /// Packed codes of a row: ceil(K/2) bytes.
    pub fn q_row(&self, row: usize) -> &[u8] {
        let bytes = int4::row_bytes(self.k);
        &self.parts.q[row * bytes..(row + 1) * bytes]
    }

    /// Packed zero points of a row: ceil(groups/2) bytes.
    pub fn zero_row(&self, row: usize) -> &[u8] {
        let bytes = int4::row_bytes(self.num_groups());
        &self.parts.zero[row * bytes..(row + 1) * bytes]
    }

    /// Group scales of a row.
    pub fn s2_row(&self, row: usize) -> &[u8] {
        let groups = self.num_groups();
        &self.parts.s2[row * groups..(row + 1) * groups]
    }

    /// Channel scales `[N]`.
    pub fn s1(&self) -> &[f32] {
        &self.parts.s1
    }

    /// Bias `[N]`.
    pub fn bias(&self) -> Option<&[f32]> {
        self.parts.bias.as_deref()
    }

    /// Static per-tensor activation scale; `None` means per-token.
    pub fn ta(&self) -> Option<f32> {
        self.parts.ta
    }

    /// The int8 weights of a row, `s2 * (q - zero)`.
    pub fn w8_row(&self, row: usize, w8: &mut [i8]) {
        let (q, zeros, scales) = (self.q_row(row), self.zero_row(row), self.s2_row(row));
        for (group, &scale) in scales.iter().enumerate() {
            let zero = int4::at(zeros, group);
            for column in self.group_size.range(group, self.k) {
                w8[column] = int8_weight(int4::at(q, column), zero, scale) as i8;
            }
        }
    }

    /// Stored bits of the layer: codes, zero points, group and channel scales (bias left out, as in any scheme).
    pub fn stored_bits(&self) -> u64 {
        let p = &self.parts;
        8 * (p.q.len() + p.zero.len() + p.s2.len() + 4 * p.s1.len()) as u64
    }

    /// The rows of `rows`, in that order (slicing along N is free in this format).
    ///
    /// # Errors
    /// A row index outside the layer, or no rows at all.
    pub fn select_rows(&self, rows: &[usize]) -> Result<Self, FormatError> {
        check_rows(rows, self.n)?;
        elements(rows.len(), self.k)?;
        let gather = |f: &dyn Fn(usize) -> Vec<u8>| rows.iter().flat_map(|&row| f(row)).collect();
        let parts = QuantizedParts {
            q: gather(&|row| self.q_row(row).to_vec()),
            zero: gather(&|row| self.zero_row(row).to_vec()),
            s2: gather(&|row| self.s2_row(row).to_vec()),
            s1: rows.iter().map(|&row| self.parts.s1[row]).collect(),
            bias: self
                .bias()
                .map(|bias| rows.iter().map(|&row| bias[row]).collect()),
            ta: self.parts.ta,
        };
        Ok(Self {
            n: rows.len(),
            k: self.k,
            group_size: self.group_size,
            parts,
        })
    }

    /// Joins layers that read the same input along N (q, k and v; gate and up). A missing bias among present ones
    /// becomes zeros.
    ///
    /// # Errors
    /// [`FormatError::Join`] when K, group size or static activation scale differ; no layers at all.
    pub fn join(layers: &[Self]) -> Result<Self, FormatError> {
        let Some(first) = layers.first() else {
            return Err(no_layers());
        };
        check_all_same("K", layers.iter().map(|l| l.k))?;
        check_all_same("group sizes", layers.iter().map(|l| l.group_size))?;
        check_all_same("static activation scales", layers.iter().map(|l| l.parts.ta))?;
        let gather = |f: &dyn Fn(&Self) -> &[u8]| layers.iter().map(f).collect::<Vec<_>>().concat();
        let parts = QuantizedParts {
            q: gather(&|l| &l.parts.q),
            zero: gather(&|l| &l.parts.zero),
            s2: gather(&|l| &l.parts.s2),
            s1: layers.iter().flat_map(|l| l.parts.s1.clone()).collect(),
            bias: join_biases(layers.iter().map(|l| (l.bias(), l.n))),
            ta: first.parts.ta,
        };
        Ok(Self {
            n: layers.iter().map(|l| l.n).sum(),
            k: first.k,
            group_size: first.group_size,
            parts,
        })
    }
}

fn check_padding(
    what: &'static str,
    row: usize,
    packed: &[u8],
    len: usize,
    expected: u8,
) -> Result<(), FormatError> {
    if len.is_multiple_of(2) {
        return Ok(());
    }
    let got = int4::at(packed, len);
    if got == expected {
        Ok(())
    } else {
        Err(FormatError::Padding {
            what,
            row,
            expected,
            got,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row of three weights in one group: s2 = 10, zero = 8, q = 0, 8, 15.
    fn parts() -> QuantizedParts {
        QuantizedParts {
            q: vec![0x80, 0x8f],
            zero: vec![8],
            s2: vec![10],
            s1: vec![0.5],
            bias: None,
            ta: None,
        }
    }

    fn build(parts: QuantizedParts) -> Result<QuantizedLinear, FormatError> {
        QuantizedLinear::new((1, 3), GroupSize::Along(128), parts)
    }

    #[test]
    fn int8_weights_follow_from_code_zero_and_group_scale() {
        let mut w8 = [0; 3];
        build(parts()).unwrap().w8_row(0, &mut w8);
        assert_eq!(w8, [-80, 0, 70]);
    }

    #[test]
    fn int8_guard_names_the_first_offending_weight() {
        let error = build(QuantizedParts {
            s2: vec![16],
            ..parts()
        })
        .unwrap_err();
        assert!(
            matches!(
                error,
                FormatError::Int8Guard {
                    row: 0,
                    column: 0,
                    got: -128,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn padding_must_equal_the_zero_point_of_the_last_group() {
        let error = build(QuantizedParts {
            q: vec![0x80, 0x0f],
            ..parts()
        })
        .unwrap_err();
        assert_eq!(
            error,
            FormatError::Padding {
                what: "q",
                row: 0,
                expected: 8,
                got: 0
            }
        );
    }

    #[test]
    fn scales_out_of_range_are_refused() {
        assert!(
            build(QuantizedParts {
                s2: vec![0],
                ..parts()
            })
            .is_err()
        );
        assert!(
            build(QuantizedParts {
                s2: vec![128],
                ..parts()
            })
            .is_err()
        );
        assert!(
            build(QuantizedParts {
                s1: vec![f32::NAN],
                ..parts()
            })
            .is_err()
        );
        assert!(
            build(QuantizedParts {
                ta: Some(f32::INFINITY),
                ..parts()
            })
            .is_err()
        );
    }

    #[test]
    fn joined_layers_select_back_to_the_originals() {
        let (a, b) = (
            build(parts()).unwrap(),
            build(QuantizedParts {
                s2: vec![3],
                ..parts()
            })
            .unwrap(),
        );
        let joined = QuantizedLinear::join(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(joined.n(), 2);
        assert_eq!(joined.select_rows(&[1]).unwrap(), b);
        assert_eq!(joined.select_rows(&[0]).unwrap(), a);
    }
}
