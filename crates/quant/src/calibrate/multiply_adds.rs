//! How many multiply-adds the passes over the calibration windows take: for progress and the plan. The unit is a
//! multiply-add of floats.

use std::collections::BTreeMap;

use dualgrain_engine::{BlockSpec, LinearId, Role};

/// An integer product takes about a fourth of the time of a float product.
const INT8_SPEEDUP: u64 = 4;

/// Multiply-adds of the passes of a block, for one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassMultiplyAdds {
    linears: BTreeMap<LinearId, LinearMultiplyAdds>,
    /// The Gram matrix of what all experts read, where no other linear reads it.
    pooled: u64,
    /// Passes through the first linears of the experts that their last ones take.
    passes_of_down: u64,
    /// Attention.
    pub attention: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinearMultiplyAdds {
    run: u64,
    gram: u64,
}

impl PassMultiplyAdds {
    /// Those of `spec` on a window of `tokens`.
    pub fn new(spec: &BlockSpec, tokens: usize) -> Self {
        let linears = spec.linears.iter().map(|(&id, linear)| {
            let (n, k) = (linear.n as u64, linear.k as u64);
            // Each token goes to some of the experts.
            let tokens = match (&spec.mixture, id.expert) {
                (Some(mixture), Some(_)) => (tokens * mixture.rule.num_chosen).div_ceil(mixture.num_experts),
                _ => tokens,
            };
            let run = tokens as u64 * n * k / INT8_SPEEDUP;
            let gram = gram_multiply_adds(tokens, linear.k);
            (id, LinearMultiplyAdds { run, gram })
        });
        Self {
            linears: linears.collect(),
            pooled: match &spec.mixture {
                Some(mixture) if !mixture.has_shared => gram_multiply_adds(tokens, spec.hidden_size),
                _ => 0,
            },
            passes_of_down: spec.mixture.as_ref().map_or(0, |mixture| {
                let at_once = experts_at_once(mixture.expert_size, mixture.num_experts);
                mixture.num_experts.div_ceil(at_once) as u64 + u64::from(mixture.has_shared)
            }),
            attention: (tokens * tokens * spec.num_heads * spec.head_dim) as u64,
        }
    }

    /// One run of the linears of `role`, experts among them.
    pub fn run(&self, role: Role) -> u64 {
        self.of(role).map(|(_, linear)| linear.run).sum()
    }

    /// Accumulating the Gram matrix of the input of the linear that every token takes.
    pub fn gram(&self, role: Role) -> u64 {
        let dense = self.of(role).filter(|(id, _)| id.expert.is_none());
        dense.map(|(_, linear)| linear.gram).sum::<u64>() + if role == Role::Up { self.pooled } else { 0 }
    }

    /// Accumulating the Gram matrices of the inputs of all experts.
    pub fn gram_of_experts(&self, role: Role) -> u64 {
        let experts = self.of(role).filter(|(id, _)| id.expert.is_some());
        experts.map(|(_, linear)| linear.gram).sum()
    }

    /// Observing the drift of the input of `role` beside the original model, which takes part of its own block with it; 0 where experts
    /// alone have the role.
    pub fn drift(&self, role: Role) -> u64 {
        if !self
            .linears
            .keys()
            .any(|id| id.role == role && id.expert.is_none())
        {
            return 0;
        }
        let float = |role| INT8_SPEEDUP * self.run(role);
        let up_of_both = float(Role::Up) + self.run(Role::Up);
        let original = match role {
            Role::Qkv | Role::Up => 0,
            Role::Out => float(Role::Out),
            Role::Down if self.has_experts() => up_of_both,
            Role::Down => up_of_both + float(Role::Down),
        };
        let sums = match role {
            Role::Qkv | Role::Up => 2 * self.gram(role),
            Role::Down if self.has_experts() => 2 * self.gram(role),
            Role::Out | Role::Down => 2 * float(role),
        };
        original + sums + self.gram(role)
    }

    /// The original model's run through its experts, after those of the quantized one are done.
    pub fn original_experts(&self) -> u64 {
        match self.has_experts() {
            true => INT8_SPEEDUP * (self.run(Role::Up) + self.run(Role::Down)),
            false => 0,
        }
    }

    /// The passes beside the original model: the drift of all inputs, its attention, its experts.
    pub fn companion(&self) -> u64 {
        let drift = Role::ALL.map(|role| self.drift(role)).iter().sum::<u64>();
        drift + INT8_SPEEDUP * self.run(Role::Qkv) + self.attention + self.original_experts()
    }

    fn has_experts(&self) -> bool {
        self.linears.keys().any(|id| id.expert.is_some())
    }

    /// One run of the whole block with float weights.
    pub fn float_run(&self) -> u64 {
        INT8_SPEEDUP * Role::ALL.map(|role| self.run(role)).iter().sum::<u64>() + self.attention
    }

    /// All passes: up runs twice, that of experts as often as their last linears are observed; the others once.
    pub fn total(&self) -> u64 {
        let role = |role| self.run(role) + self.gram(role) + self.gram_of_experts(role);
        Role::ALL.map(role).iter().sum::<u64>()
            + self.run(Role::Up) * self.passes_of_down.max(1)
            + self.attention
    }

    fn of(&self, role: Role) -> impl Iterator<Item = (&LinearId, &LinearMultiplyAdds)> {
        self.linears.iter().filter(move |(id, _)| id.role == role)
    }
}

/// Bytes of the Gram matrices of experts that are filled in one pass over the calibration windows, about.
const GRAM_BYTES: usize = 1 << 29;

/// Experts whose inputs of `k` channels are observed in one pass.
pub fn experts_at_once(k: usize, num_experts: usize) -> usize {
    (GRAM_BYTES / (4 * k * k).max(1)).clamp(1, num_experts.max(1))
}

/// Accumulating the lower triangle of a Gram matrix `[K,K]`.
pub fn gram_multiply_adds(tokens: usize, k: usize) -> u64 {
    (tokens * k) as u64 * k as u64 / 2
}
