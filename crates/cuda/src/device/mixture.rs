//! Mixtures of experts on a card.

use dualgrain_device::{Capacity, DeviceError, Done, ExpertInput, Operand, RoutingRule, RoutingShape};

use super::buffers::CudaMatrix;
use super::cuda_device::CudaDevice;
use super::linears::CudaLinear;
use crate::experts::{Combine, ExpertLinear, ExpertOperand, ExpertTable, GemmExperts, TokenRouting};

/// Linears of a mixture, one for each expert.
pub struct Experts {
    /// What the table points to.
    linears: Vec<CudaLinear>,
    table: ExpertTable,
    products: GemmExperts,
}

/// Which tokens go to which expert.
pub struct Routing {
    tokens: TokenRouting,
    combine: Combine,
}

impl Experts {
    pub(super) fn bytes(&self) -> usize {
        let linears: usize = self.linears.iter().map(CudaLinear::bytes).sum();
        linears + self.table.bytes()
    }
}

impl CudaLinear {
    fn as_expert(&self) -> ExpertLinear<'_> {
        match self {
            Self::W4(linear) => ExpertLinear::W4(linear),
            Self::W8(linear) => ExpertLinear::W8(linear),
            Self::Float(linear) => ExpertLinear::Float(linear),
        }
    }
}

impl CudaDevice {
    pub(super) fn new_experts(&self, linears: Vec<CudaLinear>) -> Result<Experts, DeviceError> {
        let entries: Vec<_> = linears.iter().map(CudaLinear::as_expert).collect();
        let size_bytes = 32 * entries.len();
        self.buffer("experts", size_bytes, || {
            let table = ExpertTable::new(&self.gpu, &entries)?;
            let products = GemmExperts::new(&self.jit, &self.gpu, &table)?;
            Ok((table, products))
        })
        .map(|(table, products)| Experts {
            linears,
            table,
            products,
        })
    }

    pub(super) fn new_routing(&self, shape: RoutingShape) -> Result<Routing, DeviceError> {
        let pairs = shape.tokens.saturating_mul(shape.num_chosen);
        self.buffer("routing", pairs.saturating_mul(24), || {
            Ok(Routing {
                tokens: TokenRouting::new(&self.jit, &self.gpu, shape)?,
                combine: Combine::new(&self.jit, &self.gpu)?,
            })
        })
    }

    pub(super) fn choose_experts(
        &self,
        routing: &mut Routing,
        logits: &CudaMatrix,
        bias: Option<&CudaMatrix>,
        rule: &RoutingRule,
    ) -> Done {
        let shape = routing.tokens.shape();
        let gates = logits.columns.wrapping_sub(shape.num_experts);
        assert!(gates <= 1, "{} logits of {shape:?}", logits.columns);
        assert_eq!(rule.num_chosen, shape.num_chosen, "experts of a token");
        let room = Capacity::new(shape.tokens, logits.columns);
        room.check("route", || self.name.clone(), logits.shape())?;
        let sizes = [logits.rows, shape.num_experts, shape.num_chosen];
        self.operation("route", &sizes, || {
            let bias = bias.map(|bias| &bias.buffer);
            let shape = logits.shape();
            routing.tokens.launch(&logits.buffer, shape, bias, rule)
        })
    }

    pub(super) fn products_of_experts(
        &self,
        out: &mut CudaMatrix,
        (a, input): (Operand<'_, Self>, ExpertInput),
        experts: &Experts,
        routing: &mut Routing,
    ) -> Done {
        let (routing, (n, k)) = (&routing.tokens, experts.table.shape());
        let shape = match a {
            Operand::Float(a) => a.shape(),
            Operand::Int8(a) => a.tokens.shape(),
        };
        assert_eq!(shape, (rows_of(input, routing), k), "rows and K of experts");
        let rows = routing.num_rows();
        self.resize(out, "gemm_experts", (rows, n))?;
        let a = match a {
            Operand::Float(a) => ExpertOperand::Float(&a.buffer),
            Operand::Int8(a) => ExpertOperand::Int8(&a.tokens),
        };
        self.operation("gemm_experts", &[rows, n, k], || {
            let a = (a, input == ExpertInput::Tokens);
            experts.products.launch(&out.buffer, a, &experts.table, routing)
        })
    }

    pub(super) fn combine_experts(
        &self,
        x: &mut CudaMatrix,
        y: &CudaMatrix,
        shared: Option<&CudaMatrix>,
        routing: &Routing,
    ) -> Done {
        let tokens = &routing.tokens;
        assert_eq!(
            y.shape(),
            (tokens.num_rows(), x.columns),
            "what experts add to {:?}",
            x.shape()
        );
        assert_eq!(x.rows, tokens.num_tokens(), "tokens of a mixture");
        if let Some(shared) = shared {
            assert_eq!(shared.shape(), x.shape(), "what a shared expert adds");
        }
        self.operation("combine", &[x.rows, x.columns], || {
            let shared = shared.map(|shared| &shared.buffer);
            routing
                .combine
                .launch(&x.buffer, &y.buffer, shared, x.columns, tokens)
        })
    }

    /// Waits for the card: how many rows an expert has is known there alone.
    pub(super) fn rows_of_expert(
        &self,
        out: &mut CudaMatrix,
        (x, input): (&CudaMatrix, ExpertInput),
        routing: &Routing,
        expert: usize,
    ) -> Done {
        let (operation, tokens) = ("gather_expert", &routing.tokens);
        assert_eq!(x.rows, rows_of(input, tokens), "rows that experts read");
        let (first, len) = self.operation(operation, &[expert], || tokens.read_rows_of(expert))?;
        let shape = (len, x.columns);
        self.resize(out, operation, shape)?;
        self.operation(operation, &[len, x.columns], || {
            let rows = tokens.row_numbers(input == ExpertInput::Tokens, (first, len))?;
            let gather = &self.rows.gather_f32;
            gather.launch(&out.buffer, &x.buffer, &rows, shape)
        })
    }
}

/// Rows of what experts read.
fn rows_of(input: ExpertInput, routing: &TokenRouting) -> usize {
    match input {
        ExpertInput::Tokens => routing.num_tokens(),
        ExpertInput::Rows => routing.num_rows(),
    }
}
