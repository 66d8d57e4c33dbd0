//! The polynomials against f64: relative errors, limits, and how they meet at their seams.

use dualgrain_device::naive::{erf, exp, exp2, sigmoid, tanh};

/// erf in f64: the Taylor series below 3, 1 above 6 and the continued fraction of erfc in between.
fn erf_f64(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let mut term = a;
        let mut sum = a;
        for n in 1..200 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..60).rev().fold(a, |f, n| a + f64::from(n) / 2.0 / f);
        1.0 - (-a * a).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

/// The largest relative error over evenly spaced x in `from..to`.
fn worst(f: impl Fn(f32) -> f32, truth: impl Fn(f64) -> f64, (from, to): (f32, f32)) -> (f64, f32) {
    let steps = 200_000;
    let at = |i: i32| from + (to - from) * (i as f32 / steps as f32);
    let error = |x: f32| (f64::from(f(x)) / truth(f64::from(x)) - 1.0).abs();
    (0..steps)
        .map(at)
        .filter(|x| *x != 0.0)
        .fold((0.0, 0.0), |worst, x| {
            let e = error(x);
            if e > worst.0 { (e, x) } else { worst }
        })
}

#[test]
fn relative_errors_stay_within_a_few_units_in_the_last_place() {
    let ulp = f64::from(f32::EPSILON);
    let cases: [(&str, (f64, f32), f64); 8] = [
        ("exp", worst(exp, f64::exp, (-87.3, 88.722)), 1.0),
        ("exp near 0", worst(exp, f64::exp, (-1.0, 1.0)), 1.0),
        ("exp2", worst(exp2, f64::exp2, (-64.0, 127.0)), 1.3),
        ("tanh", worst(tanh, f64::tanh, (-10.0, 10.0)), 2.0),
        ("tanh near 0", worst(tanh, f64::tanh, (-1e-3, 1e-3)), 1.0),
        ("erf", worst(erf, erf_f64, (-5.0, 5.0)), 2.0),
        ("erf near 0", worst(erf, erf_f64, (-1e-3, 1e-3)), 1.0),
        (
            "sigmoid",
            worst(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), (-80.0, 80.0)),
            2.0,
        ),
    ];
    for (what, (error, x), allowed) in cases {
        println!("{what}: {:.2} ulp at {x}", error / ulp);
        assert!(
            error <= allowed * ulp,
            "{what}({x}) is off by {:.2} ulp",
            error / ulp
        );
    }
}

#[test]
fn limits_and_special_values_are_exact() {
    assert_eq!(
        (exp(0.0), exp(-0.0), exp(f32::NEG_INFINITY), exp(-200.0)),
        (1.0, 1.0, 0.0, 0.0)
    );
    assert_eq!((exp(f32::INFINITY), exp(100.0)), (f32::INFINITY, f32::INFINITY));
    assert!(exp(88.72) < f32::INFINITY && exp(-87.2) > 0.0);
    assert_eq!((tanh(0.0), tanh(100.0), tanh(-100.0)), (0.0, 1.0, -1.0));
    assert_eq!((erf(0.0), erf(10.0), erf(-10.0)), (0.0, 1.0, -1.0));
    for f in [exp, exp2, tanh, erf, sigmoid] {
        assert!(f(f32::NAN).is_nan());
    }
}

#[test]
fn powers_of_two_are_exact_and_small_ones_are_nothing() {
    for power in -64..=127 {
        assert_eq!(exp2(power as f32), 2.0f32.powi(power), "2^{power}");
    }
    for t in [-64.000_01, -65.0, -200.0, f32::MIN, f32::NEG_INFINITY] {
        assert_eq!(exp2(t).to_bits(), 0, "2^{t}");
    }
    assert_eq!(exp2(-0.0), 1.0);
    // NaN of any payload.
    for bits in [0x7f80_0001, 0x7fff_ffff, 0xffc0_0000, 0xff80_0100] {
        assert!(exp2(f32::from_bits(bits)).is_nan(), "{bits:x}");
    }
}
