//! Which sets may be combined. Two sets may be merged, fitted or reported on together, and a sweep may continue a set,
//! only if the same machine measured them with the same driver, method and operands.

use std::path::Path;

use super::manifest::Manifest;
use crate::error::PerfError;
use crate::machine::{Machine, MachineKind};

/// As often as a figure of one machine may be another one of the same machine. Two cores that others use as well gave 22.1 and 11.2 GB/s of memory
/// seconds apart: on a CPU only clock and cache are exact.
const MOST_OF_CLOCK: f64 = 1.15;
const MOST_OF_CARD: f64 = 1.4;
const MOST_OF_CPU: f64 = 3.0;

/// With these words a CPU's method goes on to its energy, which one run may read and another not.
const ENERGY_OF_CPU: [&str; 2] = ["; no energy: no RAPL", "; energy of all packages by RAPL"];

/// With these words a merge begins what it adds to the method of a set with rows of an older protocol.
pub(crate) const OLDER_ROWS: &str = "; among them rows of protocol";

/// Refuses two folders whose sets are not compatible. Sets of different protocols are: both take times alike.
///
/// # Errors
/// The first difference.
pub(crate) fn check_compatible(left: (&Path, &Manifest), right: (&Path, &Manifest)) -> Result<(), PerfError> {
    match difference(left.1, right.1) {
        None => Ok(()),
        Some(what) => Err(PerfError::Mismatch {
            left: left.0.to_owned(),
            right: right.0.to_owned(),
            what,
        }),
    }
}

/// The first difference between two sets that must not differ: in the machine, its driver, the method or the operands.
pub(crate) fn difference(a: &Manifest, b: &Manifest) -> Option<String> {
    let methods = match a.protocol == b.protocol {
        true => [method(a).to_owned(), method(b).to_owned()],
        false => [String::new(), String::new()],
    };
    let (one, two) = (&a.machine, &b.machine);
    let pairs = [
        ("devices", [one.name.clone(), two.name.clone()]),
        ("kinds", [one.kind, two.kind].map(|kind| format!("{kind:?}"))),
        (
            "units",
            [one.num_units, two.num_units].map(|units| units.to_string()),
        ),
        (
            "memory",
            [one.memory_bytes, two.memory_bytes].map(|bytes| format!("{} GiB", bytes >> 30)),
        ),
        (
            "power limits",
            [one.power_limit_w, two.power_limit_w]
                .map(|limit| limit.map_or("none".to_owned(), |watts| format!("{watts} W"))),
        ),
        ("drivers", [a.driver.clone(), b.driver.clone()]),
        ("methods", methods),
        ("operands", [a.operands.clone(), b.operands.clone()]),
    ];
    let differing = pairs.into_iter().find(|(_, [one, two])| one != two);
    differing
        .map(|(name, [one, two])| format!("{name} {one} and {two}"))
        .or_else(|| different_speed(one, two))
}

/// What tells two machines of one name apart, or one machine at two clocks: processors in virtual machines share their names. Each figure may
/// differ as much as it does from one measurement to the next on a machine that others use too.
fn different_speed(one: &Machine, two: &Machine) -> Option<String> {
    let cache = |machine: &Machine| machine.last_level_cache_bytes as f64;
    let most = match one.kind {
        MachineKind::Cpu => MOST_OF_CPU,
        MachineKind::Gpu => MOST_OF_CARD,
    };
    let figures = [
        ("last-level caches", cache(one), cache(two), 1.0, "bytes"),
        ("clocks", one.clock_hz, two.clock_hz, MOST_OF_CLOCK, "Hz"),
        (
            "peaks",
            one.int8_ops_per_s,
            two.int8_ops_per_s,
            most,
            "operations of 8-bit integers a second",
        ),
        (
            "peaks",
            one.float_ops_per_s,
            two.float_ops_per_s,
            most,
            "operations of floats a second",
        ),
        (
            "memory rates",
            one.read_bytes_per_s,
            two.read_bytes_per_s,
            most,
            "bytes a second",
        ),
    ];
    let apart = |&(_, one, two, most, _): &(&str, f64, f64, f64, &str)| {
        one > 0.0 && two > 0.0 && (one / two).max(two / one) > most
    };
    figures.into_iter().find(apart).map(|(name, one, two, most, unit)| {
        format!("{name} {one:.4e} and {two:.4e} {unit} (the same machine at the same clock differs by {most} times at most)")
    })
}

/// The method of a set, without what an earlier merge added to it and without a CPU's energy.
fn method(manifest: &Manifest) -> &str {
    let ends = ENERGY_OF_CPU.into_iter().chain([OLDER_ROWS]);
    ends.fold(&manifest.method, |method, end| {
        method.split_once(end).map_or(method, |(method, _)| method)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::manifest;

    #[test]
    fn machines_of_one_name_and_clocks_of_one_machine_are_told_apart() {
        let one = manifest("AMD EPYC");
        type Change = fn(&mut Machine);
        let other = |change: Change| {
            let mut other = one.clone();
            change(&mut other.machine);
            [difference(&one, &other), difference(&other, &one)]
        };
        let scatter: [Change; 3] = [
            |machine| machine.clock_hz *= 1.05,
            |machine| machine.int8_ops_per_s *= 1.2,
            |machine| machine.read_bytes_per_s *= 0.75,
        ];
        for change in scatter {
            assert_eq!(other(change), [None, None]);
        }
        let apart: [(&str, Change); 5] = [
            ("caches", |machine| machine.last_level_cache_bytes /= 2),
            ("clocks", |machine| machine.clock_hz *= 0.7),
            ("peaks", |machine| machine.int8_ops_per_s *= 2.0),
            ("peaks", |machine| machine.float_ops_per_s *= 2.0),
            ("memory rates", |machine| machine.read_bytes_per_s *= 2.5),
        ];
        for (figure, change) in apart {
            let [there, back] = other(change);
            assert!(there.is_some_and(|what| what.contains(figure)), "{figure}");
            assert!(back.is_some_and(|what| what.contains(figure)), "{figure}");
        }
        // Machines that tell no clock.
        assert_eq!(other(|machine| machine.clock_hz = 0.0), [None, None]);
    }

    #[test]
    fn a_run_that_could_read_energy_goes_on_with_one_that_could_not() {
        let with = |method: &str| Manifest {
            method: method.to_owned(),
            ..manifest("AMD EPYC")
        };
        let could_not = with("wall time; no energy: no RAPL counter that may be read");
        let could =
            with("wall time; energy of all packages by RAPL over 0.3 s, where its counters could be read");
        assert_eq!(difference(&could_not, &could), None);
        assert!(difference(&could, &with("another clock; no energy: no RAPL counter")).is_some());
    }
}
