//! A routing in a card's memory, and the kernels that fill it: `route` and `sort_pairs`, or `route_few`, beside their texts in cu/experts.

use std::sync::Arc;

use dualgrain_device::{MAX_EXPERTS, RoutingRule, RoutingScoring, RoutingShape};

use crate::compiler::{Jit, Source};
use crate::cu;
use crate::driver::{Buffer, Gpu, Kernel, Launch, launch_with};
use crate::error::CudaError;
use crate::fit::{at_least, count, room};

/// Threads of a CTA of `route`, and tokens that it takes.
const ROUTE_THREADS: usize = 128;
const ROUTE_TOKENS: usize = 4;
/// Threads of a CTA of `sort_pairs`.
const SORT_THREADS: usize = 512;
/// Most tokens, experts and pairs of `route_few`, and its least threads: one for each expert, a warp for each token.
const FEW_TOKENS: usize = 32;
const FEW_EXPERTS: usize = 256;
const FEW_PAIRS: usize = 256;
/// Bytes of `Tile` in cu/experts/experts.cuh.
const TILE_BYTES: usize = 16;
/// The fewest rows that a tile is cut for.
const LEAST_TILE: usize = 8;

/// The texts and macros of the kernels, with the threads of a CTA: `route` for as many experts as `route_few` takes and for all, then the others.
pub fn routing_sources() -> [(Source, usize); 4] {
    let source = |name, text, experts: usize| Source {
        name,
        text,
        headers: cu::EXPERT_HEADERS,
        macros: vec![("LANE_EXPERTS", experts.div_ceil(32) as i64)],
    };
    [
        (source("route", cu::ROUTE, FEW_EXPERTS), ROUTE_THREADS),
        (source("route", cu::ROUTE, MAX_EXPERTS), ROUTE_THREADS),
        (source("route_few", cu::ROUTE_FEW, FEW_EXPERTS), 32 * FEW_TOKENS),
        (source("sort_pairs", cu::SORT_PAIRS, MAX_EXPERTS), SORT_THREADS),
    ]
}

/// Arguments of `route`, as `RouteArgs` there.
#[repr(C)]
struct RouteArgs {
    logits: u64,
    bias: u64,
    experts: u64,
    weights: u64,
    shared: u64,
    m: i32,
    columns: i32,
    num_experts: i32,
    num_chosen: i32,
    is_sigmoid: i32,
    is_normalized: i32,
    scale: f32,
}

/// Arguments of `sort_pairs`, as `SortArgs` there.
#[repr(C)]
struct SortArgs {
    experts: u64,
    rows: u64,
    tokens: u64,
    starts: u64,
    tiles: u64,
    done: u64,
    pairs: i32,
    num_chosen: i32,
    num_experts: i32,
    tile_rows: i32,
    most_tiles: i32,
}

/// Arguments of `route_few`, as `RouteFewArgs` there.
#[repr(C)]
struct RouteFewArgs {
    route: RouteArgs,
    sort: SortArgs,
}

/// Which tokens go to which expert: buffers of fixed capacity on the card, and the kernels that fill them.
///
/// Its rows are the pairs of a token and an expert, sorted by expert and then by token, and cut into tiles of rows of one expert.
pub struct TokenRouting {
    shape: RoutingShape,
    num_tokens: usize,
    /// `[tokens, num_chosen]`, ascending
    experts: Buffer,
    /// `[tokens, num_chosen]`
    weights: Buffer,
    /// `[tokens, num_chosen]`: rows of the pairs
    rows: Buffer,
    /// `[tokens]`: weight of the shared expert
    shared: Buffer,
    /// `[rows]`: the token of each
    tokens: Arc<Buffer>,
    /// `[rows]`: 0, 1, ...
    numbers: Arc<Buffer>,
    /// `[num_experts + 1]`
    starts: Buffer,
    tiles: Buffer,
    /// One word, 0 between launches.
    done: Buffer,
    route: Arc<Kernel>,
    sort: Arc<Kernel>,
    route_few: Arc<Kernel>,
    programmatic: bool,
}

/// Rows of a tile where `rows` of `num_tokens` tokens go to `num_experts` experts. An expert's weights are read anew for every tile, and a tile
/// computes for all the rows that it has room for: so about as many as an expert has, should they be shared out evenly.
fn tile_rows(num_tokens: usize, rows: usize, num_experts: usize) -> usize {
    let mean = rows.div_ceil(num_experts);
    match mean {
        0..=5 => LEAST_TILE,
        // No expert has more rows than there are tokens.
        _ if num_tokens <= LEAST_TILE => LEAST_TILE,
        6..=10 => 16,
        _ if num_tokens <= 16 => 16,
        11..=24 => 32,
        _ => 64,
    }
}

/// The most tiles that so many rows are cut into: every expert that has rows may have one tile that is not full.
fn most_tiles(rows: usize, num_experts: usize, tile_rows: usize) -> usize {
    let chosen = rows.min(num_experts);
    chosen + (rows - chosen) / tile_rows
}

impl TokenRouting {
    /// Room for `shape`, and the kernels for a card.
    ///
    /// # Errors
    /// Sizes the kernels cannot count, more experts than they sort, no memory; a kernel that does not compile.
    pub fn new(jit: &Jit, gpu: &Gpu, shape: RoutingShape) -> Result<Self, CudaError> {
        let (tokens, chosen) = (
            count("tokens of a routing", shape.tokens)?,
            count("experts of a token", shape.num_chosen)?,
        );
        let pairs = count("rows of a routing", tokens.saturating_mul(chosen))?;
        count("experts", shape.num_experts)?;
        room("experts", shape.num_experts, MAX_EXPERTS)?;
        room("experts of a token", chosen, shape.num_experts)?;
        let tiles = most_tiles(pairs, shape.num_experts, LEAST_TILE);
        let numbers: Vec<u32> = (0..pairs as u32).collect();
        let [few, many, route_few, sort] = routing_sources().map(|(source, _)| jit.kernel(&source));
        let route = if shape.num_experts <= FEW_EXPERTS {
            few
        } else {
            many
        };
        Ok(Self {
            shape,
            num_tokens: 0,
            experts: gpu.filled(4 * pairs, 0)?,
            weights: gpu.filled(4 * pairs, 0)?,
            rows: gpu.filled(4 * pairs, 0)?,
            shared: gpu.filled(4 * tokens, 0)?,
            tokens: Arc::new(gpu.filled(4 * pairs, 0)?),
            numbers: Arc::new(gpu.upload(&numbers)?),
            starts: gpu.filled(4 * (shape.num_experts + 1), 0)?,
            tiles: gpu.filled(TILE_BYTES * tiles, 0)?,
            done: gpu.filled(4, 0)?,
            route: route?,
            sort: sort?,
            route_few: route_few?,
            programmatic: gpu.info().overlaps_launches(),
        })
    }

    /// What it was made for.
    pub fn shape(&self) -> RoutingShape {
        self.shape
    }

    /// Tokens of the step.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }

    /// Pairs of a token and an expert.
    pub fn num_rows(&self) -> usize {
        self.num_tokens * self.shape.num_chosen
    }

    /// Rows that a tile has at most.
    pub(crate) fn tile_rows(&self) -> usize {
        tile_rows(self.num_tokens, self.num_rows(), self.shape.num_experts)
    }

    /// Tiles that there may be: those that there are not have no rows.
    pub(crate) fn most_tiles(&self) -> usize {
        most_tiles(self.num_rows(), self.shape.num_experts, self.tile_rows())
    }

    /// Puts the routing of `m` rows of `logits` f32 `[.., columns]` by `rule` on the card's stream; `bias` f32 `[num_experts]`. A column more
    /// than there are experts is the gate of the shared one.
    ///
    /// # Errors
    /// More tokens than there is room for, buffers that are too short, or a launch the driver refuses.
    pub fn launch(
        &mut self,
        logits: &Buffer,
        (m, columns): (usize, usize),
        bias: Option<&Buffer>,
        rule: &RoutingRule,
    ) -> Result<(), CudaError> {
        let RoutingShape {
            num_experts,
            num_chosen,
            ..
        } = self.shape;
        room("tokens of a routing", m, self.shape.tokens)?;
        room("columns of a router", num_experts, columns)?;
        room("experts of a token", rule.num_chosen, num_chosen)?;
        at_least("logits of a router", 4 * m * columns, logits)?;
        if let Some(bias) = bias {
            at_least("bias of a router", 4 * num_experts, bias)?;
        }
        self.num_tokens = m;
        if m == 0 {
            return Ok(());
        }
        let route = self.route_args(logits, (m, columns), bias, rule);
        let is_few = m <= FEW_TOKENS && num_experts <= FEW_EXPERTS && self.num_rows() <= FEW_PAIRS;
        match is_few {
            true => self.launch_few(route),
            false => self.launch_many(route),
        }
    }

    fn launch_few(&self, route: RouteArgs) -> Result<(), CudaError> {
        let threads = (32 * self.num_tokens).max(FEW_EXPERTS);
        let sort = self.sort_args();
        let mut args = RouteFewArgs { route, sort };
        let grid = Launch::rows(1, 1, threads as u32, self.programmatic);
        // SAFETY: the kernel's one parameter; logits and bias are long enough, and the routing's buffers have room for so many tokens (the
        // caller has checked both).
        unsafe { launch_with(&self.route_few, &grid, &mut args) }
    }

    fn launch_many(&self, mut route: RouteArgs) -> Result<(), CudaError> {
        let grid = |ctas, threads: usize| Launch::rows(ctas, 1, threads as u32, self.programmatic);
        let by_tokens = grid(self.num_tokens.div_ceil(ROUTE_TOKENS), ROUTE_THREADS);
        // SAFETY: as in `launch_few`.
        unsafe { launch_with(&self.route, &by_tokens, &mut route)? };
        let (mut sort, by_experts) = (self.sort_args(), grid(self.shape.num_experts, SORT_THREADS));
        // SAFETY: the kernel's one parameter; the buffers are made for so many pairs, experts and tiles.
        unsafe { launch_with(&self.sort, &by_experts, &mut sort) }
    }

    fn route_args(
        &self,
        logits: &Buffer,
        (m, columns): (usize, usize),
        bias: Option<&Buffer>,
        rule: &RoutingRule,
    ) -> RouteArgs {
        RouteArgs {
            logits: logits.address(),
            bias: bias.map_or(0, Buffer::address),
            experts: self.experts.address(),
            weights: self.weights.address(),
            shared: self.shared.address(),
            m: m as i32,
            columns: columns as i32,
            num_experts: self.shape.num_experts as i32,
            num_chosen: self.shape.num_chosen as i32,
            is_sigmoid: i32::from(rule.scoring == RoutingScoring::Sigmoid),
            is_normalized: i32::from(rule.normalized),
            scale: rule.scale,
        }
    }

    fn sort_args(&self) -> SortArgs {
        SortArgs {
            experts: self.experts.address(),
            rows: self.rows.address(),
            tokens: self.tokens.address(),
            starts: self.starts.address(),
            tiles: self.tiles.address(),
            done: self.done.address(),
            pairs: self.num_rows() as i32,
            num_chosen: self.shape.num_chosen as i32,
            num_experts: self.shape.num_experts as i32,
            tile_rows: self.tile_rows() as i32,
            most_tiles: self.most_tiles() as i32,
        }
    }

    /// First row and number of rows of an expert; waits for the card.
    ///
    /// # Errors
    /// A call, or an earlier kernel, that failed.
    pub fn read_rows_of(&self, expert: usize) -> Result<(usize, usize), CudaError> {
        if self.num_tokens == 0 {
            return Ok((0, 0));
        }
        let mut ends = [0u32; 2];
        self.starts.read(4 * expert, &mut ends)?;
        let [start, end] = ends.map(|row| row as usize);
        Ok((start, end.saturating_sub(start)))
    }

    /// The token of each of `len` rows from `first`, or their own numbers.
    pub(crate) fn row_numbers(
        &self,
        of_tokens: bool,
        (first, len): (usize, usize),
    ) -> Result<Buffer, CudaError> {
        let all = if of_tokens { &self.tokens } else { &self.numbers };
        all.part(4 * first, 4 * len)
    }

    /// Where tiles and the token of each row lie.
    pub(crate) fn addresses(&self) -> (u64, u64) {
        (self.tiles.address(), self.tokens.address())
    }

    /// Where the weight of the shared expert, the weights of the others and their rows lie, token by token.
    pub(crate) fn of_tokens(&self) -> (u64, u64, u64) {
        (self.shared.address(), self.weights.address(), self.rows.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_have_the_sizes_of_the_kernels_structures() {
        assert_eq!((size_of::<RouteArgs>(), size_of::<SortArgs>()), (72, 72));
        assert_eq!(size_of::<RouteFewArgs>(), 144);
    }

    /// Tiles of rows that are shared out as unevenly as can be.
    #[test]
    fn no_routing_has_more_tiles_than_there_is_room_for() {
        for (tokens, num_experts, chosen) in [
            (1, 8, 2),
            (8, 128, 8),
            (33, 129, 8),
            (512, 128, 8),
            (300, 4, 2),
            (700, 3, 3),
        ] {
            let rows = tokens * chosen;
            let tile = tile_rows(tokens, rows, num_experts);
            for apart in 0..num_experts {
                // `apart` experts have one row each, the others the rest, one of them most of it.
                let (left, others) = (rows.saturating_sub(apart), num_experts - apart);
                let mut counts = vec![1; apart.min(rows)];
                counts.extend(vec![left / others; others]);
                counts.push(left % others);
                let tiles: usize = counts.iter().map(|rows: &usize| rows.div_ceil(tile)).sum();
                assert!(
                    tiles <= most_tiles(rows, num_experts + 1, tile),
                    "{tokens} {apart}"
                );
            }
            assert!(most_tiles(rows, num_experts, tile) <= most_tiles(rows, num_experts, LEAST_TILE));
        }
    }
}
