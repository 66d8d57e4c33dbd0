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
    /// `x * sigmoid(1.702 x)` for x cut to the limit from above. Where it gates, what it multiplies is cut to the limit on both sides, and
    /// one is added to it.
    Clamped(GateLimit),
}

/// Where a clamped gate cuts what it reads: a finite number above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateLimit(u32);

impl GateLimit {
    /// That of gpt-oss, where its configuration does not say.
    pub const USUAL: Self = Self(7.0f32.to_bits());

    /// `None` for what is no limit.
    pub fn new(limit: f32) -> Option<Self> {
        (limit.is_finite() && limit > 0.0).then_some(Self(limit.to_bits()))
    }

    /// The number.
    pub fn value(self) -> f32 {
        f32::from_bits(self.0)
    }
}
