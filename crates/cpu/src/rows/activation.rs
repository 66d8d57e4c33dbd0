//! The activations of a model, chosen outside of loops.

/// Evaluates `$body`, where `$f` is the function of an activation: chosen outside of loops, so that each body vectorizes.
macro_rules! with_activation {
    ($activation:expr, |$f:ident| $body:expr) => {{
        use dualgrain_device::{Activation, naive::activation};
        match $activation {
            Activation::Relu => {
                let $f = |v| activation(Activation::Relu, v);
                $body
            }
            Activation::Silu => {
                let $f = |v| activation(Activation::Silu, v);
                $body
            }
            Activation::Gelu => {
                let $f = |v| activation(Activation::Gelu, v);
                $body
            }
            Activation::GeluTanh => {
                let $f = |v| activation(Activation::GeluTanh, v);
                $body
            }
        }
    }};
}
pub(crate) use with_activation;
