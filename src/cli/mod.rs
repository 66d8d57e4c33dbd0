//! What a user types and sees: arguments with their help, the terminal, tables read and printed. Nothing here knows a verb's
//! work.

pub mod arguments;
pub mod arguments_perf;
pub mod columns;
pub mod gemm_shapes;
pub mod terminal;
