//! The float scale and the zero point of a group, before its scale becomes an integer.

use dualgrain_format::GroupSize;

use crate::methods::quantization_grid::zero_range;

/// Scale and zero point of one group of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupScale {
    /// Float scale of the group; 0 for a group of zeros.
    pub scale: f32,
    /// Zero point, 0..=15.
    pub zero: u8,
}

/// The range of a group before it is shrunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupRange {
    /// `(max - min) / 15`.
    scale: f32,
    zero: u8,
}

impl GroupRange {
    /// The range of `weights`, zero included. `zero = round(-min / scale)`: a ratio shrinks both and cancels.
    pub fn new(weights: &[f32]) -> Self {
        let range = zero_range(weights);
        let width = f64::from(range.end) - f64::from(range.start);
        if width <= 0.0 {
            return Self { scale: 0.0, zero: 0 };
        }
        Self {
            scale: (width / 15.0) as f32,
            zero: (-15.0 * f64::from(range.start) / width).round_ties_even() as u8,
        }
    }

    /// The scale that covers `ratio` of the range.
    pub fn shrunk(&self, ratio: f32) -> GroupScale {
        GroupScale {
            scale: self.scale * ratio,
            zero: self.zero,
        }
    }
}

/// The whole range of every group of `weights` `[N,K]`: [N, groups].
pub fn whole_ranges(weights: &[f32], k: usize, group_size: GroupSize) -> Vec<GroupScale> {
    let groups = 0..group_size.num_groups(k);
    weights
        .chunks_exact(k)
        .flat_map(|row| {
            groups
                .clone()
                .map(|g| GroupRange::new(&row[group_size.range(g, k)]).shrunk(1.0))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_one_sign_keep_their_zero_point_inside_four_bits() {
        let positive = GroupRange::new(&[3.0, 4.0, 5.0]);
        let negative = GroupRange::new(&[-3.0, -4.0, -5.0]);
        assert_eq!((positive.zero, negative.zero), (0, 15));
        assert_eq!(GroupRange::new(&[0.0; 4]).scale, 0.0);
    }
}
