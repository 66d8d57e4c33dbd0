//! What a product writes, and which operands it refuses.

use dualgrain_format::Int8Linear;
use dualgrain_threads::{Pool, SharedSlice};

use super::epilogue::Sink;
use super::packed::PackedInt;
use super::product::{gemm, stream};
use crate::Isa;
use crate::available;
use crate::sentinels::between_sentinels;
use crate::tensor::quantized::Quantized;

fn packed_w8(layer: &Int8Linear) -> PackedInt {
    let mut packed = PackedInt::empty_w8("the CPU", (layer.n(), layer.k())).expect("fits");
    packed.put_w8(&Pool::new(1), 0, layer);
    packed
}

#[test]
fn activations_of_another_instruction_set_are_refused_or_give_the_same_sums() {
    let (m, n, k) = (12, 33, 96);
    let layer = Int8Linear::new((n, k), vec![2; n * k], vec![1.0; n], None, None);
    let packed = packed_w8(&layer.expect("valid layer"));
    let codes: Vec<i8> = (0..m * k).map(|i| (i % 23) as i8 - 11).collect();
    let sums_of = |from: Isa, to: Isa| {
        let mut a = Quantized::new(from, m, k);
        a.upload(&codes, &vec![1.0; m]);
        let mut sums = vec![0; m * n];
        let product = || {
            let sink = Sink::Sums(SharedSlice::new(&mut sums));
            gemm(to, &Pool::new(1), a.view(), &packed, None, &sink);
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(product)).map(|()| sums)
    };
    for from in available() {
        for to in available() {
            let own = sums_of(to, to).expect("a product of one instruction set");
            if let Ok(sums) = sums_of(from, to) {
                assert_eq!(sums, own, "{} -> {}", from.name(), to.name());
            }
            assert!(sums_of(from, from).is_ok());
        }
    }
}

#[test]
fn outputs_are_written_completely_and_nothing_beside_them() {
    for isa in available() {
        for (m, n, k) in [(1, 1, 1), (5, 17, 40), (9, 33, 33), (13, 47, 600), (25, 16, 31)] {
            let layer = Int8Linear::new((n, k), vec![2; n * k], vec![1.0; n], None, None);
            let packed = packed_w8(&layer.expect("valid layer"));
            let mut a = Quantized::new(isa, m, k);
            a.upload(&vec![3; m * k], &vec![0.5; m]);
            let pool = Pool::new(2);
            let d = between_sentinels(m * n, &format!("{m}x{n} on {}", isa.name()), |d| {
                let sink = Sink::Output(SharedSlice::new(d));
                gemm(isa, &pool, a.view(), &packed, None, &sink);
            });
            assert!(
                d.iter().all(|v| *v == 3.0 * k as f32),
                "{} {m}x{n}x{k}",
                isa.name()
            );
        }
    }
}

#[test]
fn reading_ahead_changes_no_result_even_in_weights_that_are_gone() {
    let (n, k, pool) = (512, 512, Pool::new(3));
    let pack = |w: usize| {
        let w8 = (0..n * k)
            .map(|i| ((i * w) % 255) as i8)
            .map(|w| w.max(-127))
            .collect();
        let layer = Int8Linear::new((n, k), w8, vec![0.5; n], None, None);
        packed_w8(&layer.expect("valid layer"))
    };
    let weights = pack(7);
    let gone = stream(&pack(11), &pool);
    for isa in available() {
        let mut a = Quantized::new(isa, 2, k);
        a.upload(&vec![5; 2 * k], &[1.0, 2.0]);
        let product = |next| {
            let mut sums = vec![0; 2 * n];
            gemm(
                isa,
                &pool,
                a.view(),
                &weights,
                next,
                &Sink::Sums(SharedSlice::new(&mut sums)),
            );
            sums
        };
        assert_eq!(product(Some(gone)), product(None), "{}", isa.name());
    }
}
