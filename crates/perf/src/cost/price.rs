//! The prices of single products. Each is asked for once and remembered.

use std::collections::HashMap;

use dualgrain_format::GroupSize;

use super::scheme::Scheme;
use super::threads;
use crate::error::PerfError;
use crate::machine::MachineKind;
use crate::predict::{KernelConfig, Model, Objective, Prediction};
use crate::product::Product;

/// The way to run a product, and what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Price {
    /// The kernel chosen.
    pub kernel: String,
    /// Its size.
    pub config: String,
    /// What one product costs.
    pub prediction: Prediction,
}

/// Answers for a product M, N, K in a scheme.
type Ask<'a> = dyn FnMut(Scheme, [usize; 3]) -> Result<Price, PerfError> + 'a;

/// Prices of products, remembered: batch sizes and steps share many.
pub struct Prices<'a> {
    ask: Box<Ask<'a>>,
    threads: Option<usize>,
    known: HashMap<(Scheme, [usize; 3]), Price>,
}

impl<'a> Prices<'a> {
    /// Prices by `ask`.
    pub fn new(ask: impl FnMut(Scheme, [usize; 3]) -> Result<Price, PerfError> + 'a) -> Self {
        Self {
            ask: Box::new(ask),
            threads: None,
            known: HashMap::new(),
        }
    }

    /// Prices of a fitted model: of all kernels that multiply in the scheme, each in its best size, the least. 4-bit weights
    /// come in groups of `group_size`; results are floats as the next operation reads them, where the kernel was measured so.
    /// On a CPU all run on as many `threads`, by default the most that were measured.
    ///
    /// # Errors
    /// A number of threads that was not measured.
    pub fn of_model(
        model: &'a Model,
        group_size: GroupSize,
        by: Objective,
        threads: Option<usize>,
    ) -> Result<Self, PerfError> {
        let threads = threads::of_model(model, threads)?;
        let ask = move |scheme, [m, n, k]: [usize; 3]| {
            let product = Product {
                group_size: match scheme {
                    Scheme::W4a8 => group_size,
                    Scheme::W8a8 | Scheme::Bf16 => GroupSize::WholeRow,
                },
                ..Product::new(m, n, k)
            };
            least(model, scheme, &product, by, threads)
        };
        Ok(Self {
            threads,
            ..Self::new(ask)
        })
    }

    /// These prices, as of so many threads.
    #[cfg(test)]
    pub(crate) fn with_threads(self, threads: usize) -> Self {
        Self {
            threads: Some(threads),
            ..self
        }
    }

    /// Threads of a CPU that all products run on.
    pub fn threads(&self) -> Option<usize> {
        self.threads
    }

    /// The price of a product.
    ///
    /// # Errors
    /// What the source of prices refuses.
    pub fn of(&mut self, scheme: Scheme, shape: [usize; 3]) -> Result<Price, PerfError> {
        if let Some(price) = self.known.get(&(scheme, shape)) {
            return Ok(price.clone());
        }
        let price = (self.ask)(scheme, shape)?;
        self.known.insert((scheme, shape), price.clone());
        Ok(price)
    }
}

/// The best configuration of a kernel, of those with as many threads.
fn best_of<'a>(
    model: &'a Model,
    kernel: &str,
    product: &Product<'_>,
    by: Objective,
    threads: Option<usize>,
) -> Result<Option<(&'a KernelConfig, Prediction)>, PerfError> {
    let Some(threads) = threads else {
        return model.best(kernel, product, by).map(Some);
    };
    let ranked = model.ranked(kernel, product, by)?;
    Ok(ranked.into_iter().find(|(facts, _)| facts.threads == threads))
}

/// What a linear writes: what the machine's other operations read, or what the kernel was mostly measured with.
fn output(model: &Model, kernel: &str) -> &'static str {
    let wanted = match model.machine().kind {
        MachineKind::Gpu => "bf16",
        MachineKind::Cpu => "f32",
    };
    let is_measured = model.configs(kernel).iter().any(|facts| facts.output == wanted);
    if is_measured { wanted } else { "" }
}

/// The price of the kernel of a scheme that costs least.
fn least(
    model: &Model,
    scheme: Scheme,
    product: &Product<'_>,
    by: Objective,
    threads: Option<usize>,
) -> Result<Price, PerfError> {
    let measured: Vec<&str> = model.kernels().collect();
    let mut best: Option<((bool, f64), Price)> = None;
    let mut refusal = None;
    for kernel in scheme.kernels(&measured) {
        let product = Product {
            output: output(model, kernel),
            ..*product
        };
        match best_of(model, kernel, &product, by, threads) {
            Ok(None) => {}
            Ok(Some((facts, prediction))) => {
                // What was measured near goes before what was not.
                let cost = prediction.cost(by).unwrap_or(f64::INFINITY);
                let rank = (prediction.extrapolated, cost);
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, price(facts, prediction)));
                }
            }
            // Not every kernel runs every product; one that does suffices.
            Err(error) => refusal = Some(error),
        }
    }
    match best {
        Some((_, price)) => Ok(price),
        None => Err(refusal.unwrap_or_else(|| no_kernel(model, scheme, &measured))),
    }
}

fn price(config: &KernelConfig, prediction: Prediction) -> Price {
    Price {
        kernel: config.kernel.clone(),
        config: config.config.clone(),
        prediction,
    }
}

fn no_kernel(model: &Model, scheme: Scheme, measured: &[&str]) -> PerfError {
    PerfError::UnknownKernel {
        got: scheme.to_string(),
        hint: format!(
            "no kernel of this type was measured on {}; there are {}",
            model.machine().name,
            measured.join(", ")
        ),
    }
}
