//! The space of a sweep: a description of it (`description`), the shapes and configurations that follow from the
//! description (`tasks`, `float_cases`), and numbers that are drawn the same on every machine (`draw`).

mod description;
mod draw;
mod float_cases;
mod tasks;

pub use description::Space;
#[cfg(feature = "cuda")]
pub(crate) use draw::hash;
#[cfg(feature = "cuda")]
pub(crate) use float_cases::{FloatCase, FloatKernel};
#[cfg(feature = "cuda")]
pub(crate) use tasks::Configs;
pub(crate) use tasks::ShapeTask;
