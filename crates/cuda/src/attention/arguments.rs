//! Arguments of the kernels of attention.

/// Arguments of the kernels, as `AttentionArgs` in cu/attention/attention.cuh.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct AttentionArgs {
    pub out: u64,
    pub x: u64,
    pub keys: u64,
    pub values: u64,
    pub key_scales: u64,
    pub value_scales: u64,
    pub slopes: u64,
    pub step: u64,
    pub partial: u64,
    pub partial_state: u64,
    pub arrived: u64,
    pub drawn: u64,
    pub passed: u64,
    pub passed_flags: u64,
    pub scale: f32,
    pub key_scale: f32,
    pub value_scale: f32,
    pub x_row: i32,
    pub kv_heads: i32,
    pub window: i32,
    pub keys_first: i32,
    pub values_first: i32,
    pub angles: u64,
    pub rows: u64,
    pub finished: u64,
    pub codes: u64,
    pub code_scales: u64,
    pub code_sums: u64,
    pub code_scale: f32,
    pub code_row: i32,
    pub soft_cap: f32,
    pub padding: i32,
    pub sinks: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_size_of_the_kernels_structure() {
        assert_eq!(size_of::<AttentionArgs>(), 216);
    }
}
