//! Joining linears along N and taking rows out again.

use dualgrain_format::{FloatValues, FormatError, LinearWeights, QuantizedLinear};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::layers::{Ingredients, group_sizes, ingredients_of, joinable, linears};

proptest! {
    #[test]
    fn rows_come_back_from_a_join_as_they_were(parts in joinable()) {
        let joined = LinearWeights::join(parts.clone()).unwrap();
        prop_assert_eq!(joined.n(), parts.iter().map(LinearWeights::n).sum::<usize>());
        let mut first_row = 0;
        for part in &parts {
            let rows: Vec<usize> = (first_row..first_row + part.n()).collect();
            let back = joined.select_rows(&rows).unwrap();
            assert_same_rows(&back, part);
            first_row += part.n();
        }
    }

    #[test]
    fn rows_in_another_order_come_back_by_the_inverse_order(linear in linears(), seed: u64) {
        let mut order: Vec<usize> = (0..linear.n()).collect();
        order.sort_by_key(|&row| (row as u64 + 1).wrapping_mul(seed | 1));
        let mut inverse = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &row)| inverse[row] = place);
        let there = linear.select_rows(&order).unwrap();
        prop_assert_eq!(there.select_rows(&inverse).unwrap(), linear);
    }

    #[test]
    fn no_rows_and_rows_that_are_not_there_are_refused(linear in linears(), beyond in 0..1_000_usize, at in any::<Index>()) {
        let none = linear.select_rows(&[]);
        prop_assert!(matches!(none, Err(FormatError::Dimension { what: "N", .. })), "{none:?}");
        let mut rows: Vec<usize> = (0..linear.n()).collect();
        rows[at.index(linear.n())] = linear.n() + beyond;
        let refused = linear.select_rows(&rows);
        prop_assert!(matches!(refused, Err(FormatError::Dimension { what: "row", .. })), "{refused:?}");
    }

    #[test]
    fn linears_that_differ_where_they_must_not_do_not_join(parts in joinable(), other in linears()) {
        let same = |of: &LinearWeights| {
            let group_size = match of {
                LinearWeights::W4(linear) => Some(linear.group_size()),
                LinearWeights::W8(_) | LinearWeights::Float(_) => None,
            };
            (std::mem::discriminant(of), of.k(), group_size, of.ta())
        };
        prop_assume!(same(&parts[0]) != same(&other));
        let mut mixed = parts;
        mixed.push(other);
        let refused = matches!(LinearWeights::join(mixed), Err(FormatError::Join { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn group_sizes_do_not_mix([a, b] in two_group_sizes()) {
        let refused = QuantizedLinear::join(&[a.build().unwrap(), b.build().unwrap()]);
        let named = matches!(refused, Err(FormatError::Join { what: "group sizes", .. }));
        prop_assert!(named, "{refused:?}");
    }
}

/// Two layers of the same K with different group sizes.
fn two_group_sizes() -> impl Strategy<Value = [Ingredients; 2]> {
    (1..300_usize, group_sizes(), group_sizes())
        .prop_filter("one size", |(_, a, b)| a != b)
        .prop_flat_map(|(k, a, b)| [a, b].map(|size| ingredients_of((1, k), size, None)))
}

/// A layer without a bias that was joined to one with a bias has zeros; bf16 joined to f32 is f32.
fn assert_same_rows(back: &LinearWeights, part: &LinearWeights) {
    let zeros = vec![0.0; part.n()];
    assert_eq!(back.bias().unwrap_or(&zeros), part.bias().unwrap_or(&zeros));
    match (back, part) {
        (LinearWeights::Float(back), LinearWeights::Float(part)) => {
            assert_eq!(back.weight().to_f32(), part.weight().to_f32());
            let kept = matches!(part.weight(), FloatValues::F32(_));
            assert!(!kept || matches!(back.weight(), FloatValues::F32(_)));
        }
        (LinearWeights::W8(back), LinearWeights::W8(part)) => {
            assert_eq!(
                (back.w8(), back.s1(), back.ta()),
                (part.w8(), part.s1(), part.ta())
            );
        }
        (LinearWeights::W4(back), LinearWeights::W4(part)) => {
            let mut without_bias = part.parts().clone();
            without_bias.bias.clone_from(&back.parts().bias);
            assert_eq!(back.parts(), &without_bias);
            assert_eq!(back.group_size(), part.group_size());
        }
        _ => panic!("another scheme came back"),
    }
}
