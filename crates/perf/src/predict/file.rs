//! A fitted model as bytes.
//!
//! ```text
//! 8 bytes   "DUALGRNM"
//! u32       version
//! u32       CRC-32 of what follows
//! u64       length of the contents before compression
//! the rest  contents, deflated: u32 length of the header, the header (JSON: machine, catalogue, factors, report, sizes of the
//!           ensembles), then each ensemble: a forest's nodes (threshold f32, feature u16, left u16) and values (f32);
//!           boosting's thresholds (f32), features (u8) and values (f32), tree after tree
//! ```
//!
//! All numbers are little-endian.

use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::Crc;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};

use super::config_index::Catalogue;
use super::estimator::Estimator;
use super::features::NAMES;
use super::interval_width::Spread;
use super::model::Parts;
use super::rough_power::PowerFactors;
use super::rough_time::Factors;
use crate::error::PerfError;
use crate::learn::FitReport;
use crate::machine::Machine;
use crate::roofline::check_machine;
use crate::trees::{DEPTH, Ensemble, LEAVES, Node, Question, Symmetric, SymmetricTree, Trees};

const MAGIC: &[u8; 8] = b"DUALGRNM";
/// Raised when features, trees or intervals change their meaning.
const VERSION: u32 = 2;
/// No model is larger; a damaged length must not take all memory.
const MOST_BYTES: u64 = 1 << 28;
/// Bytes before the contents.
const PREFIX: usize = 24;

#[derive(Serialize, Deserialize)]
struct Header {
    /// Names of the features, in order: a program that computes others must not read the trees.
    features: Vec<String>,
    machine: Machine,
    catalogue: Catalogue,
    factors: Vec<Factors>,
    trees_of: Vec<usize>,
    power_factors: Vec<PowerFactors>,
    gains: [Vec<f64>; 2],
    /// Time's ensembles come first, then its spread, then power and its spread where there are any.
    num_time: usize,
    has_power: bool,
    /// Of intervals, for each kernel.
    time_scales: Vec<f64>,
    power_scales: Vec<f64>,
    energy_scales: Vec<f64>,
    report: FitReport,
    ensembles: Vec<Shape>,
}

/// What is to be known of an ensemble before its bytes are read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shape {
    Forest {
        start: f32,
        /// Nodes of each tree.
        sizes: Vec<u16>,
    },
    Boost {
        start: f32,
        trees: usize,
    },
}

/// An ensemble to be written.
enum Written<'a> {
    Forest(&'a Trees),
    Boost(&'a Symmetric),
}

impl<'a> Written<'a> {
    fn of(ensemble: &'a Ensemble) -> Self {
        match ensemble {
            Ensemble::Forest(trees) => Self::Forest(trees),
            Ensemble::Boost(trees) => Self::Boost(trees),
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Forest(trees) => Shape::Forest {
                start: trees.start()[0],
                sizes: trees.sizes(),
            },
            Self::Boost(trees) => Shape::Boost {
                start: trees.start(),
                trees: trees.len(),
            },
        }
    }

    fn append_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Forest(trees) => write_trees(trees, bytes),
            Self::Boost(trees) => write_symmetric(trees, bytes),
        }
    }
}

/// The bytes of a model.
pub(crate) fn write(parts: &Parts) -> Vec<u8> {
    let ensembles = ensembles(parts);
    let (power_scales, energy_scales) = match &parts.power_spread {
        Some((spread, scales)) => (spread.scales.clone(), scales.clone()),
        None => (Vec::new(), Vec::new()),
    };
    let header = Header {
        features: NAMES.map(str::to_owned).to_vec(),
        machine: parts.machine.clone(),
        catalogue: parts.catalogue.clone(),
        factors: parts.estimator.factors.clone(),
        trees_of: parts.estimator.trees_of.clone(),
        power_factors: parts.estimator.power_factors.clone(),
        gains: parts.estimator.gains.clone(),
        num_time: parts.estimator.time.len(),
        has_power: ensembles.len() > parts.estimator.time.len() + 1,
        time_scales: parts.time_spread.scales.clone(),
        power_scales,
        energy_scales,
        report: parts.report.clone(),
        ensembles: ensembles.iter().map(Written::shape).collect(),
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

fn ensembles(parts: &Parts) -> Vec<Written<'_>> {
    let mut all: Vec<Written<'_>> = parts.estimator.time.iter().map(Written::of).collect();
    all.push(Written::Boost(&parts.time_spread.trees));
    if let (Some(power), Some((spread, _))) = (&parts.estimator.power, &parts.power_spread) {
        all.extend([Written::of(power), Written::Boost(&spread.trees)]);
    }
    all
}

fn checksum(packed: &[u8], length: u64) -> u32 {
    let mut crc = Crc::new();
    crc.update(&length.to_le_bytes());
    crc.update(packed);
    crc.sum()
}

/// Columns apart compress better than nodes one by one.
fn write_trees(trees: &Trees, bytes: &mut Vec<u8>) {
    trees
        .nodes()
        .iter()
        .for_each(|node| bytes.extend(node.threshold.to_le_bytes()));
    trees
        .nodes()
        .iter()
        .for_each(|node| bytes.extend(node.feature.to_le_bytes()));
    trees
        .nodes()
        .iter()
        .for_each(|node| bytes.extend(node.left.to_le_bytes()));
    trees
        .values()
        .iter()
        .for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn write_symmetric(trees: &Symmetric, bytes: &mut Vec<u8>) {
    for tree in trees.trees() {
        let thresholds = tree.questions.iter().map(|question| question.threshold);
        thresholds.for_each(|threshold| bytes.extend(threshold.to_le_bytes()));
        bytes.extend(tree.questions.iter().map(|question| question.feature));
        tree.values
            .iter()
            .for_each(|value| bytes.extend(value.to_le_bytes()));
    }
}

/// Reads a model; `path` is for errors.
pub(crate) fn read(bytes: &[u8], path: &Path) -> Result<Parts, PerfError> {
    let malformed = |what: String| PerfError::Malformed {
        path: path.to_owned(),
        what,
    };
    let contents = unpack(bytes).map_err(malformed)?;
    let (header, rest) = header(&contents).map_err(malformed)?;
    parts(header, rest)?.map_err(malformed)
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.len() < PREFIX || &bytes[..8] != MAGIC {
        return Err("not a fitted model (`fit --out` writes one)".to_owned());
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if word(8) != VERSION {
        return Err(format!(
            "a fitted model of version {}, this program reads {VERSION}; fit again",
            word(8)
        ));
    }
    let length = u64::from(word(16)) | u64::from(word(20)) << 32;
    let packed = &bytes[PREFIX..];
    if length > MOST_BYTES || checksum(packed, length) != word(12) {
        return Err("damaged or cut short: its check sum is wrong; fit or copy it again".to_owned());
    }
    let mut contents = Vec::new();
    let read = DeflateDecoder::new(packed)
        .take(MOST_BYTES)
        .read_to_end(&mut contents);
    match read {
        Ok(got) if got as u64 == length => Ok(contents),
        Ok(got) => Err(format!("{got} bytes of contents, expected {length}")),
        Err(error) => Err(error.to_string()),
    }
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

fn parts(mut header: Header, bytes: &[u8]) -> Result<Result<Parts, String>, PerfError> {
    check_machine(&header.machine)?;
    header.catalogue.link()?;
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
    let time_spread = Spread {
        trees: of_time,
        scales: header.time_scales,
    };
    let power_spread = match of_power {
        Some(Ensemble::Boost(trees)) => Some((
            Spread {
                trees,
                scales: header.power_scales,
            },
            header.energy_scales,
        )),
        Some(Ensemble::Forest(_)) => return Ok(Err("its intervals of power are missing".to_owned())),
        None => None,
    };
    Ok(Ok(Parts {
        machine: header.machine,
        catalogue: header.catalogue,
        estimator: Estimator {
            factors: header.factors,
            time,
            trees_of: header.trees_of,
            power_factors: header.power_factors,
            power,
            gains: header.gains,
            out_of_bag: (0.0, 0),
        },
        time_spread,
        power_spread,
        report: header.report,
    }))
}

/// Whether the header has as many of everything as there are kernels, configurations and trees, all of them numbers.
fn is_consistent(header: &Header, num_trees: usize) -> bool {
    let num_power = if header.has_power { 2 } else { 0 };
    let num_kernels = header.catalogue.kernels.len();
    let num_with_power = if header.has_power { num_kernels } else { 0 };
    let scales = |scales: &[f64], count: usize| {
        scales.len() == count && scales.iter().all(|scale| scale.is_finite() && *scale > 0.0)
    };
    num_trees == header.num_time.saturating_add(1 + num_power)
        && header.factors.len() == header.catalogue.configs.len()
        && header.trees_of.len() == num_kernels
        && header.trees_of.iter().all(|&at| at < header.num_time)
        && header.factors.iter().flatten().all(|factor| factor.is_finite())
        && header.power_factors.len() == num_with_power
        && header
            .power_factors
            .iter()
            .flatten()
            .all(|factor| factor.is_finite())
        && scales(&header.time_scales, num_kernels)
        && scales(&header.power_scales, num_with_power)
        && scales(&header.energy_scales, num_with_power)
}

/// All ensembles; `None` where they contradict themselves.
fn read_ensembles(shapes: &[Shape], mut bytes: &[u8]) -> Option<Vec<Ensemble>> {
    let mut trees = Vec::new();
    for shape in shapes {
        let (read, rest) = read_ensemble(shape, bytes)?;
        trees.push(read);
        bytes = rest;
    }
    bytes.is_empty().then_some(trees)
}

fn read_ensemble<'a>(shape: &Shape, bytes: &'a [u8]) -> Option<(Ensemble, &'a [u8])> {
    match shape {
        Shape::Forest { start, sizes } => {
            let (trees, rest) = read_trees(*start, sizes, bytes)?;
            Some((Ensemble::Forest(trees), rest))
        }
        Shape::Boost { start, trees } => {
            let (trees, rest) = read_symmetric(*start, *trees, bytes)?;
            Some((Ensemble::Boost(trees), rest))
        }
    }
}

fn float(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn read_symmetric(start: f32, count: usize, bytes: &[u8]) -> Option<(Symmetric, &[u8])> {
    const TREE: usize = 5 * DEPTH + 4 * LEAVES;
    let (trees, rest) = bytes.split_at_checked(count.checked_mul(TREE)?)?;
    let trees = trees.chunks_exact(TREE).map(|tree| {
        let (thresholds, tree) = tree.split_at(4 * DEPTH);
        let (features, values) = tree.split_at(DEPTH);
        SymmetricTree {
            questions: std::array::from_fn(|level| Question {
                feature: features[level],
                threshold: float(&thresholds[4 * level..]),
            }),
            values: std::array::from_fn(|leaf| float(&values[4 * leaf..])),
        }
    });
    Some((Symmetric::from_parts(start, trees, NAMES.len())?, rest))
}

fn read_trees<'a>(start: f32, sizes: &[u16], bytes: &'a [u8]) -> Option<(Trees, &'a [u8])> {
    let count: usize = sizes.iter().map(|&size| usize::from(size)).sum();
    let (thresholds, rest) = bytes.split_at_checked(4 * count)?;
    let (features, rest) = rest.split_at_checked(2 * count)?;
    let (lefts, rest) = rest.split_at_checked(2 * count)?;
    let (values, rest) = rest.split_at_checked(4 * count)?;
    let short = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    let nodes = thresholds
        .chunks_exact(4)
        .zip(features.chunks_exact(2).zip(lefts.chunks_exact(2)))
        .map(|(threshold, (feature, left))| Node {
            threshold: float(threshold),
            feature: short(feature),
            left: short(left),
        });
    let values = values.chunks_exact(4).map(float).collect();
    let trees = Trees::from_parts(vec![start], sizes, nodes.collect(), values, NAMES.len())?;
    Some((trees, rest))
}
