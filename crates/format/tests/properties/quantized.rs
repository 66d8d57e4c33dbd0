//! The constructor of a dual-grained layer: what obeys the format is taken, what breaks one rule is refused for it.

use dualgrain_format::weight::{INT8_RANGE, int8_weight};
use dualgrain_format::{FormatError, QuantizedLinear, int4};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::layers::{Ingredients, ingredients};

proptest! {
    #[test]
    fn every_valid_layer_is_taken_and_its_weights_follow_from_its_tensors(of in ingredients()) {
        let layer = of.build().unwrap();
        let (n, k) = of.shape;
        prop_assert_eq!((layer.n(), layer.k(), layer.num_groups()), (n, k, of.num_groups()));
        prop_assert_eq!(layer.parts(), &of.parts);
        let mut w8 = vec![0; k];
        for row in 0..n {
            layer.w8_row(row, &mut w8);
            for group in 0..layer.num_groups() {
                let (zero, s2) = (int4::at(layer.zero_row(row), group), layer.s2_row(row)[group]);
                for column in of.group_size.range(group, k) {
                    let weight = int8_weight(int4::at(layer.q_row(row), column), zero, s2);
                    prop_assert!(INT8_RANGE.contains(&weight));
                    prop_assert_eq!(i32::from(w8[column]), weight);
                }
            }
        }
    }

    #[test]
    fn a_tensor_of_another_length_is_refused_by_name(
        of in ingredients(),
        tensor in 0..5_usize,
        longer in any::<bool>(),
    ) {
        let mut of = of;
        let (name, expected) = resize(&mut of, tensor, longer);
        let got = if longer { expected + 1 } else { expected - 1 };
        prop_assert_eq!(of.build(), Err(FormatError::Length { what: name, expected, got }));
    }

    #[test]
    fn a_group_scale_outside_its_range_is_refused_at_its_place(
        of in ingredients(),
        at in any::<Index>(),
        scale in prop_oneof![Just(0), 128..=255_u8],
    ) {
        let mut of = of;
        let (at, groups) = (at.index(of.parts.s2.len()), of.num_groups());
        of.parts.s2[at] = scale;
        let (row, group) = (at / groups, at % groups);
        prop_assert_eq!(of.build(), Err(FormatError::GroupScale { row, group, got: scale }));
    }

    #[test]
    fn a_float_that_is_no_number_is_refused_at_its_place(
        of in ingredients(),
        at in any::<Index>(),
        tensor in 0..3_usize,
        value in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ) {
        let mut of = of;
        let row = at.index(of.shape.0);
        let (name, place) = match tensor {
            0 => ("s1", row),
            1 => ("bias", row),
            _ => ("ta", 0),
        };
        match tensor {
            0 => of.parts.s1[row] = value,
            1 => of.parts.bias.get_or_insert_with(|| vec![0.0; of.shape.0])[row] = value,
            _ => of.parts.ta = Some(value),
        }
        let error = of.build().unwrap_err();
        prop_assert!(
            matches!(error, FormatError::NotFinite { what, index, .. } if what == name && index == place),
            "{error}"
        );
    }

    #[test]
    fn a_negative_scale_is_refused(of in ingredients(), at in any::<Index>(), by in 1e-30_f32..1e30, ta: bool) {
        let mut of = of;
        let row = at.index(of.shape.0);
        match ta {
            true => of.parts.ta = Some(-by),
            false => of.parts.s1[row] = -by,
        }
        let error = of.build().unwrap_err();
        prop_assert!(matches!(error, FormatError::NotFinite { non_negative: true, .. }), "{error}");
    }

    #[test]
    fn a_weight_outside_int8_is_refused_at_its_place(
        of in ingredients(),
        (row, column) in (any::<Index>(), any::<Index>()),
    ) {
        let mut of = of;
        let (row, column) = (row.index(of.shape.0), column.index(of.shape.1));
        let got = break_guard(&mut of, row, column);
        let error = of.build().unwrap_err();
        let place = (row, column, got);
        prop_assert!(
            matches!(error, FormatError::Int8Guard { row, column, got, .. } if (row, column, got) == place),
            "{error}"
        );
    }

    #[test]
    fn wrong_padding_is_refused_in_its_row(
        of in ingredients(),
        row in any::<Index>(),
        by in 1..16_u8,
        zeros: bool,
    ) {
        let mut of = of;
        let row = row.index(of.shape.0);
        let (name, len) = match zeros {
            true => ("zero", of.num_groups()),
            false => ("q", of.shape.1),
        };
        prop_assume!(len % 2 == 1);
        let packed = if zeros { &mut of.parts.zero } else { &mut of.parts.q };
        let last = (row + 1) * int4::row_bytes(len) - 1;
        packed[last] ^= by << 4;
        let refused_row = row;
        let error = of.build().unwrap_err();
        prop_assert!(
            matches!(error, FormatError::Padding { what, row, .. } if what == name && row == refused_row),
            "{error}"
        );
    }

    #[test]
    fn sides_of_zero_or_beyond_the_sums_are_refused(of in ingredients(), n: bool, k in 131_072..usize::MAX) {
        let shape = if n { (0, of.shape.1) } else { (of.shape.0, 0) };
        let refused = |shape| QuantizedLinear::new(shape, of.group_size, of.parts.clone()).unwrap_err();
        let (empty, long) = (refused(shape), refused((of.shape.0, k)));
        prop_assert!(matches!(empty, FormatError::Dimension { .. }), "{empty}");
        prop_assert!(matches!(long, FormatError::Dimension { what: "K", got, .. } if got == k), "{long}");
    }
}

/// Adds or takes an element of a tensor; gives its name and right length.
fn resize(of: &mut Ingredients, tensor: usize, longer: bool) -> (&'static str, usize) {
    fn resized<T: Copy>(values: &mut Vec<T>, longer: bool) -> usize {
        let len = values.len();
        match longer {
            true => values.push(values[0]),
            false => drop(values.pop()),
        }
        len
    }
    let n = of.shape.0;
    let parts = &mut of.parts;
    match tensor {
        0 => ("q", resized(&mut parts.q, longer)),
        1 => ("zero", resized(&mut parts.zero, longer)),
        2 => ("s2", resized(&mut parts.s2, longer)),
        3 => ("s1", resized(&mut parts.s1, longer)),
        _ => {
            let bias = parts.bias.get_or_insert_with(|| vec![0.0; n]);
            ("bias", resized(bias, longer))
        }
    }
}

/// Gives the group of a weight the largest scale, and lets this weight alone lie two codes from the zero point.
fn break_guard(of: &mut Ingredients, row: usize, column: usize) -> i32 {
    let (k, groups) = (of.shape.1, of.num_groups());
    let group = column / of.group_size.len(k);
    let row_bytes = int4::row_bytes(k);
    let zeros = &of.parts.zero[row * int4::row_bytes(groups)..];
    let zero = int4::at(zeros, group);
    let mut codes = vec![0; k];
    let row_of_codes = &mut of.parts.q[row * row_bytes..][..row_bytes];
    int4::unpack_row(row_of_codes, &mut codes);
    codes[of.group_size.range(group, k)].fill(zero);
    codes[column] = if zero >= 2 { zero - 2 } else { zero + 2 };
    let mut packed = Vec::new();
    int4::pack_row(&codes, int4::at(zeros, groups - 1), &mut packed);
    row_of_codes.copy_from_slice(&packed);
    of.parts.s2[row * groups + group] = 127;
    int8_weight(codes[column], zero, 127)
}
