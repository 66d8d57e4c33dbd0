//! From float weights to codes and scales: `method` is what every method is given and gives back, `search` names those
//! there are, `ablation` what a run can leave out, `dgq`, `compensate` and `rtn` are three of them; the other files are what methods share.

pub mod ablation;
pub mod compensate;
pub mod dgq;
pub mod group_scale;
pub mod grouped_row;
pub mod method;
pub mod output_error;
pub mod rounding;
pub mod rtn;
pub mod search;

pub(crate) mod buffers;
pub(crate) mod encode;
pub(crate) mod int8;
pub(crate) mod quantization_grid;
