//! Every operation of every instruction set of this machine against the specification, bit for bit.

mod attention;
mod attention_spans;
mod capacity;
mod cases;
mod gemm_float;
mod gemm_int;
mod gram;
mod mixture;
mod rows;
mod sampling;
mod sampling_properties;
mod vectors;
