//! A paged KV cache: a head's keys and values by page and place in the page.

use half::f16;

use super::NAME;
use crate::naive::{CachedHead, CachedHeadInt8, Scoring, attention, attention_int8, to_f16, to_int8};
use crate::{CacheFormat, CacheShape, DeviceError, PAGE_TOKENS};

/// Keys and values of all layers.
#[derive(Debug, Clone)]
pub struct Cache {
    shape: CacheShape,
    format: CacheFormat,
    /// `[layers][pages][PAGE_TOKENS][kv_heads][head_dim]` of what the format keeps, as f32 (INT8: the codes).
    keys: Vec<f32>,
    values: Vec<f32>,
    /// `[layers][pages][PAGE_TOKENS][kv_heads]`
    key_scales: Vec<f32>,
    value_scales: Vec<f32>,
}

/// Which head of which tokens: the pages of a sequence, a layer of the cache, a KV head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadOf<'a> {
    pub layer: usize,
    pub kv_head: usize,
    pub pages: &'a [u32],
}

impl Cache {
    pub(super) fn new(shape: CacheShape, format: &CacheFormat) -> Result<Self, DeviceError> {
        if let CacheFormat::Int8Static {
            key_scales,
            value_scales,
        } = format
        {
            for (what, scales) in [
                ("static key scales", key_scales),
                ("static value scales", value_scales),
            ] {
                check_len(what, shape.num_layers, scales.len())?;
            }
        }
        let sizes = [
            shape.num_layers,
            shape.num_pages,
            PAGE_TOKENS,
            shape.num_kv_heads,
            shape.head_dim,
        ];
        let elements = sizes
            .iter()
            .try_fold(1usize, |product, &size| product.checked_mul(size));
        let elements = elements.filter(|&elements| elements <= isize::MAX as usize / 8);
        let elements = elements.ok_or(DeviceError::TooLarge {
            what: "KV cache",
            device: NAME.to_owned(),
            sizes: shape.to_string(),
        })?;
        let heads = elements / shape.head_dim.max(1);
        Ok(Self {
            shape,
            format: format.clone(),
            keys: vec![0.0; elements],
            values: vec![0.0; elements],
            key_scales: vec![0.0; heads],
            value_scales: vec![0.0; heads],
        })
    }

    pub(super) fn shape(&self) -> CacheShape {
        self.shape
    }

    pub(super) fn bytes(&self) -> usize {
        let CacheShape {
            num_layers,
            num_kv_heads,
            head_dim,
            num_pages,
        } = self.shape;
        num_layers * num_pages * PAGE_TOKENS * self.format.bytes_per_token(num_kv_heads, head_dim)
    }

    /// Keeps one token's key and value of a head.
    pub(super) fn write(&mut self, head: HeadOf<'_>, position: usize, key: &[f32], value: &[f32]) {
        let place = self.place(head, position);
        let elements = place * self.shape.head_dim..(place + 1) * self.shape.head_dim;
        let (key_scale, value_scale) = match &self.format {
            CacheFormat::Int8Static {
                key_scales,
                value_scales,
            } => (Some(key_scales[head.layer]), Some(value_scales[head.layer])),
            _ => (None, None),
        };
        self.key_scales[place] = keep(&self.format, key, key_scale, &mut self.keys[elements.clone()]);
        self.value_scales[place] = keep(&self.format, value, value_scale, &mut self.values[elements]);
    }

    /// Attention of one query over positions `first..=last` of a head.
    pub(super) fn attend(
        &self,
        head: HeadOf<'_>,
        q: &[f32],
        (first, last): (usize, usize),
        scoring: Scoring,
        out: &mut [f32],
    ) {
        let (keys, key_scales) = self.collect(head, last + 1, &self.keys, &self.key_scales);
        let (values, value_scales) = self.collect(head, last + 1, &self.values, &self.value_scales);
        if matches!(self.format, CacheFormat::F32 | CacheFormat::F16) {
            let cached = CachedHead {
                keys: &keys,
                values: &values,
            };
            return attention(q, cached, (first, last), scoring, out);
        }
        let codes = |values: Vec<f32>| values.into_iter().map(|code| code as i8).collect::<Vec<_>>();
        let (keys, values) = (codes(keys), codes(values));
        let cached = CachedHeadInt8 {
            keys: &keys,
            key_scales: &key_scales,
            values: &values,
            value_scales: &value_scales,
        };
        attention_int8(q, cached, (first, last), scoring, out);
    }

    /// Elements and scales of a head at positions `0..len`, in order.
    fn collect(
        &self,
        head: HeadOf<'_>,
        len: usize,
        elements: &[f32],
        scales: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let dim = self.shape.head_dim;
        let places: Vec<usize> = (0..len).map(|position| self.place(head, position)).collect();
        let elements = places
            .iter()
            .flat_map(|place| &elements[place * dim..(place + 1) * dim]);
        (
            elements.copied().collect(),
            places.iter().map(|&place| scales[place]).collect(),
        )
    }

    /// Index of a token's head among all heads of the cache.
    fn place(&self, head: HeadOf<'_>, position: usize) -> usize {
        let page = head.pages[position / PAGE_TOKENS] as usize;
        assert!(
            page < self.shape.num_pages,
            "page {page} of {}",
            self.shape.num_pages
        );
        let token = (head.layer * self.shape.num_pages + page) * PAGE_TOKENS + position % PAGE_TOKENS;
        token * self.shape.num_kv_heads + head.kv_head
    }
}

/// What a format keeps of a head's elements; returns the scale (1 for floats).
fn keep(format: &CacheFormat, head: &[f32], static_scale: Option<f32>, kept: &mut [f32]) -> f32 {
    match format {
        CacheFormat::F32 => kept.copy_from_slice(head),
        CacheFormat::F16 => {
            for (kept, &v) in kept.iter_mut().zip(head) {
                *kept = f16::to_f32(to_f16(v));
            }
        }
        CacheFormat::Int8 | CacheFormat::Int8Static { .. } => {
            let mut codes = vec![0; head.len()];
            let scale = to_int8(head, static_scale, &mut codes);
            for (kept, code) in kept.iter_mut().zip(codes) {
                *kept = f32::from(code);
            }
            return scale;
        }
    }
    1.0
}

fn check_len(what: &'static str, expected: usize, got: usize) -> Result<(), DeviceError> {
    match expected == got {
        true => Ok(()),
        false => Err(DeviceError::Length {
            what,
            device: NAME.to_owned(),
            expected,
            got,
        }),
    }
}
