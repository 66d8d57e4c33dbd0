//! Mixtures of experts: routing, the products of experts, what they add up to.

use dualgrain_device::cases::mixture_cases;
use dualgrain_device::naive::NaiveDevice;

use super::cases::{assert_same, devices, name};

#[test]
fn mixtures_are_those_of_the_specification() {
    for case in mixture_cases() {
        let expected = case.run(&NaiveDevice::new()).unwrap();
        for device in devices() {
            let got = case.run(&device).unwrap();
            assert_same(&got, &expected, &format!("{case:?} on {}", name(&device)));
        }
    }
}
