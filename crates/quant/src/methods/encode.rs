//! From rows with their scales to the layer that is stored.

use dualgrain_format::{FormatError, QuantizedLinear, QuantizedParts, int4};

use crate::methods::grouped_row::GroupedRow;
use crate::methods::method::LinearTask;

/// Writes codes and scales of `rows`, whose channel scales are `s1` `[N]`.
///
/// # Errors
/// A layer that breaks the number format, which would be a bug of the method.
pub fn encode(
    task: &LinearTask<'_>,
    rows: &[GroupedRow<'_>],
    s1: &[f32],
) -> Result<QuantizedLinear, FormatError> {
    let k = task.rows.k;
    let mut parts = QuantizedParts {
        q: Vec::with_capacity(rows.len() * int4::row_bytes(k)),
        zero: Vec::new(),
        s2: Vec::new(),
        s1: s1.to_vec(),
        bias: task.rows.bias.map(<[f32]>::to_vec),
        ta: task.ta(),
    };
    for (row, &s1) in rows.iter().zip(s1) {
        encode_row(row, s1, &mut parts);
    }
    QuantizedLinear::new((rows.len(), k), task.group_size, parts)
}

fn encode_row(row: &GroupedRow<'_>, s1: f32, parts: &mut QuantizedParts) {
    let (mut codes, mut zeros) = (Vec::new(), Vec::with_capacity(row.num_groups()));
    for group in 0..row.num_groups() {
        let (weights, zero) = (row.slice(group), row.zero(group));
        let start = codes.len();
        codes.resize(start + weights.len(), 0);
        row.grid(group, s1).codes(zero, weights, &mut codes[start..]);
        zeros.push(zero);
        parts.s2.push(row.s2(group, s1));
    }
    let padding = zeros.last().copied().unwrap_or(0);
    int4::pack_row(&codes, padding, &mut parts.q);
    int4::pack_row(&zeros, 0, &mut parts.zero);
}
