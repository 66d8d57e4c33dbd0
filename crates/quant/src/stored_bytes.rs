//! How many bytes floats and linears take on disk.

use dualgrain_engine::{FloatType, ModelConfig};
use dualgrain_format::{LinearScheme, int4};

/// The bytes of a linear `[N,K]` as it is stored, without its bias; a float takes `float` bytes.
pub fn stored_bytes((n, k): (usize, usize), scheme: LinearScheme, float: u64) -> u64 {
    match scheme {
        LinearScheme::Float => (n * k) as u64 * float,
        LinearScheme::W8 => (n * (k + 4)) as u64,
        LinearScheme::W4 { group_size } => {
            let groups = group_size.num_groups(k);
            (n * (int4::row_bytes(k) + int4::row_bytes(groups) + groups + 4)) as u64
        }
    }
}

/// Bytes of a stored float; bf16 where the configuration does not say.
pub fn float_bytes(config: &ModelConfig) -> u64 {
    match config.dtype {
        Some(FloatType::F32) => 4,
        Some(FloatType::F16 | FloatType::Bf16) | None => 2,
    }
}
