//! Floats of four and eight bits: E4M3 without infinities (arXiv 2209.05433), as `F8_E4M3` of safetensors means it; E2M1, and
//! exponents alone (E8M0), of the OCP Microscaling Formats.

/// The value of an F8_E4M3 byte: a sign, four bits of exponent with bias 7, three of mantissa; all bits set is no number.
fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 7),
    };
    sign * size
}

/// The values of all E4M3 bytes.
pub(super) fn e4m3_table() -> [f32; 256] {
    std::array::from_fn(|byte| e4m3(byte as u8))
}

/// The values of E2M1 codes without a sign, which is the highest of four bits.
const SIZES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The value of a code, its lowest four bits.
pub(super) fn e2m1(code: u8) -> f32 {
    let size = SIZES[usize::from(code & 7)];
    if code & 8 == 0 { size } else { -size }
}

/// `2^(byte - 127)`; infinite for 255, which is no number.
pub(super) fn e8m0(byte: u8) -> f32 {
    match byte {
        // No normal float.
        0 => f32::from_bits(1 << 22),
        _ => f32::from_bits(u32::from(byte) << 23),
    }
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

    #[test]
    fn codes_and_exponents_mean_what_the_formats_say() {
        let codes: Vec<f32> = (0..16).map(e2m1).collect();
        assert_eq!(codes[..8], SIZES);
        assert!(codes[8..].iter().zip(SIZES).all(|(code, size)| *code == -size));
        for (byte, value) in [
            (127, 1.0),
            (128, 2.0),
            (0, 2_f32.powi(-127)),
            (254, 2_f32.powi(127)),
        ] {
            assert_eq!(e8m0(byte), value, "{byte}");
        }
        assert!(!e8m0(255).is_finite());
    }
}
