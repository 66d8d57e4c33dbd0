//! Packing two values to a byte.

use dualgrain_format::int4;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn rows_unpack_to_what_was_packed(values in vec(0..16_u8, 0..300), padding in 0..16_u8) {
        let mut packed = vec![0xaa];
        int4::pack_row(&values, padding, &mut packed);
        let row = &packed[1..];
        prop_assert_eq!(row.len(), int4::row_bytes(values.len()));
        let mut back = vec![0xff; values.len()];
        int4::unpack_row(row, &mut back);
        prop_assert_eq!(&back, &values);
        for (index, &value) in values.iter().enumerate() {
            prop_assert_eq!(int4::at(row, index), value);
        }
        if values.len() % 2 == 1 {
            prop_assert_eq!(int4::at(row, values.len()), padding);
        }
    }

    #[test]
    fn extremes_are_the_least_and_the_largest_of_a_range(
        values in vec(0..16_u8, 1..300),
        padding in 0..16_u8,
        (start, end) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let mut packed = Vec::new();
        int4::pack_row(&values, padding, &mut packed);
        let start = start.index(values.len()) / 2 * 2;
        let end = start + 1 + end.index(values.len() - start);
        let range = &values[start..end];
        let expected = (*range.iter().min().unwrap(), *range.iter().max().unwrap());
        prop_assert_eq!(int4::extremes(&packed, start..end), expected);
    }
}
