//! Writes the keys and values of a step into the pages of their sequences.

use dualgrain_device::{CacheShape, Columns, HostStep, MAX_HEAD_DIM, PAGE_TOKENS};
use dualgrain_threads::{Pool, SharedSlice};

use super::element::{Stored, padded_dim};
use super::storage::{Cache, Planes, Scales, Store};
use crate::isa::Isa;
use crate::tensor::matrix::Matrix;

/// Writes the keys and values of a step into `layer`.
pub(crate) fn write(
    (isa, pool): (Isa, &Pool),
    cache: &mut Cache,
    layer: usize,
    x: &Matrix,
    columns: (Columns, Columns),
    step: &HostStep,
) {
    let Cache {
        shape,
        store,
        key_scales,
        value_scales,
    } = cache;
    let task = Write {
        isa,
        pool,
        shape: *shape,
        layer,
        x,
        keys: columns.0,
        values: columns.1,
        step,
    };
    match store {
        Store::F32(planes) => task.write(planes, key_scales, value_scales),
        Store::F16(planes) => task.write(planes, key_scales, value_scales),
        Store::Int8(planes) => task.write(planes, key_scales, value_scales),
    }
}

struct Write<'a> {
    isa: Isa,
    pool: &'a Pool,
    shape: CacheShape,
    layer: usize,
    x: &'a Matrix,
    keys: Columns,
    values: Columns,
    step: &'a HostStep,
}

impl Write<'_> {
    fn write<E: Stored>(&self, planes: &mut Planes<E>, key_scales: &mut Scales, value_scales: &mut Scales) {
        let dim = self.shape.head_dim;
        assert!(dim <= MAX_HEAD_DIM, "head_dim {dim} above {MAX_HEAD_DIM}");
        let width = self.shape.num_kv_heads * dim;
        assert_eq!(
            (self.keys.len(), self.values.len()),
            (width, width),
            "key and value columns"
        );
        let (keys, values) = (
            SharedSlice::new(&mut planes.keys),
            SharedSlice::new(&mut planes.values),
        );
        let (key_scales, value_scales) = (
            ScaleSink::new(key_scales, self.layer),
            ScaleSink::new(value_scales, self.layer),
        );
        // A task owns one kv head of every page, so no two write the same block.
        let operations = 16 * self.x.rows * width;
        self.pool
            .run_if_worth(operations, self.shape.num_kv_heads, |kv_head| {
                let mut codes = [E::default(); MAX_HEAD_DIM];
                let codes = &mut codes[..dim];
                for token in 0..self.x.rows {
                    let (head_page, slot) = self.slot(token, kv_head);
                    let row = self.x.row(token);
                    let head = |columns: &Columns| &row[columns.start + kv_head * dim..][..dim];

                    let scale = E::convert(self.isa, head(&self.keys), key_scales.fixed, codes);
                    key_scales.set(head_page * PAGE_TOKENS + slot, scale);
                    let len = E::key_dim(dim) * PAGE_TOKENS;
                    // SAFETY: this task alone writes this head.
                    let page = unsafe { keys.range(head_page * len..(head_page + 1) * len) };
                    E::put_key(self.isa, page, slot, codes);

                    let scale = E::convert(self.isa, head(&self.values), value_scales.fixed, codes);
                    value_scales.set(head_page * PAGE_TOKENS + slot, scale);
                    let len = padded_dim(dim) * PAGE_TOKENS;
                    // SAFETY: as above.
                    let page = unsafe { values.range(head_page * len..(head_page + 1) * len) };
                    E::put_value(self.isa, page, slot, codes);
                }
            });
    }

    /// Where a token's head goes: the head's page and the slot in it.
    fn slot(&self, token: usize, kv_head: usize) -> (usize, usize) {
        let position = self.step.positions()[token] as usize;
        let table = self.step.page_table(token);
        let page = table[position / PAGE_TOKENS] as usize;
        assert!(
            page < self.shape.num_pages,
            "page {page} of {}",
            self.shape.num_pages
        );
        let head_page = (self.layer * self.shape.num_pages + page) * self.shape.num_kv_heads + kv_head;
        (head_page, position % PAGE_TOKENS)
    }
}

/// Where scales go: nowhere when they are fixed.
struct ScaleSink<'a> {
    fixed: Option<f32>,
    stored: Option<SharedSlice<'a, f32>>,
}

impl<'a> ScaleSink<'a> {
    fn new(scales: &'a mut Scales, layer: usize) -> Self {
        match scales {
            Scales::PerLayer(scales) => Self {
                fixed: Some(scales[layer]),
                stored: None,
            },
            Scales::PerToken(scales) => Self {
                fixed: None,
                stored: Some(SharedSlice::new(scales)),
            },
        }
    }

    fn set(&self, index: usize, scale: f32) {
        if let Some(stored) = &self.stored {
            // SAFETY: the index belongs to a kv head that one task alone writes.
            unsafe { stored.range(index..index + 1)[0] = scale };
        }
    }
}
