//! Floats as checkpoints store them, little endian, to and from f32.

use half::{bf16, f16};
use safetensors::Dtype;

/// Bytes of one F32, F16 or BF16 tensor (or part of it) as f32; every step is exact. Any other type has been refused
/// before and reads as BF16.
pub fn widen(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            let wide = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            values.iter_mut().zip(wide).for_each(|(v, wide)| *v = wide);
        }
        Dtype::F16 => {
            let wide = bytes
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
            values.iter_mut().zip(wide).for_each(|(v, wide)| *v = wide);
        }
        _ => {
            let wide = bytes
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32());
            values.iter_mut().zip(wide).for_each(|(v, wide)| *v = wide);
        }
    }
}

/// Bytes of an F32 tensor.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
