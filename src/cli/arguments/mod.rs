//! The command line: what each verb takes, its defaults, and an example in its help.

mod bench;
mod bench_serve;
mod cost;
mod device;
mod eval;
mod fit;
mod generate;
mod predict;
mod profile;
mod quantize;
mod serve;
mod shapes;
mod values;
mod verbs;

pub use bench::{Bench, BenchGemm, BenchProduct};
#[cfg(feature = "cuda")]
pub use bench::{OutputKind, Rival};
pub use bench_serve::BenchServe;
pub use cost::{Cost, CostScheme};
pub use device::OnDevice;
pub use eval::{Eval, EvalKv, Inspect};
pub use fit::{Fit, Learner, Report};
pub use generate::{Chat, Generate, Sampling};
pub use predict::{Aim, Predict, Run, Select};
pub use profile::{Profile, ProfileAction, ProfileMerge};
pub use quantize::{
    Activations, Export, Format, Kv, LmHead, Pull, Quantize, Quickstart, Search, Smooth, SmoothPair,
};
pub use serve::{LogFormat, LogLevel, Serve};
#[cfg(feature = "cuda")]
pub use shapes::Shape;
pub use verbs::{Cli, Common, Verb};
