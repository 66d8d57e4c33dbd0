//! Times of a mixture's products on a card, beside what its memory gives at best.

use dualgrain_cuda::{
    Buffer, CudaError, ExpertLinear, ExpertOperand, ExpertTable, GemmExperts, Gpu, Jit, PackedLinear,
    QuantizedTokens, TokenRouting, read_bytes_per_s, times_s,
};
use dualgrain_device::cases::{HOSTILITIES, Random, w4_layer};
use dualgrain_device::{RoutingRule, RoutingScoring, RoutingShape};
use dualgrain_format::GroupSize;

/// Experts of the mixture, and of a token.
const EXPERTS: usize = 128;
const CHOSEN: usize = 8;

/// Times of steps of few and of many tokens, for the two products of a mixture of 128 experts of 768 x 2,048.
pub fn print_all(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    let best = read_bytes_per_s(jit, gpu, 5)?;
    println!("memory: {:.0} GB/s", best / 1e9);
    for (n, k) in [(1_536, 2_048), (2_048, 768), (768, 2_048)] {
        let experts = Mixture::new(jit, gpu, (n, k))?;
        for m in [1, 2, 4, 8, 16, 32, 64, 128, 512, 1_024, 2_048, 4_096] {
            experts.time(m, best)?;
        }
    }
    time_routing(jit, gpu)
}

struct Mixture<'a> {
    jit: &'a Jit,
    gpu: &'a Gpu,
    shape: (usize, usize),
    /// What the table points to.
    linears: Vec<PackedLinear>,
    table: ExpertTable,
    products: GemmExperts,
}

impl<'a> Mixture<'a> {
    fn new(jit: &'a Jit, gpu: &'a Gpu, (n, k): (usize, usize)) -> Result<Self, CudaError> {
        // Rows are the same ones over and over: random numbers take longer than the card.
        let group = GroupSize::Along(128);
        let once = w4_layer(&mut Random(5), (64, k), group, HOSTILITIES[0]);
        let first = PackedLinear::repeated(gpu, &once, n)?;
        let copies = (1..EXPERTS).map(|_| first.copy(gpu));
        let mut linears = copies.collect::<Result<Vec<_>, _>>()?;
        linears.push(first);
        let entries: Vec<_> = linears.iter().map(ExpertLinear::W4).collect();
        let table = ExpertTable::new(gpu, &entries)?;
        let products = GemmExperts::new(jit, gpu, &table)?;
        Ok(Self {
            jit,
            gpu,
            shape: (n, k),
            linears,
            table,
            products,
        })
    }

    /// Steps of few tokens go to other experts from launch to launch, so that their weights come from memory.
    fn time(&self, m: usize, best: f64) -> Result<(), CudaError> {
        let ((n, k), mut r) = (self.shape, Random(m as u64));
        let routings = (0..EXPERTS / CHOSEN)
            .map(|turn| self.routing(m, turn, &mut r))
            .collect::<Result<Vec<_>, _>>()?;
        let codes: Vec<i8> = (0..m * k).map(|_| (r.below(255) as i32 - 127) as i8).collect();
        let tokens = QuantizedTokens::upload(self.gpu, &codes, &vec![0.01; m], k)?;
        let out = self.gpu.filled(4 * m * CHOSEN * n, 0)?;
        let times = times_s(self.gpu, 5, routings.len(), |i| {
            let a = (ExpertOperand::Int8(&tokens), true);
            self.products.launch(&out, a, &self.table, &routings[i].0)
        })?;
        let read: usize = routings.iter().map(|(_, experts)| experts).sum();
        let bytes = (read * self.linears[0].image_bytes()) as f64 / routings.len() as f64;
        let (time_s, ops) = (times[times.len() / 2], 2.0 * (m * CHOSEN * n * k) as f64);
        println!(
            "gemm_experts (w4) {m} tokens, {n} x {k}: {:.2} us, {:.0} GB/s of weights ({:.0} % of the memory's), {:.1} TOPS",
            time_s * 1e6,
            bytes / time_s / 1e9,
            100.0 * bytes / time_s / best,
            ops / time_s / 1e12
        );
        Ok(())
    }

    /// One token goes to the experts of its turn, more of them anywhere; and how many experts are chosen.
    fn routing(&self, m: usize, turn: usize, r: &mut Random) -> Result<(TokenRouting, usize), CudaError> {
        let mut logits = r.floats(m * EXPERTS);
        logits[turn * CHOSEN..][..CHOSEN].fill(2.0);
        let mut routing = TokenRouting::new(self.jit, self.gpu, shape(m))?;
        let logits = self.gpu.upload(&logits)?;
        routing.launch(&logits, (m, EXPERTS), None, &RULE)?;
        let mut used = 0;
        for expert in 0..EXPERTS {
            used += usize::from(routing.read_rows_of(expert)?.1 > 0);
        }
        Ok((routing, used))
    }
}

const RULE: RoutingRule = RoutingRule {
    num_chosen: CHOSEN,
    scoring: RoutingScoring::Softmax,
    normalized: true,
    scale: 1.0,
};

fn shape(tokens: usize) -> RoutingShape {
    RoutingShape {
        tokens,
        num_experts: EXPERTS,
        num_chosen: CHOSEN,
        columns: 2_048,
    }
}

fn time_routing(jit: &Jit, gpu: &Gpu) -> Result<(), CudaError> {
    for m in [1, 8, 64, 512, 4_096] {
        let logits: Buffer = gpu.upload(&Random(3).floats(m * EXPERTS))?;
        let routing = std::cell::RefCell::new(TokenRouting::new(jit, gpu, shape(m))?);
        let times = times_s(gpu, 5, 1, |_| {
            routing.borrow_mut().launch(&logits, (m, EXPERTS), None, &RULE)
        })?;
        println!("route {m} tokens: {:.2} us", times[times.len() / 2] * 1e6);
    }
    Ok(())
}
