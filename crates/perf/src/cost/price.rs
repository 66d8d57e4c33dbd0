//! What single products cost, asked once each.

use std::collections::HashMap;

use super::Scheme;
use crate::{By, Model, PerfError, Prediction, Product};

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
    known: HashMap<(Scheme, [usize; 3]), Price>,
}

impl<'a> Prices<'a> {
    /// Prices by `ask`.
    pub fn new(ask: impl FnMut(Scheme, [usize; 3]) -> Result<Price, PerfError> + 'a) -> Self {
        Self {
            ask: Box::new(ask),
            known: HashMap::new(),
        }
    }

    /// Prices of a fitted model: of all kernels that multiply in the scheme, each in its best size, the least. 4-bit weights
    /// come in groups of `group_size`.
    pub fn of_model(model: &'a Model, group_size: usize, by: By) -> Self {
        Self::new(move |scheme, [m, n, k]| {
            let product = Product {
                group_size: if scheme == Scheme::W4a8 { group_size } else { 0 },
                ..Product::new(m, n, k)
            };
            least(model, scheme, &product, by)
        })
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

fn least(model: &Model, scheme: Scheme, product: &Product<'_>, by: By) -> Result<Price, PerfError> {
    let measured: Vec<&str> = model.kernels().collect();
    // What was measured near goes before what was not.
    let mut best: Option<((bool, f64), Price)> = None;
    let mut refusal = None;
    for kernel in scheme.kernels(&measured) {
        match model.best(kernel, product, by) {
            Ok((facts, prediction)) => {
                let cost = (
                    prediction.extrapolated,
                    prediction.cost(by).unwrap_or(f64::INFINITY),
                );
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    let price = Price {
                        kernel: facts.kernel.clone(),
                        config: facts.config.clone(),
                        prediction,
                    };
                    best = Some((cost, price));
                }
            }
            // Not every kernel runs every product; one that does suffices.
            Err(error) => refusal = Some(error),
        }
    }
    best.map(|(_, price)| price).ok_or_else(|| {
        refusal.unwrap_or_else(|| PerfError::UnknownKernel {
            got: scheme.to_string(),
            hint: format!(
                "no kernel of this type was measured on {}; there are {}",
                model.machine().name,
                measured.join(", ")
            ),
        })
    })
}
