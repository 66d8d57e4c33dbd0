//! Integer weights packed in panels (`layout.rs`), slice by slice as a layer is loaded.

use std::ops::Range;

use dualgrain_device::DeviceError;
use dualgrain_format::{GroupSize, Int8Linear, QuantizedLinear, int4};
use dualgrain_threads::{Pool, SharedSlice};

use super::layout::{GROUP_BYTES, K_STEP, LINE, PANEL, W4_LINE_K, W8_LINE_K};
use crate::memory::aligned::Aligned;

/// Integer weights in panels of 16 rows.
#[derive(Debug)]
pub(crate) struct PackedInt {
    n: usize,
    k: usize,
    codes: Codes,
    /// Channel scales and biases, padded to whole panels; a missing bias is -0, which changes no sum.
    s1: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Debug)]
pub(super) enum Codes {
    W4 {
        q: Aligned<u8>,
        groups: Aligned<u8>,
        group_size: GroupSize,
    },
    W8(Aligned<u8>),
}

impl PackedInt {
    /// Room for a layer `[n,k]` in the groups of `like`.
    pub(crate) fn empty_w4(
        device: &str,
        (n, k): (usize, usize),
        like: &QuantizedLinear,
    ) -> Result<Self, DeviceError> {
        let (num_panels, padded_k) = checked_panels(device, (n, k))?;
        let codes = Codes::W4 {
            q: Aligned::weights(device, num_panels * PANEL * padded_k / 2)?,
            groups: Aligned::weights(device, num_panels * like.num_groups() * GROUP_BYTES)?,
            group_size: like.group_size(),
        };
        Ok(Self::with_codes((n, k), codes))
    }

    /// Packs rows from `first` on, the first of a panel.
    pub(crate) fn put_w4(&mut self, pool: &Pool, first: usize, linear: &QuantizedLinear) {
        let (num_groups, padded_k) = (linear.num_groups(), self.padded_k());
        let Codes::W4 {
            q,
            groups,
            group_size,
        } = &mut self.codes
        else {
            panic!("slices of a layer in different schemes")
        };
        assert_eq!(*group_size, linear.group_size(), "group sizes of slices");
        let (panel_bytes, group_bytes) = (PANEL * padded_k / 2, num_groups * GROUP_BYTES);
        let (q, groups) = (SharedSlice::new(q), SharedSlice::new(groups));
        pool.run(linear.n().div_ceil(PANEL), |panel| {
            let rows = panel * PANEL..((panel + 1) * PANEL).min(linear.n());
            let panel = first / PANEL + panel;
            // SAFETY: each panel is written by one task.
            let (q, groups) = unsafe {
                let q = q.range(panel * panel_bytes..(panel + 1) * panel_bytes);
                (q, groups.range(panel * group_bytes..(panel + 1) * group_bytes))
            };
            pack_w4_panel(linear, rows, q, groups);
        });
        self.put_channels(first, linear.s1(), linear.bias());
    }

    /// Room for an int8 layer `[n,k]`.
    pub(crate) fn empty_w8(device: &str, (n, k): (usize, usize)) -> Result<Self, DeviceError> {
        let (num_panels, padded_k) = checked_panels(device, (n, k))?;
        // AMX reads whole tiles of 64 k: half a tile follows the last panel.
        let w8 = Aligned::weights(device, num_panels * PANEL * padded_k + PANEL * K_STEP)?;
        Ok(Self::with_codes((n, k), Codes::W8(w8)))
    }

    /// Packs rows from `first` on, the first of a panel.
    pub(crate) fn put_w8(&mut self, pool: &Pool, first: usize, linear: &Int8Linear) {
        let panel_bytes = PANEL * self.padded_k();
        let Codes::W8(w8) = &mut self.codes else {
            panic!("slices of a layer in different schemes")
        };
        let w8 = SharedSlice::new(w8);
        pool.run(linear.n().div_ceil(PANEL), |panel| {
            let rows = panel * PANEL..((panel + 1) * PANEL).min(linear.n());
            let panel = first / PANEL + panel;
            // SAFETY: each panel is written by one task.
            let w8 = unsafe { w8.range(panel * panel_bytes..(panel + 1) * panel_bytes) };
            pack_w8_panel(linear, rows, w8);
        });
        self.put_channels(first, linear.s1(), linear.bias());
    }

    fn with_codes((n, k): (usize, usize), codes: Codes) -> Self {
        let padded = n.next_multiple_of(PANEL);
        Self {
            n,
            k,
            codes,
            s1: vec![0.0; padded],
            bias: vec![-0.0; padded],
        }
    }

    fn put_channels(&mut self, first: usize, s1: &[f32], bias: Option<&[f32]>) {
        self.s1[first..first + s1.len()].copy_from_slice(s1);
        if let Some(bias) = bias {
            self.bias[first..first + bias.len()].copy_from_slice(bias);
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(super) fn k(&self) -> usize {
        self.k
    }

    /// Panels of 16 rows, the last one padded.
    pub(super) fn num_panels(&self) -> usize {
        self.n.div_ceil(PANEL)
    }

    /// Whether weights have 4 bits, not 8.
    pub(crate) fn has_four_bits(&self) -> bool {
        matches!(self.codes, Codes::W4 { .. })
    }

    pub(super) fn codes(&self) -> &Codes {
        &self.codes
    }

    pub(crate) fn bytes(&self) -> usize {
        let codes = match &self.codes {
            Codes::W4 { q, groups, .. } => q.bytes() + groups.bytes(),
            Codes::W8(w8) => w8.bytes(),
        };
        codes + 4 * (self.s1.len() + self.bias.len())
    }

    /// Scales and biases of some output features.
    pub(super) fn channels(&self, columns: Range<usize>) -> (&[f32], &[f32]) {
        (&self.s1[columns.clone()], &self.bias[columns])
    }

    pub(super) fn padded_k(&self) -> usize {
        self.k.next_multiple_of(K_STEP)
    }
}

/// One panel of W8 codes from `rows` of a layer; padding has the weight zero.
fn pack_w8_panel(linear: &Int8Linear, rows: Range<usize>, w8: &mut [u8]) {
    w8.fill(128);
    let weights = &linear.w8()[rows.start * linear.k()..rows.end * linear.k()];
    for (lane, weights) in weights.chunks_exact(linear.k()).enumerate() {
        for (line, weights) in w8.chunks_exact_mut(LINE).zip(weights.chunks(W8_LINE_K)) {
            for (byte, w) in line[lane * 4..].iter_mut().zip(weights) {
                *byte = (*w as u8) ^ 0x80;
            }
        }
    }
}

/// One panel of W4 codes and groups from `rows` of a layer.
fn pack_w4_panel(linear: &QuantizedLinear, rows: Range<usize>, q: &mut [u8], groups: &mut [u8]) {
    let mut codes = vec![0u8; linear.k().next_multiple_of(K_STEP)];
    for (lane, row) in rows.enumerate() {
        let zeros = linear.zero_row(row);
        for (group, s2) in linear.s2_row(row).iter().enumerate() {
            groups[group * GROUP_BYTES + lane] = *s2;
            groups[group * GROUP_BYTES + PANEL + lane] = int4::at(zeros, group);
        }
        int4::unpack_row(linear.q_row(row), &mut codes[..linear.k()]);
        // Padding has the weight zero, as the format wants it.
        codes[linear.k()..].fill(int4::at(zeros, linear.num_groups() - 1));
        for (line, codes) in q.chunks_exact_mut(LINE).zip(codes.as_chunks::<W4_LINE_K>().0) {
            for (b, byte) in line[lane * 4..lane * 4 + 4].iter_mut().enumerate() {
                *byte = codes[b] | codes[b + 4] << 4;
            }
        }
    }
}

/// Panels of N and padded K; their product must fit memory.
fn checked_panels(device: &str, (n, k): (usize, usize)) -> Result<(usize, usize), DeviceError> {
    let (num_panels, padded_k) = (n.div_ceil(PANEL), k.next_multiple_of(K_STEP));
    let bytes = padded_k
        .checked_mul(PANEL)
        .and_then(|panel| panel.checked_mul(num_panels));
    match bytes {
        Some(_) => Ok((num_panels, padded_k)),
        None => Err(DeviceError::TooLarge {
            what: "packed layer",
            device: device.to_owned(),
            sizes: format!("{n} x {k}"),
        }),
    }
}

/// A W4 matrix cut into panels.
pub(super) struct W4Packing<'a> {
    q: &'a [u8],
    groups: &'a [u8],
    pub(super) panel_bytes: usize,
    panel_group_bytes: usize,
    pub(super) num_groups: usize,
    pub(super) lines_per_group: usize,
    pub(super) group_size: GroupSize,
}

impl<'a> W4Packing<'a> {
    pub(super) fn new(weights: &PackedInt, q: &'a [u8], groups: &'a [u8], group_size: GroupSize) -> Self {
        let (padded_k, num_groups) = (weights.padded_k(), group_size.num_groups(weights.k));
        let lines_per_group = group_size.len(weights.k).next_multiple_of(K_STEP) / W4_LINE_K;
        Self {
            q,
            groups,
            panel_bytes: PANEL * padded_k / 2,
            panel_group_bytes: num_groups * GROUP_BYTES,
            num_groups,
            lines_per_group,
            group_size,
        }
    }

    /// Codes and groups of some panels.
    pub(super) fn panels(&self, panels: Range<usize>) -> (&'a [u8], &'a [u8]) {
        let q = &self.q[panels.start * self.panel_bytes..panels.end * self.panel_bytes];
        let groups = panels.start * self.panel_group_bytes..panels.end * self.panel_group_bytes;
        (q, &self.groups[groups])
    }
}
