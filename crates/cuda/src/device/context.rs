//! The cache with the kernels that its format and its layers need, and the step with its recorded launches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dualgrain_device::{
    ActivationScale, AttentionParams, CacheFormat, CacheShape, Columns, Device, DeviceError, Done,
    StepLayout, StepLimits,
};

use super::buffers::{CudaMatrix, CudaQuantized};
use super::cuda_device::CudaDevice;
use crate::attention::{
    Attended, Attention, AttentionWorkspace, CacheWrite, PagedCache, RotatedQueries, StepTokens,
};
use crate::driver::{Graph, without_launches};
use crate::error::CudaError;

/// Steps of more tokens are launched as they come: their kernels take longer than launching them.
const MOST_RECORDED_TOKENS: usize = 512;

/// What kernels that are compiled during the first steps and the step's tables take, about.
const KERNELS_BYTES: u64 = 64 << 20;

/// Bytes of a card's memory that kernels need beside weights, cache and the buffers of a step, for steps within `limits` of
/// a model with `heads` query heads of `head_dim` and `vocab_size` tokens to sample from.
pub fn workspace_bytes(limits: StepLimits, (heads, head_dim): (usize, usize), vocab_size: usize) -> u64 {
    let attention = AttentionWorkspace::bytes_for(limits, heads, head_dim);
    let sampler = limits.sequences.saturating_mul(8 * vocab_size);
    (attention as u64)
        .saturating_add(sampler as u64)
        .saturating_add(KERNELS_BYTES)
}

/// Paged keys and values with the kernels that write and read them.
pub struct CudaCache {
    pages: PagedCache,
    write: CacheWrite,
    /// For each kind of layer.
    attention: Mutex<Vec<(AttentionParams, Arc<Attention>)>>,
}

/// Positions and page tables of a step, and what steps of the same form have launched.
pub struct CudaStep {
    tokens: StepTokens,
    workspace: OnceLock<AttentionWorkspace>,
    recorded: Mutex<Recorded>,
}

/// How many tokens a step has, and whether sequences have one each.
type StepForm = (usize, bool);

/// What steps of each form have launched.
#[derive(Default)]
struct Recorded {
    forms: HashMap<StepForm, Recording>,
    /// Form of the step before.
    last: Option<StepForm>,
}

/// What is known of steps of a form.
enum Recording {
    /// One was launched: all kernels are compiled and all products are chosen.
    Seen,
    /// Its launches, to be replayed.
    Graph(Graph<'static>),
}

// SAFETY: a graph is a handle of the driver's, which may be called from any thread; it is launched under the lock.
unsafe impl Send for Recording {}

impl CudaCache {
    pub(super) fn bytes(&self) -> usize {
        self.pages.bytes()
    }

    fn attention(&self, device: &CudaDevice, params: &AttentionParams) -> Result<Arc<Attention>, CudaError> {
        let mut ready = lock(&self.attention);
        if let Some((_, attention)) = ready.iter().find(|(known, _)| known == params) {
            return Ok(Arc::clone(attention));
        }
        let attention = Arc::new(Attention::new(&device.jit, &device.gpu, &self.pages, params)?);
        ready.push((params.clone(), Arc::clone(&attention)));
        Ok(attention)
    }
}

impl CudaDevice {
    pub(super) fn new_cache(
        &self,
        shape: CacheShape,
        format: &CacheFormat,
    ) -> Result<CudaCache, DeviceError> {
        let token = format.bytes_per_token(shape.num_kv_heads, shape.head_dim);
        let tokens = [
            shape.num_layers,
            shape.num_pages,
            dualgrain_device::PAGE_TOKENS,
            token,
        ];
        let size_bytes = tokens
            .iter()
            .fold(1usize, |product, &size| product.saturating_mul(size));
        self.buffer("KV cache", size_bytes, || {
            let pages = PagedCache::new(&self.gpu, shape, format)?;
            Ok(CudaCache {
                write: CacheWrite::new(&self.jit, &self.gpu, &pages)?,
                attention: Mutex::default(),
                pages,
            })
        })
    }

    pub(super) fn new_step(&self, limits: StepLimits) -> Result<CudaStep, DeviceError> {
        let words = limits
            .tokens
            .saturating_add(limits.sequences.saturating_mul(limits.pages_per_sequence));
        Ok(CudaStep {
            tokens: self.buffer("step", 4 * words, || StepTokens::new(&self.gpu, limits))?,
            workspace: OnceLock::new(),
            recorded: Mutex::default(),
        })
    }

    pub(super) fn fill_step(&self, step: &mut CudaStep, layout: &StepLayout<'_>) -> Done {
        let sizes = [layout.positions.len(), layout.page_tables.len()];
        self.operation("upload_step", &sizes, || {
            step.tokens
                .fill_by(layout, |buffer, words| self.staging.copy(buffer, 0, words))
        })
    }

    pub(super) fn write_cache(
        &self,
        cache: &mut CudaCache,
        layer: usize,
        x: &CudaMatrix,
        (keys, values): (Columns, Columns),
        step: &CudaStep,
    ) -> Done {
        self.operation("cache_write", &[x.rows, keys.len()], || {
            let from = (&x.buffer, x.columns);
            cache
                .write
                .launch(from, (keys, values), &mut cache.pages, layer, &step.tokens)
        })
    }

    /// Rotates queries and keys, and writes keys and values; in one kernel where that exists, which may leave queries to attention.
    pub(super) fn rotate_and_write_cache(
        &self,
        (cache, layer): (&mut CudaCache, usize),
        x: &mut CudaMatrix,
        ([queries, keys, values], of): ([Columns; 3], RotatedQueries),
        (head_dim, angles): (usize, &CudaMatrix),
        step: &CudaStep,
    ) -> Done {
        if !cache.write.rotates(&cache.pages, angles.columns) {
            self.rope(x, queries.start..keys.end, head_dim, angles)?;
            return self.write_cache(cache, layer, x, (keys, values), step);
        }
        self.operation("rope_cache_write", &[x.rows, keys.len()], || {
            let (from, place) = ((&x.buffer, x.columns), (&mut cache.pages, layer));
            let columns = ([queries, keys, values], of);
            cache
                .write
                .launch_rotated(from, columns, &angles.buffer, place, &step.tokens)
        })
    }

    /// The same with attention and the codes of its outputs; in one kernel, codes apart where there are more than few tokens, where sequences
    /// have one token each and there is one for their heads.
    pub(super) fn attend_joined(
        &self,
        (out, scale): (&mut CudaQuantized, ActivationScale),
        c: &mut CudaMatrix,
        (cache, layer): (&mut CudaCache, usize),
        (x, columns): (&mut CudaMatrix, [Columns; 3]),
        (head_dim, angles): (usize, &CudaMatrix),
        (params, step): (&AttentionParams, &CudaStep),
    ) -> Done {
        let (name, sizes) = (
            "rope_cache_write_attention_quantize",
            [x.rows, params.num_heads, head_dim],
        );
        let attention = cache.attention(self, params);
        let attention = attention.map_err(|error| self.failed(name, &sizes, &error))?;
        if angles.columns != head_dim || !attention.joins(&step.tokens) {
            self.attend_apart(
                c,
                &attention,
                (cache, layer),
                (x, columns),
                angles,
                (params, step),
            )?;
            return self.quantize(out, c, scale);
        }
        let (shape, makes_codes) = (
            (x.rows, params.num_heads * head_dim),
            attention.makes_codes(&step.tokens),
        );
        match makes_codes {
            true => self.resize_quantized(out, name, shape)?,
            false => self.resize(c, name, shape)?,
        }
        self.operation(name, &sizes, || {
            let workspace = self.workspace(step, (params.num_heads, head_dim))?;
            let to = match makes_codes {
                true => Attended::Codes(&mut out.tokens, scale),
                false => Attended::Floats(&c.buffer),
            };
            attention.launch_joined(
                to,
                (&x.buffer, x.columns),
                columns,
                &angles.buffer,
                (&mut cache.pages, layer),
                (&step.tokens, workspace),
            )
        })?;
        match makes_codes {
            true => Ok(()),
            false => self.quantize(out, c, scale),
        }
    }

    /// The rotation with the cache's keys and values, then attention. Queries of runs are rotated as attention reads them, where its kernel
    /// can do so.
    fn attend_apart(
        &self,
        c: &mut CudaMatrix,
        attention: &Attention,
        (cache, layer): (&mut CudaCache, usize),
        (x, columns): (&mut CudaMatrix, [Columns; 3]),
        angles: &CudaMatrix,
        (params, step): (&AttentionParams, &CudaStep),
    ) -> Done {
        let (queries, head_dim) = (columns[0].clone(), cache.pages.shape().head_dim);
        let rotates =
            attention.rotates_runs(&step.tokens) && cache.write.rotates(&cache.pages, angles.columns);
        let of = match rotates {
            true => RotatedQueries::OfSpans,
            false => RotatedQueries::All,
        };
        self.rotate_and_write_cache((cache, layer), x, (columns, of), (head_dim, angles), step)?;
        if !rotates {
            return self.attend(c, (x, queries), (cache, layer), params, step);
        }
        self.resize(c, "attention", (x.rows, params.num_heads * head_dim))?;
        self.operation("attention", &[x.rows, params.num_heads, head_dim], || {
            let step = (&step.tokens, self.workspace(step, (params.num_heads, head_dim))?);
            let (from, queries) = ((&x.buffer, x.columns), (queries, &angles.buffer));
            attention.launch_rotating(&c.buffer, from, queries, (&cache.pages, layer), step)
        })
    }

    pub(super) fn attend(
        &self,
        out: &mut CudaMatrix,
        (x, queries): (&CudaMatrix, Columns),
        (cache, layer): (&CudaCache, usize),
        params: &AttentionParams,
        step: &CudaStep,
    ) -> Done {
        let head_dim = cache.pages.shape().head_dim;
        self.resize(out, "attention", (x.rows, params.num_heads * head_dim))?;
        self.operation("attention", &[x.rows, params.num_heads, head_dim], || {
            let attention = cache.attention(self, params)?;
            let workspace = self.workspace(step, (params.num_heads, head_dim))?;
            let from = (&x.buffer, x.columns);
            attention.launch(
                &out.buffer,
                from,
                queries,
                &cache.pages,
                layer,
                &step.tokens,
                workspace,
            )
        })
    }

    /// Room for what spans leave to be joined; all layers of a model have the same heads.
    fn workspace<'s>(
        &self,
        step: &'s CudaStep,
        (heads, head_dim): (usize, usize),
    ) -> Result<&'s AttentionWorkspace, CudaError> {
        if let Some(workspace) = step.workspace.get() {
            return Ok(workspace);
        }
        let workspace = AttentionWorkspace::new(&self.gpu, step.tokens.limits(), heads, head_dim)?;
        Ok(step.workspace.get_or_init(|| workspace))
    }

    /// Runs a step; from the third one of a form on, its launches are a recorded graph. Recording takes longer than a step: a form that
    /// does not stay for two steps, as where sequences end one after the other, is launched plainly.
    pub(super) fn run_recorded(&self, step: &CudaStep, run: &mut dyn FnMut() -> Done) -> Done {
        let tokens = step.tokens.num_tokens();
        if !step.tokens.is_split() || tokens > MOST_RECORDED_TOKENS || self.clock.is_on() {
            return run();
        }
        let mut recorded = lock(&step.recorded);
        let form = (tokens, step.tokens.is_single());
        let stays = recorded.last.replace(form) == Some(form);
        match recorded.forms.get(&form) {
            None => {
                run()?;
                recorded.forms.insert(form, Recording::Seen);
                Ok(())
            }
            Some(Recording::Seen) if !stays => run(),
            Some(Recording::Seen) => {
                let graph = self.record(run)?;
                self.operation("run_step", &[tokens], || graph.launch())?;
                recorded.forms.insert(form, Recording::Graph(graph));
                Ok(())
            }
            Some(Recording::Graph(graph)) => {
                // The card works while the host says of each buffer how many rows it has now.
                self.operation("run_step", &[tokens], || graph.launch())?;
                without_launches(run)
            }
        }
    }

    fn record(&self, run: &mut dyn FnMut() -> Done) -> Result<Graph<'static>, DeviceError> {
        // SAFETY: a session owns the step and every buffer that the step's operations name, and launches through the step alone;
        // weights live as long as the model, which the session holds.
        unsafe { Graph::record_unbound(&self.gpu, run, |error| self.failed("run_step", &[], &error)) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
