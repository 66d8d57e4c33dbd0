//! Everything that can be wrong with quantized tensors, each cause with what was expected and what came.

use thiserror::Error;

/// Why a tensor, a layer or a shape was refused.
#[derive(Debug, Error, PartialEq)]
pub enum FormatError {
    /// A dimension is zero or larger than the arithmetic allows.
    #[error("{what}: {got} is outside {expected}")]
    Dimension {
        /// Which dimension.
        what: &'static str,
        /// The allowed range, in words.
        expected: &'static str,
        /// The value found.
        got: usize,
    },
    /// A word that is no group size.
    #[error("group size `{got}` is not 32, 64, 128 or channel")]
    GroupSize {
        /// The word.
        got: String,
    },
    /// A buffer does not hold as many elements as the shape says.
    #[error("{what}: expected {expected} elements, got {got}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements the shape asks for.
        expected: usize,
        /// Elements present.
        got: usize,
    },
    /// `s2 * (q - zero)` leaves -127..=127, so integer inference would overflow its int8 operand.
    #[error(
        "weight (row {row}, column {column}) is {got}, outside -127..=127 (group scale {group_scale}, q {q}, zero {zero})"
    )]
    Int8Guard {
        /// Output channel.
        row: usize,
        /// Position along K.
        column: usize,
        /// `s2 * (q - zero)`.
        got: i32,
        /// The group scale.
        group_scale: u8,
        /// The 4-bit code.
        q: u8,
        /// The group zero point.
        zero: u8,
    },
    /// A group scale is 0 or above 127.
    #[error("group scale (row {row}, group {group}) is {got}, outside 1..=127")]
    GroupScale {
        /// Output channel.
        row: usize,
        /// Group along K.
        group: usize,
        /// The value found.
        got: u8,
    },
    /// A float that must be finite (and, for a scale, not negative) is not.
    #[error("{what}[{index}] is {got}, expected a finite number{}", if *.non_negative { " >= 0" } else { "" })]
    NotFinite {
        /// Which tensor.
        what: &'static str,
        /// Flat index of the element.
        index: usize,
        /// The value found.
        got: f32,
        /// Whether negative values are refused too.
        non_negative: bool,
    },
    /// Padding holds something else than the value the format prescribes.
    #[error("{what}: padding nibble of row {row} is {got}, expected {expected}")]
    Padding {
        /// Which tensor.
        what: &'static str,
        /// The row.
        row: usize,
        /// The prescribed value.
        expected: u8,
        /// The value found.
        got: u8,
    },
    /// A text is no scheme of a linear.
    #[error("`{got}` is no scheme of a linear: expected float, w8, w4/32, w4/64, w4/128 or w4/channel")]
    LinearScheme {
        /// The text.
        got: String,
    },
    /// Layers that should be joined along N differ in what must be equal.
    #[error("cannot join linears along N: {what} differ ({left} and {right})")]
    Join {
        /// The property.
        what: &'static str,
        /// Value in the first layer.
        left: String,
        /// Value in the other.
        right: String,
    },
}

impl FormatError {
    /// The same of a layer whose rows from `first` on were checked: places count from the layer's beginning.
    #[must_use]
    pub fn with_rows_from(mut self, first: usize) -> Self {
        match &mut self {
            Self::Int8Guard { row, .. } | Self::GroupScale { row, .. } | Self::Padding { row, .. } => {
                *row += first;
            }
            Self::NotFinite {
                what: "s1" | "bias",
                index,
                ..
            } => *index += first,
            _ => {}
        }
        self
    }
}
