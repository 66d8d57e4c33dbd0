//! Which sets may be combined. Two sets may be merged, fitted or reported on together, and a sweep may continue a set,
//! only if the same machine measured them with the same driver, method and operands.

use std::path::Path;

use super::manifest::Manifest;
use crate::error::PerfError;

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
    differing.map(|(name, [one, two])| format!("{name} {one} and {two}"))
}

/// The method of a set, without what an earlier merge added to it.
fn method(manifest: &Manifest) -> &str {
    let words = manifest.method.split(OLDER_ROWS).next();
    words.unwrap_or_default()
}
