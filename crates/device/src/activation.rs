//! Pointwise functions, and where the scale of INT8 activations comes from.

/// Where the INT8 activation scale comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ActivationScale {
    /// `ta[m] = max|row m| / 127`; an all-zero token gets `ta = 0` and zero codes.
    PerToken,
    /// One calibrated scale for the whole tensor; codes saturate at -127..=127.
    Static(f32),
}

/// Pointwise nonlinearities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// GELU by its tanh approximation.
    GeluTanh,
}
