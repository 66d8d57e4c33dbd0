//! The activations of a model, chosen outside of loops.

/// Evaluates `$body`, where `$f` is an activation that the compiler knows: chosen outside of loops, so that each body vectorizes.
macro_rules! with_activation {
    ($activation:expr, |$f:ident| $body:expr) => {{
        use dualgrain_device::Activation;
        match $activation {
            Activation::Relu => {
                let $f = Activation::Relu;
                $body
            }
            Activation::Silu => {
                let $f = Activation::Silu;
                $body
            }
            Activation::Gelu => {
                let $f = Activation::Gelu;
                $body
            }
            Activation::GeluTanh => {
                let $f = Activation::GeluTanh;
                $body
            }
            Activation::Clamped(limit) => {
                let $f = Activation::Clamped(limit);
                $body
            }
        }
    }};
}
pub(crate) use with_activation;
