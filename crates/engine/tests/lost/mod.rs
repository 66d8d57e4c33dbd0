//! A card that is lost while it works: here a kernel writes where nothing is, after which the driver refuses everything.

use std::sync::Arc;

use dualgrain_cuda::CudaDevice;
use dualgrain_device::sampling::SamplingParams;
use dualgrain_device::{CacheFormat, CacheShape, Device, Done, StepLayout, StepLimits};
use dualgrain_engine::scheduler::{Event, Scheduler, TokenRequest};
use dualgrain_engine::{Session, SessionLimits};

use crate::toy;

/// Whether requests that run while the card is lost, and those that come later, end with an error that names the card. The card
/// is of no use to this process afterwards.
pub fn requests_end_in_words(card: &Arc<CudaDevice>) -> bool {
    let session = Session::new(toy::model(Arc::clone(card)), SessionLimits::new(3, 120, 20)).unwrap();
    let mut scheduler = Scheduler::new(session);
    for first in 0..3 {
        scheduler.admit(request(first)).unwrap();
    }
    for _ in 0..6 {
        scheduler.step();
    }
    let is_lost = write_where_nothing_is(card).is_err();
    let mut errors = Vec::new();
    for round in 0..2 {
        if round == 1 {
            scheduler.admit(request(7)).unwrap();
        }
        // A step or two: the error may be met where tokens are read.
        for _ in 0..4 {
            let failed = scheduler
                .step()
                .events
                .into_iter()
                .filter_map(|event| match event {
                    Event::Failed { error, .. } => Some(error.to_string()),
                    _ => None,
                });
            errors.extend(failed);
        }
    }
    let is_named = |error: &String| error.contains("cuda:0");
    let is_right = is_lost && errors.len() == 4 && errors.iter().all(is_named) && scheduler.is_idle();
    if !is_right {
        println!("FAILED: a lost card ({is_lost}): expected 4 errors that name it, got {errors:?}");
    }
    is_right
}

fn request(first: u32) -> TokenRequest {
    TokenRequest {
        score_from: None,
        prompt: (0..30).map(|i| (i * 7 + first) % toy::VOCAB_SIZE).collect(),
        sampling: SamplingParams::GREEDY,
        max_tokens: Some(80),
        end_tokens: Vec::new(),
        keep: false,
        constraint: None,
    }
}

/// Writes keys and values to a page far outside of a cache's memory, and waits for what comes of it.
fn write_where_nothing_is(card: &CudaDevice) -> Done {
    const HEAD_DIM: usize = 64;
    let shape = CacheShape {
        num_layers: 1,
        num_kv_heads: 1,
        head_dim: HEAD_DIM,
        num_pages: 1,
    };
    let mut cache = card.cache(shape, &CacheFormat::F32)?;
    let mut step = card.step(StepLimits {
        tokens: 1,
        sequences: 1,
        pages_per_sequence: 1,
    })?;
    let layout = StepLayout {
        positions: &[0],
        sequences: &[0],
        page_tables: &[vec![u32::MAX / 2]],
    };
    card.upload_step(&mut step, &layout)?;
    let mut x = card.matrix(1, 3 * HEAD_DIM)?;
    card.upload(&mut x, &[1.0; 3 * HEAD_DIM])?;
    let (keys, values) = (HEAD_DIM..2 * HEAD_DIM, 2 * HEAD_DIM..3 * HEAD_DIM);
    card.cache_write(&mut cache, 0, &x, keys, values, &step)?;
    card.download(&x, 0..1, &mut [0.0; 3 * HEAD_DIM])
}
