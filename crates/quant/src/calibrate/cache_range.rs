//! Whether a cache can hold the keys and values that calibration saw.

use std::ops::RangeInclusive;

use dualgrain_format::CacheScheme;

use crate::error::QuantError;

/// Half-precision floats: beyond they saturate, below they lose bits and vanish.
const F16: RangeInclusive<f32> = 6.104e-5..=65_504.0;
/// One scale for all tokens: a 127th of the largest magnitude, which floats must hold with all its bits.
const STATIC: RangeInclusive<f32> = 127.0 * f32::MIN_POSITIVE..=f32::MAX;

/// Refuses a cache for a block whose largest keys and values it can not hold.
///
/// # Errors
/// [`QuantError::CacheRange`].
pub fn check(layer: usize, scheme: CacheScheme, [keys, values]: [f32; 2]) -> Result<(), QuantError> {
    let (cache, range) = match scheme {
        CacheScheme::F16 => ("f16", F16),
        CacheScheme::Int8Static => ("int8-static", STATIC),
        CacheScheme::Int8 => return Ok(()),
    };
    // Zeros are held by every cache.
    let lost = [("keys", keys), ("values", values)]
        .into_iter()
        .find(|(_, largest)| *largest != 0.0 && !range.contains(largest));
    match lost {
        None => Ok(()),
        Some((what, largest)) => Err(QuantError::CacheRange {
            layer,
            what,
            largest,
            cache,
            least: *range.start(),
            most: *range.end(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cache_cannot_hold_is_refused_and_what_it_can_is_not() {
        let said = |scheme, maxima| check(3, scheme, maxima).map_err(|error| error.to_string());
        for maxima in [[1.0, 65_504.0], [0.0, 0.0], [1e-4, 20.0]] {
            assert!(said(CacheScheme::F16, maxima).is_ok(), "{maxima:?}");
        }
        let error = said(CacheScheme::F16, [7e4, 1.0]).unwrap_err();
        assert!(
            error.contains("block 3") && error.contains("keys") && error.contains("--kv int8"),
            "{error}"
        );
        let error = said(CacheScheme::F16, [1.0, 1e-6]).unwrap_err();
        assert!(error.contains("values") && error.contains("1e-6"), "{error}");
        assert!(said(CacheScheme::Int8Static, [7e4, 1e-30]).is_ok());
        assert!(said(CacheScheme::Int8Static, [1.0, 1e-40]).is_err());
        assert!(said(CacheScheme::Int8Static, [f32::INFINITY, 1.0]).is_err());
        assert!(said(CacheScheme::Int8, [1e30, 1e-40]).is_ok());
    }
}
