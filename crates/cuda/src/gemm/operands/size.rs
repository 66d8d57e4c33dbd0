//! Sizes that the kernels can count.

use crate::error::CudaError;

/// Sizes are 32-bit on the card.
pub(crate) fn count(what: &'static str, size: usize) -> Result<usize, CudaError> {
    match i32::try_from(size) {
        // Rounding up to a tile must not overflow either.
        Ok(1..=0x7fff_0000) => Ok(size),
        _ => Err(CudaError::TooLarge { what, got: size }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_32_bits_and_none_at_all_are_refused() {
        assert_eq!(count("N", 7), Ok(7));
        assert!(count("N", 0).is_err());
        assert!(count("N", 1 << 31).is_err());
    }
}
