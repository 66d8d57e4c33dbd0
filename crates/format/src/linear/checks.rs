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

/// Refuses layers that differ in what joining asks to be equal.
pub(crate) fn check_all_same<T: PartialEq + std::fmt::Debug>(
    what: &'static str,
    mut values: impl Iterator<Item = T>,
) -> Result<(), FormatError> {
    let Some(first) = values.next() else {
        return Ok(());
    };
    match values.find(|value| *value != first) {
        None => Ok(()),
        Some(other) => Err(FormatError::Join {
            what,
            left: format!("{first:?}"),
            right: format!("{other:?}"),
        }),
    }
}

/// What joining nothing gives.
pub(crate) fn no_layers() -> FormatError {
    FormatError::Length {
        what: "layers to join",
        expected: 1,
        got: 0,
    }
}

/// Refuses rows that a layer of `n` rows does not have.
pub(crate) fn check_rows(rows: &[usize], n: usize) -> Result<(), FormatError> {
    match rows.iter().find(|&&row| row >= n) {
        None => Ok(()),
        Some(&got) => Err(FormatError::Dimension {
            what: "row",
            expected: "the layer's rows",
            got,
        }),
    }
}
