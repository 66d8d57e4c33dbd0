//! Writes a model as bytes and reads it back. A reader trusts nothing: every count and every number is checked.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use super::container::{MAGIC, VERSION, checksum, unpack};
use super::ensembles::{EnsembleRef, read_ensembles};
use super::header::{Header, is_consistent};
use crate::error::PerfError;
use crate::predict::estimator::Estimator;
use crate::predict::features::NAMES;
use crate::predict::interval_width::WidthModel;
use crate::predict::model_parts::ModelParts;
use crate::trees::Ensemble;

/// The bytes of a model.
pub(crate) fn model_to_bytes(parts: &ModelParts) -> Vec<u8> {
    let ensembles = ensembles(parts);
    let (power_scales, energy_scales) = match &parts.power_width {
        Some((width_model, scales)) => (width_model.scales.clone(), scales.clone()),
        None => (Vec::new(), Vec::new()),
    };
    let header = Header {
        features: NAMES.map(str::to_owned).to_vec(),
        machine: parts.machine.clone(),
        config_index: parts.config_index.clone(),
        factors: parts.estimator.factors.clone(),
        trees_of: parts.estimator.trees_of.clone(),
        power_factors: parts.estimator.power_factors.clone(),
        gains: parts.estimator.gains.clone(),
        num_time: parts.estimator.time.len(),
        has_power: ensembles.len() > parts.estimator.time.len() + 1,
        time_scales: parts.time_width.scales.clone(),
        power_scales,
        energy_scales,
        report: parts.fit_summary.clone(),
        ensembles: ensembles.iter().map(EnsembleRef::shape).collect(),
    };
    let json = serde_json::to_vec(&header).expect("a header is plain data");
    let mut contents = (json.len() as u32).to_le_bytes().to_vec();
    contents.extend(json);
    ensembles.iter().for_each(|trees| trees.append_to(&mut contents));
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&contents).expect("writing to memory");
    let packed = encoder.finish().expect("writing to memory");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(checksum(&packed, contents.len() as u64).to_le_bytes());
    bytes.extend((contents.len() as u64).to_le_bytes());
    bytes.extend(packed);
    bytes
}

fn ensembles(parts: &ModelParts) -> Vec<EnsembleRef<'_>> {
    let mut all: Vec<EnsembleRef<'_>> = parts.estimator.time.iter().map(EnsembleRef::of).collect();
    all.push(EnsembleRef::Boost(&parts.time_width.trees));
    if let (Some(power), Some((width_model, _))) = (&parts.estimator.power, &parts.power_width) {
        all.extend([EnsembleRef::of(power), EnsembleRef::Boost(&width_model.trees)]);
    }
    all
}

/// Reads a model; `path` is for errors.
pub(crate) fn model_from_bytes(bytes: &[u8], path: &Path) -> Result<ModelParts, PerfError> {
    let malformed = |what: String| PerfError::Malformed {
        path: path.to_owned(),
        what,
    };
    let contents = unpack(bytes).map_err(malformed)?;
    let (header, rest) = header(&contents).map_err(malformed)?;
    parts(header, rest)?.map_err(malformed)
}

fn header(contents: &[u8]) -> Result<(Header, &[u8]), String> {
    let (length, rest) = contents.split_first_chunk::<4>().ok_or("no header")?;
    let length = u32::from_le_bytes(*length) as usize;
    let json = rest.get(..length).ok_or("its header is cut short")?;
    let header: Header = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    if header.features != NAMES {
        return Err("fitted with other features than this program computes; fit again".to_owned());
    }
    Ok((header, &rest[length..]))
}

fn parts(mut header: Header, bytes: &[u8]) -> Result<Result<ModelParts, String>, PerfError> {
    header.machine.check()?;
    header.config_index.link()?;
    let Some(trees) = read_ensembles(&header.ensembles, bytes) else {
        return Ok(Err("its trees contradict themselves".to_owned()));
    };
    if !is_consistent(&header, trees.len()) {
        return Ok(Err("its parts do not fit together".to_owned()));
    }
    let mut trees = trees.into_iter();
    let time: Vec<Ensemble> = trees.by_ref().take(header.num_time).collect();
    let (of_time, power, of_power) = (trees.next(), trees.next(), trees.next());
    let Some(Ensemble::Boost(of_time)) = of_time else {
        return Ok(Err("its intervals are missing".to_owned()));
    };
    let time_width = WidthModel {
        trees: of_time,
        scales: header.time_scales,
    };
    let power_width = match of_power {
        Some(Ensemble::Boost(trees)) => Some((
            WidthModel {
                trees,
                scales: header.power_scales,
            },
            header.energy_scales,
        )),
        Some(Ensemble::Forest(_)) => return Ok(Err("its intervals of power are missing".to_owned())),
        None => None,
    };
    Ok(Ok(ModelParts {
        machine: header.machine,
        config_index: header.config_index,
        estimator: Estimator {
            factors: header.factors,
            time,
            trees_of: header.trees_of,
            power_factors: header.power_factors,
            power,
            gains: header.gains,
            out_of_bag: (0.0, 0),
        },
        time_width,
        power_width,
        fit_summary: header.report,
    }))
}
