//! Layers packed for the CPU.

use dualgrain_device::{DeviceError, SLICE_ROWS};
use dualgrain_format::LinearWeights;
use dualgrain_threads::Pool;

use crate::float::gemm::PackedFloat;
use crate::gemm_w4a8::packed::PackedInt;
use crate::isa::Isa;

/// Weights packed for the CPU.
#[derive(Debug)]
pub struct Linear(pub(super) Packed);

#[derive(Debug)]
pub(super) enum Packed {
    Float(PackedFloat),
    Int(PackedInt),
}

impl Packed {
    /// Room for a layer `[n,k]` in the scheme of `slice`.
    fn empty_for(device: &str, shape: (usize, usize), slice: &LinearWeights) -> Result<Self, DeviceError> {
        Ok(match slice {
            LinearWeights::Float(linear) => Self::Float(PackedFloat::empty_for(device, shape, linear)?),
            LinearWeights::W8(_) => Self::Int(PackedInt::empty_w8(device, shape)?),
            LinearWeights::W4(linear) => Self::Int(PackedInt::empty_w4(device, shape, linear)?),
        })
    }

    /// Packs rows from `first` on, the first of a panel.
    fn put(&mut self, (isa, pool): (Isa, &Pool), first: usize, slice: &LinearWeights) {
        match (self, slice) {
            (Self::Float(packed), LinearWeights::Float(linear)) => packed.put(isa, pool, first, linear),
            (Self::Int(packed), LinearWeights::W8(linear)) => packed.put_w8(pool, first, linear),
            (Self::Int(packed), LinearWeights::W4(linear)) => packed.put_w4(pool, first, linear),
            _ => panic!("slices of a layer in different schemes"),
        }
    }
}

impl Linear {
    /// Packs a layer of `shape` for the device called `device` that comes in slices of its rows.
    pub(super) fn from_slices<E: From<DeviceError>>(
        (device, isa, pool): (&str, Isa, &Pool),
        shape: (usize, usize),
        slices: impl Iterator<Item = Result<LinearWeights, E>>,
    ) -> Result<Self, E> {
        let (mut packed, mut rows) = (None, 0);
        for slice in slices {
            let slice = slice?;
            assert_eq!(slice.k(), shape.1, "K of a slice");
            assert!(
                rows % SLICE_ROWS == 0 && rows + slice.n() <= shape.0,
                "a slice of {} rows at row {rows} of {}",
                slice.n(),
                shape.0
            );
            let packed = match &mut packed {
                Some(packed) => packed,
                none => none.insert(Packed::empty_for(device, shape, &slice)?),
            };
            packed.put((isa, pool), rows, &slice);
            rows += slice.n();
        }
        assert_eq!(rows, shape.0, "rows of all slices");
        let none = || DeviceError::Length {
            what: "rows of a layer",
            device: device.to_owned(),
            expected: 1,
            got: 0,
        };
        Ok(Self(packed.ok_or_else(none)?))
    }

    /// Output features.
    pub(super) fn n(&self) -> usize {
        match &self.0 {
            Packed::Float(packed) => packed.n(),
            Packed::Int(packed) => packed.n(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Packed::Float(packed) => packed.bytes(),
            Packed::Int(packed) => packed.bytes(),
        }
    }
}
