//! The one place outside the kernels with `unsafe`: memory-mapping a checkpoint file.
