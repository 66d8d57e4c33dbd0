//! Floats of eight bits: E4M3 without infinities (arXiv 2209.05433), as `F8_E4M3` of safetensors means it.

/// The value of an F8_E4M3 byte: a sign, four bits of exponent with bias 7, three of mantissa; all bits set is no number.
pub(super) fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 7),
    };
    sign * size
}

/// The values of all bytes.
pub(super) fn table() -> [f32; 256] {
    std::array::from_fn(|byte| e4m3(byte as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_mean_what_the_paper_says() {
        for (byte, value) in [
            (0x00, 0.0),
            (0x01, 2_f32.powi(-9)),
            (0x08, 2_f32.powi(-6)),
            (0x38, 1.0),
            (0xb9, -1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        assert!(e4m3(0x80).is_sign_negative());
    }
}
