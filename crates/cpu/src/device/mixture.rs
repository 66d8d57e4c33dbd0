//! Mixtures of experts on the CPU.

use dualgrain_device::{
    Capacity, Device, Done, ExpertInput, HostRouting, Operand, RoutedToken, RoutingRule, RoutingShape,
};
use dualgrain_threads::SharedSlice;

use super::cpu_device::CpuDevice;
use super::linear::{Linear, Packed};
use super::row_tasks::one_row;
use crate::float::gemm;
use crate::gemm_w4a8::experts::{ExpertProduct, gemm_experts};
use crate::rows::mixture;
use crate::tensor::matrix::Matrix;
use crate::tensor::quantized::Quantized;
use crate::tensor::sorted_rows::{ExpertRows, SortedRows};

/// Tokens whose experts one task chooses.
const TOKENS_PER_TASK: usize = 8;

/// Which tokens go to which expert, and room for what the experts read.
#[derive(Debug)]
pub struct Routing {
    host: HostRouting,
    sorted: SortedRows,
}

impl Routing {
    pub(super) fn new(shape: RoutingShape) -> Self {
        Self {
            host: HostRouting::new(shape),
            sorted: SortedRows::new(shape),
        }
    }

    /// The routing itself.
    pub fn host(&self) -> &HostRouting {
        &self.host
    }
}

impl CpuDevice {
    pub(super) fn choose_experts(
        &self,
        routing: &mut Routing,
        logits: &Matrix,
        bias: Option<&Matrix>,
        rule: &RoutingRule,
    ) -> Done {
        let shape = (logits.rows, logits.columns);
        let room = Capacity::new(routing.host.shape().tokens, logits.columns);
        room.check("route", || self.name(), shape)?;
        routing.host.assert_fits(logits.columns, rule);
        let num_experts = routing.host.shape().num_experts;
        let bias = bias.map(|bias| one_row("bias", bias, num_experts));
        let mut tokens: Vec<RoutedToken<'_>> = routing.host.begin(logits.rows).collect();
        self.pool()
            .for_each_chunk(&mut tokens, TOKENS_PER_TASK, |chunk, tokens| {
                for (token, routed) in tokens.iter_mut().enumerate() {
                    let logits = logits.row(chunk * TOKENS_PER_TASK + token);
                    mixture::fill(self.isa(), routed, logits, bias, rule, num_experts);
                }
            });
        routing.host.sort();
        Ok(())
    }

    pub(super) fn products_of_experts(
        &self,
        out: &mut Matrix,
        (a, input): (Operand<'_, Self>, ExpertInput),
        experts: &[Linear],
        routing: &mut Routing,
    ) -> Done {
        let n = experts.first().map_or(0, Linear::n);
        self.reshape(out, "gemm_experts", (routing.host.num_rows(), n))?;
        match a {
            Operand::Int8(a) => self.integer_products(out, (a, input), experts, routing),
            Operand::Float(a) => self.float_products(out, (a, input), experts, routing),
        }
        Ok(())
    }

    fn integer_products(
        &self,
        out: &mut Matrix,
        (a, input): (&Quantized, ExpertInput),
        experts: &[Linear],
        Routing { host, sorted }: &mut Routing,
    ) {
        let places = sorted.sort_codes(self.pool(), (a.view(), input), host);
        let product = |of: &ExpertRows| {
            let ExpertRows { expert, rows, .. } = of;
            let Packed::Int(weights) = &experts[*expert].0 else {
                panic!("float weights take float activations, got INT8")
            };
            ExpertProduct {
                a: sorted.codes(a.view(), of),
                weights,
                first_row: rows.start,
            }
        };
        let products: Vec<_> = places.iter().map(product).collect();
        let d = SharedSlice::new(out.values_mut());
        gemm_experts(self.isa(), self.pool(), &products, self.take_next(), &d);
    }

    fn float_products(
        &self,
        out: &mut Matrix,
        (a, input): (&Matrix, ExpertInput),
        experts: &[Linear],
        Routing { host, sorted }: &mut Routing,
    ) {
        let (k, n) = (a.columns, out.columns);
        let a = match input {
            ExpertInput::Tokens => sorted.sort_floats(a.values(), k, host),
            ExpertInput::Rows => a.values(),
        };
        for (expert, linear) in experts.iter().enumerate() {
            let rows = host.rows_of(expert);
            if rows.is_empty() {
                continue;
            }
            let Packed::Float(weights) = &linear.0 else {
                panic!("integer weights take INT8 activations, got floats")
            };
            let (a, d) = (
                &a[rows.start * k..rows.end * k],
                &mut out.values_mut()[rows.start * n..rows.end * n],
            );
            gemm::gemm(self.isa(), self.pool(), a, weights, d);
        }
    }

    pub(super) fn combine_experts(
        &self,
        x: &mut Matrix,
        y: &Matrix,
        shared: Option<&Matrix>,
        routing: &HostRouting,
    ) {
        let columns = x.columns;
        assert_eq!(
            (y.rows, y.columns),
            (routing.num_rows(), columns),
            "outputs of the experts"
        );
        self.for_rows(x.values_mut(), columns, |token, x| {
            let shared = shared.map(|shared| shared.row(token));
            mixture::combine(self.isa(), x, y.values(), shared, routing, token);
        });
    }

    pub(super) fn rows_of_expert(
        &self,
        out: &mut Matrix,
        (x, input): (&Matrix, ExpertInput),
        routing: &HostRouting,
        expert: usize,
    ) -> Done {
        let rows = routing.rows_of(expert);
        self.fill(out, "gather_expert", (rows.len(), x.columns), |row, out| {
            out.copy_from_slice(x.row(input.row(rows.start + row, routing)));
        })
    }
}
