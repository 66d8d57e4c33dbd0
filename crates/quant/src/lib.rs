//! Float model in, quantized model out.
#![forbid(unsafe_code)]
