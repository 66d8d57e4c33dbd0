//! The kernels' texts, inside the program. Part of the key that compiled kernels are kept under: a changed byte means that all
//! of them are compiled again, and that the measured tables speak of other kernels.

/// Files the kernels include.
pub(crate) const HEADERS: &[(&str, &str)] = &[
    ("gemm_consumer.cuh", include_str!("gemm/gemm_consumer.cuh")),
    ("gemm_float.cuh", include_str!("gemm/gemm_float.cuh")),
    ("gemm_output.cuh", include_str!("gemm/gemm_output.cuh")),
    ("gemm_tile.cuh", include_str!("gemm/gemm_tile.cuh")),
    // gemm_w4f_sm90 is this text with a macro.
    ("gemm_w4a8_sm90.cu", GEMM_W4A8_SM90),
    ("sm90.cuh", include_str!("sm90.cuh")),
    ("w4a8.cuh", include_str!("w4a8.cuh")),
    ("wgmma.cuh", include_str!("gemm/wgmma.cuh")),
];

/// Files that products by warp groups include, weights of 8 bits in the place of 4.
pub(crate) const GROUP_HEADERS: &[(&str, &str)] = &[
    ("sm90.cuh", include_str!("sm90.cuh")),
    ("w4a8.cuh", include_str!("w4a8.cuh")),
    ("w8_image.cuh", include_str!("linear/w8_image.cuh")),
    ("wgmma.cuh", include_str!("gemm/wgmma.cuh")),
];

/// Files that the kernels of whole models include. Apart from those of the products: measured tables belong to the products' texts.
pub(crate) const MODEL_HEADERS: &[(&str, &str)] = &[
    ("async_copy.cuh", include_str!("linear/async_copy.cuh")),
    ("codes.cuh", include_str!("rows/codes.cuh")),
    ("float_product.cuh", include_str!("linear/float_product.cuh")),
    ("float_rules.cuh", include_str!("float_rules.cuh")),
    ("gated.cuh", include_str!("rows/gated.cuh")),
    ("input_type.cuh", include_str!("rows/input_type.cuh")),
    ("w8_image.cuh", include_str!("linear/w8_image.cuh")),
    ("w8a8.cuh", include_str!("linear/w8a8.cuh")),
];

/// Files that sampling and the logarithm of the softmax include.
pub(crate) const SAMPLING_HEADERS: &[(&str, &str)] = &[
    ("cluster.cuh", include_str!("sampling/cluster.cuh")),
    ("float_rules.cuh", include_str!("float_rules.cuh")),
    ("sample_cut.cuh", include_str!("sampling/sample_cut.cuh")),
    (
        "sample_logprobs.cuh",
        include_str!("sampling/sample_logprobs.cuh"),
    ),
    ("sample_row.cuh", include_str!("sampling/sample_row.cuh")),
];

/// The product on Ampere and later.
pub(crate) const GEMM_W4A8_SM80: &str = include_str!("gemm/gemm_w4a8_sm80.cu");
/// The product on Hopper.
pub(crate) const GEMM_W4A8_SM90: &str = include_str!("gemm/gemm_w4a8_sm90.cu");
/// The same with float group scales.
pub(crate) const GEMM_W4F_SM90: &str = include_str!("gemm/gemm_w4f_sm90.cu");
/// The product for few tokens.
pub(crate) const GEMV_W4A8_SM90: &str = include_str!("gemm/gemv_w4a8_sm90.cu");
/// The quantization of rows of any type and length.
pub(crate) const QUANTIZE_PER_TOKEN: &str = include_str!("rows/quantize_per_token.cu");
/// The quantization of rows of f32 that fit into a block's registers.
pub(crate) const QUANTIZE_ROWS: &str = include_str!("rows/quantize_rows.cu");
/// Random operands, and outputs compared with sums.
pub(crate) const OPERANDS: &str = include_str!("operands.cu");
/// Freivalds' check.
pub(crate) const FREIVALDS: &str = include_str!("freivalds.cu");
/// The FP32 product of the GPPerf paper.
pub(crate) const SGEMM_TILED: &str = include_str!("sgemm_tiled.cu");
/// Reading as fast as the memory gives.
pub(crate) const READ_MEMORY: &str = include_str!("read_memory.cu");
/// Rows of a table by number.
pub(crate) const GATHER_ROWS: &str = include_str!("rows/gather_rows.cu");
/// The Hadamard transform.
pub(crate) const HADAMARD: &str = include_str!("rows/hadamard.cu");
/// RMS norm and layer norm.
pub(crate) const NORM: &str = include_str!("rows/norm_rows.cu");
/// Rotary position embedding.
pub(crate) const ROPE: &str = include_str!("rows/rotate.cu");
/// The gated activation, quantized.
pub(crate) const GATE_QUANTIZE: &str = include_str!("rows/gate_quantize.cu");
/// Functions of single elements.
pub(crate) const POINTWISE: &str = include_str!("rows/pointwise.cu");
/// Float weights, few rows of activations.
pub(crate) const GEMM_FLOAT_FEW: &str = include_str!("linear/gemm_float_few.cu");
/// Float weights, many rows.
pub(crate) const GEMM_FLOAT_TILED: &str = include_str!("linear/gemm_float_tiled.cu");
/// INT8 weights, few tokens.
pub(crate) const GEMM_W8A8_FEW: &str = include_str!("linear/gemm_w8a8_few.cu");
/// INT8 weights, many tokens.
pub(crate) const GEMM_W8A8_TILED: &str = include_str!("linear/gemm_w8a8_tiled.cu");
/// The same on Hopper, by warp groups.
pub(crate) const GEMM_W8A8_SM90: &str = include_str!("linear/gemm_w8a8_sm90.cu");
/// Tokens as that one takes them.
pub(crate) const W8A8_TOKENS: &str = include_str!("linear/w8a8_tokens.cu");
/// Choosing tokens.
pub(crate) const SAMPLE: &str = include_str!("sampling/sample.cu");
/// The tokens that were chosen last.
pub(crate) const LAST_TOKENS: &str = include_str!("sampling/last_tokens.cu");
/// The logarithm of the softmax of rows.
pub(crate) const LOG_SOFTMAX: &str = include_str!("sampling/log_softmax.cu");
/// Gram matrices.
pub(crate) const GRAM: &str = include_str!("statistics/gram.cu");
/// Squared errors of a layer's outputs.
pub(crate) const OUTPUT_ERRORS: &str = include_str!("statistics/output_errors.cu");
/// The largest magnitudes of columns.
pub(crate) const ABS_MAX: &str = include_str!("statistics/abs_max.cu");
/// Files that the kernels of attention include.
pub(crate) const ATTENTION_HEADERS: &[(&str, &str)] = &[
    ("attention.cuh", include_str!("attention/attention.cuh")),
    ("attention_tile.cuh", include_str!("attention/attention_tile.cuh")),
    (
        "attention_stage.cuh",
        include_str!("attention/attention_stage.cuh"),
    ),
    (
        "attention_plain.cuh",
        include_str!("attention/attention_plain.cuh"),
    ),
    (
        "attention_group.cuh",
        include_str!("attention/groups/attention_group.cuh"),
    ),
    (
        "attention_parts.cuh",
        include_str!("attention/groups/attention_parts.cuh"),
    ),
    (
        "attention_items.cuh",
        include_str!("attention/attention_items.cuh"),
    ),
    (
        "attention_pages.cuh",
        include_str!("attention/attention_pages.cuh"),
    ),
    ("attention_rows.cuh", include_str!("attention/attention_rows.cuh")),
    ("float_rules.cuh", include_str!("float_rules.cuh")),
    ("page_ring.cuh", include_str!("attention/ring/page_ring.cuh")),
    ("ring_page.cuh", include_str!("attention/ring/ring_page.cuh")),
    ("token_codes.cuh", include_str!("attention/ring/token_codes.cuh")),
];

/// Files that the kernels of mixtures include.
pub(crate) const EXPERT_HEADERS: &[(&str, &str)] = &[
    ("async_copy.cuh", include_str!("linear/async_copy.cuh")),
    ("experts.cuh", include_str!("experts/experts.cuh")),
    ("float_product.cuh", include_str!("linear/float_product.cuh")),
    ("float_rules.cuh", include_str!("float_rules.cuh")),
    ("routing.cuh", include_str!("experts/routing.cuh")),
    ("sorted_pairs.cuh", include_str!("experts/sorted_pairs.cuh")),
    ("w4a8.cuh", include_str!("w4a8.cuh")),
    ("w8_image.cuh", include_str!("linear/w8_image.cuh")),
    ("w8a8.cuh", include_str!("linear/w8a8.cuh")),
];

/// The experts of each token.
pub(crate) const ROUTE: &str = include_str!("experts/route.cu");
/// The experts of few tokens, and their pairs sorted.
pub(crate) const ROUTE_FEW: &str = include_str!("experts/route_few.cu");
/// Pairs of a token and an expert, sorted.
pub(crate) const SORT_PAIRS: &str = include_str!("experts/sort_pairs.cu");
/// What experts gave, added up.
pub(crate) const COMBINE: &str = include_str!("experts/combine.cu");
/// 4-bit weights of experts, few tokens each.
pub(crate) const GEMM_EXPERTS_W4A8_FEW: &str = include_str!("experts/gemm_experts_w4a8_few.cu");
/// 4-bit weights of experts, many tokens each.
pub(crate) const GEMM_EXPERTS_W4A8_TILED: &str = include_str!("experts/gemm_experts_w4a8_tiled.cu");
/// INT8 weights of experts.
pub(crate) const GEMM_EXPERTS_W8A8: &str = include_str!("experts/gemm_experts_w8a8.cu");
/// Float weights of experts.
pub(crate) const GEMM_EXPERTS_FLOAT: &str = include_str!("experts/gemm_experts_float.cu");

/// Keys and values into the paged cache.
pub(crate) const CACHE_WRITE: &str = include_str!("attention/cache_write.cu");
/// Attention of single tokens.
pub(crate) const ATTENTION_SPANS: &str = include_str!("attention/attention_spans.cu");
/// Attention of single tokens over codes, with pages copied in bulk.
pub(crate) const ATTENTION_RING: &str = include_str!("attention/ring/attention_ring.cu");
/// Attention of a prompt's tiles.
pub(crate) const ATTENTION_PROMPT: &str = include_str!("attention/attention_prompt.cu");
/// The same by Hopper's warp groups.
pub(crate) const ATTENTION_PROMPT_SM90: &str = include_str!("attention/groups/attention_prompt_sm90.cu");
