//! The float products that are measured on a shape: libraries, types, layouts, factors.

use crate::product::{Layout, ops};

/// Operations of an FP32 product beyond which it costs too much time.
const MOST_F32_OPS: f64 = 1e11;
/// As above, for the tiled kernel.
const MOST_TILED_OPS: f64 = 1e10;
/// alpha and beta.
pub(crate) const BLENDS: [(f32, f32); 3] = [(1.0, 0.0), (1.0, 1.0), (0.5, 0.5)];

/// A library or kernel of floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FloatKernel {
    /// cuBLAS.
    CublasBf16,
    /// cuBLAS.
    CublasF16,
    /// cuBLAS, no TF32.
    CublasF32,
    /// The paper's, with a tile.
    Tiled(usize),
}

/// One float product to be measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloatCase {
    /// By what.
    pub kernel: FloatKernel,
    /// Storage.
    pub layout: Layout,
    /// Factors of the product and of what was in D.
    pub blend: (f32, f32),
}

/// cuBLAS in its types, layouts and blends, and the tiled kernel where it is not too slow.
pub(crate) fn float_cases(shape: (usize, usize, usize), draw: u64) -> Vec<FloatCase> {
    use FloatKernel::{CublasBf16, CublasF16, CublasF32, Tiled};
    let case = |kernel, layout, blend| FloatCase {
        kernel,
        layout,
        blend,
    };
    let mut cases = Vec::new();
    for kernel in [CublasBf16, CublasF16] {
        cases.extend(Layout::ALL.map(|layout| case(kernel, layout, BLENDS[0])));
    }
    // Sums of many products would leave f16's range.
    cases.push(case(CublasBf16, Layout::Nt, BLENDS[1]));
    cases.push(case(CublasBf16, Layout::ALL[(draw % 4) as usize], BLENDS[2]));
    cases.push(case(CublasF16, Layout::ALL[(draw / 4 % 4) as usize], BLENDS[2]));
    if ops(shape) <= MOST_F32_OPS {
        cases.extend(Layout::ALL.map(|layout| case(CublasF32, layout, BLENDS[0])));
        cases.push(case(CublasF32, Layout::Nt, BLENDS[2]));
    }
    if ops(shape) <= MOST_TILED_OPS {
        for turn in 0..4 {
            let draw = draw >> (8 * turn);
            let tile = 4 + (draw / 4 % 29) as usize;
            let blend = BLENDS[(draw / 128 % 3) as usize];
            let case = case(Tiled(tile), Layout::ALL[(draw % 4) as usize], blend);
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
    }
    cases
}
