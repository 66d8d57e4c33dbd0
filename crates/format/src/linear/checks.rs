//! What every scheme asks of its sides and buffers.

use crate::error::FormatError;
use crate::gemm_shape::K_MAX;

/// `n * k`, refused when a side is zero, K too long for i32 sums, or the product overflows.
pub(crate) fn elements(n: usize, k: usize) -> Result<usize, FormatError> {
    if n == 0 {
        return Err(FormatError::Dimension {
            what: "N",
            expected: "1 and more",
            got: n,
        });
    }
    if k == 0 || k > K_MAX {
        return Err(FormatError::Dimension {
            what: "K",
            expected: "1..=131071",
            got: k,
        });
    }
    n.checked_mul(k).ok_or(FormatError::Dimension {
        what: "N",
        expected: "N * K in memory",
        got: n,
    })
}

pub(crate) fn check_len(what: &'static str, got: usize, expected: usize) -> Result<(), FormatError> {
    if got == expected {
        Ok(())
    } else {
        Err(FormatError::Length { what, expected, got })
    }
}

pub(crate) fn check_finite(
    what: &'static str,
    values: impl Iterator<Item = f32>,
    non_negative: bool,
) -> Result<(), FormatError> {
    for (index, got) in values.enumerate() {
        if !got.is_finite() || (non_negative && got < 0.0) {
            return Err(FormatError::NotFinite {
                what,
                index,
                got,
                non_negative,
            });
        }
    }
    Ok(())
}

pub(crate) fn check_bias(bias: &Option<Vec<f32>>, n: usize) -> Result<(), FormatError> {
    let Some(bias) = bias else { return Ok(()) };
    check_len("bias", bias.len(), n)?;
    check_finite("bias", bias.iter().copied(), false)
}

pub(crate) fn check_scales(
    s1: &[f32],
    n: usize,
    bias: &Option<Vec<f32>>,
    ta: Option<f32>,
) -> Result<(), FormatError> {
    check_len("s1", s1.len(), n)?;
    check_finite("s1", s1.iter().copied(), true)?;
    check_bias(bias, n)?;
    check_finite("ta", ta.into_iter(), true)
}
