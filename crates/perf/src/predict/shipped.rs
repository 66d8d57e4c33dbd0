//! The fitted models that come with the program.

use std::path::Path;

use super::model::Model;
use super::model_parts::ModelParts;
use crate::error::{PerfError, measured_hint};
use crate::predict::file::model_from_bytes;

/// Fitted files that come with the program.
const FILES: [(&str, &[u8]); 2] = [
    ("h200", include_bytes!("../../models/h200.dgm")),
    ("xeon-amx", include_bytes!("../../models/xeon-amx.dgm")),
];

impl Model {
    /// Machines whose fitted models come with the program.
    pub fn shipped_machines() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(machine, _)| *machine)
    }

    /// The model that comes with the program for a machine: `h200`, `xeon-amx`.
    ///
    /// # Errors
    /// There is none for the machine.
    pub fn shipped(machine: &str) -> Result<Self, PerfError> {
        match FILES.iter().find(|(name, _)| *name == machine) {
            Some((name, bytes)) => model_from_bytes(bytes, Path::new(name)).map(Self::from_parts),
            None => Err(PerfError::NoModel {
                machine: machine.to_owned(),
                hint: measured_hint(machine, Self::shipped_machines()),
            }),
        }
    }

    /// The model that comes with the program for a machine that names itself so.
    pub fn shipped_for(name: &str, num_units: usize) -> Option<Self> {
        let models = FILES
            .iter()
            .filter_map(|(key, bytes)| model_from_bytes(bytes, Path::new(key)).ok());
        let of_machine =
            |parts: &ModelParts| parts.machine.name == name && parts.machine.num_units == num_units;
        models
            .map(Self::from_parts)
            .find(|model| of_machine(&model.parts))
    }
}
