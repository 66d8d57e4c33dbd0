//! The kernels and configurations that a set holds, and the search for the one that a call names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::kernel_call::KernelCall;
use super::kernel_config::KernelConfig;
use super::kernel_range::KernelRange;
use crate::data::{Dataset, Row};
use crate::error::{PerfError, measured_hint};
use crate::group_number;
use crate::operands::OperandTypes;
use crate::product::Product;

/// The configurations and kernels of a set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigIndex {
    /// The configurations, sorted by [`KernelConfig::key`].
    pub configs: Vec<KernelConfig>,
    /// The kernels, sorted by name.
    pub kernels: Vec<KernelRange>,
    /// Of each configuration: the place of its kernel. Not stored, because it follows from the others.
    #[serde(skip)]
    pub kernel_of: Vec<usize>,
    /// Of each kernel: its operand types. Not stored.
    #[serde(skip)]
    pub operand_types: Vec<OperandTypes>,
    /// Of each configuration: whether most rows of its kernel in its group size have its output. Not stored.
    #[serde(skip)]
    pub is_usual: Vec<bool>,
    /// Hashes of the keys of the configurations, sorted, with their places. Not stored.
    #[serde(skip)]
    by_hash: Vec<(u64, usize)>,
}

impl ConfigIndex {
    /// The index of all sound rows.
    pub fn new(data: &Dataset) -> Result<Self, PerfError> {
        let (mut configs, mut kernels): (Vec<KernelConfig>, Vec<KernelRange>) = (Vec::new(), Vec::new());
        for row in data.rows.iter().filter(|row| row.is_sound()) {
            let facts = KernelConfig::of_row(row);
            match configs.binary_search_by(|known| known.key().cmp(&facts.key())) {
                Ok(at) => widen(&mut configs[at], row),
                Err(at) => configs.insert(at, facts),
            }
            let at = match kernels.binary_search_by(|known| known.name.cmp(&row.kernel)) {
                Ok(at) => at,
                Err(at) => {
                    kernels.insert(at, KernelRange::new(row));
                    at
                }
            };
            kernels[at].add(row);
        }
        let mut config_index = Self {
            configs,
            kernels,
            kernel_of: Vec::new(),
            operand_types: Vec::new(),
            is_usual: Vec::new(),
            by_hash: Vec::new(),
        };
        config_index.link()?;
        Ok(config_index)
    }

    /// Fills in what is not stored.
    ///
    /// # Errors
    /// A configuration without its kernel, or a kernel without a known type in its name.
    pub fn link(&mut self) -> Result<(), PerfError> {
        self.operand_types = self
            .kernels
            .iter()
            .map(|kernel| OperandTypes::of_kernel(&kernel.name))
            .collect::<Result<_, _>>()?;
        self.is_usual = usual(&self.configs);
        let hashes = self.configs.iter().enumerate();
        self.by_hash = hashes.map(|(at, facts)| (hash(facts.key()), at)).collect();
        self.by_hash.sort_unstable();
        let number = |facts: &KernelConfig| {
            let found = self
                .kernels
                .binary_search_by(|kernel| kernel.name.as_str().cmp(&facts.kernel));
            found.map_err(|_| PerfError::UnknownKernel {
                got: facts.kernel.clone(),
                hint: "it has configurations but no range".to_owned(),
            })
        };
        self.kernel_of = self.configs.iter().map(number).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Whether a configuration writes the output type of a product.
    pub fn writes(&self, config: usize, product: &Product<'_>) -> bool {
        match product.output {
            "" => self.is_usual[config],
            output => self.configs[config].output == output,
        }
    }

    /// The place of a call's configuration, and whether it was measured exactly so. A configuration that was measured in another
    /// group size or output type only is found too.
    pub fn find(&self, call: &KernelCall<'_>) -> Result<(usize, bool), PerfError> {
        let product = &call.product;
        let key = (
            call.kernel,
            call.config,
            group_number::of(product.group_size),
            product.output,
        );
        match self.exactly(key) {
            Some(at) => Ok((at, true)),
            None => self.nearest(call),
        }
    }

    /// As [`ConfigIndex::find`], where the call's group size or output type was not measured or is not said.
    fn nearest(&self, call: &KernelCall<'_>) -> Result<(usize, bool), PerfError> {
        let product = &call.product;
        let of_kernel = self.range_of(call.kernel);
        let of_name = of_kernel
            .clone()
            .filter(|&at| self.configs[at].config == call.config);
        let rank = |&at: &usize| {
            let facts = &self.configs[at];
            let group = facts.group_size == product.group_size;
            (group, self.writes(at, product), facts.num_rows)
        };
        let Some(at) = of_name.max_by_key(rank) else {
            return Err(self.not_found(call, of_kernel));
        };
        let facts = &self.configs[at];
        let exact = product.output.is_empty() || facts.output == product.output;
        Ok((at, exact && facts.group_size == product.group_size))
    }

    /// The place of the configuration with a key. It is looked up by hash, because the names of a kernel's configurations begin
    /// with the same letters: comparing them takes longer than walking a hundred trees.
    fn exactly(&self, key: (&str, &str, usize, &str)) -> Option<usize> {
        let hash = hash(key);
        let first = self.by_hash.partition_point(|&(known, _)| known < hash);
        let same_hash = self.by_hash[first..]
            .iter()
            .take_while(|&&(known, _)| known == hash);
        let mut places = same_hash.map(|&(_, at)| at);
        places.find(|&at| self.configs[at].key() == key)
    }

    /// The places of a kernel's configurations.
    pub fn range_of(&self, kernel: &str) -> std::ops::Range<usize> {
        let begin = self
            .configs
            .partition_point(|facts| facts.kernel.as_str() < kernel);
        let end = self
            .configs
            .partition_point(|facts| facts.kernel.as_str() <= kernel);
        begin..end
    }

    /// Whether a product lies in the ranges in which the kernel and the configuration were measured.
    pub fn covers(&self, config: usize, product: &Product<'_>) -> bool {
        let facts = &self.configs[config];
        self.kernels[self.kernel_of[config]].holds(product)
            && (facts.least_m..=facts.most_m).contains(&product.m)
    }

    fn not_found(&self, call: &KernelCall<'_>, of_kernel: std::ops::Range<usize>) -> PerfError {
        if of_kernel.is_empty() {
            return self.unknown_kernel(call.kernel);
        }
        let configs = &self.configs[of_kernel];
        PerfError::UnknownConfig {
            kernel: call.kernel.to_owned(),
            got: format!("{:?}", call.config),
            hint: measured_hint(call.config, configs.iter().map(|facts| facts.config.as_str())),
        }
    }

    /// The error about a kernel that was not measured.
    pub fn unknown_kernel(&self, got: &str) -> PerfError {
        PerfError::UnknownKernel {
            got: got.to_owned(),
            hint: measured_hint(got, self.kernels.iter().map(|kernel| kernel.name.as_str())),
        }
    }
}

/// The hash of a configuration's key, eight bytes at a time.
fn hash((kernel, config, group_number, output): (&str, &str, usize, &str)) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = |hash: u64, text: &str| {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        let hash = words
            .iter()
            .fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        let last = rest
            .iter()
            .fold(text.len() as u64, |last, &byte| last << 8 | u64::from(byte));
        mix(hash, last)
    };
    text(text(text(mix(0, group_number as u64), kernel), config), output)
}

/// Of each configuration: whether most rows of its kernel in its group size have its output.
fn usual(configs: &[KernelConfig]) -> Vec<bool> {
    let kind = |facts: &KernelConfig| (facts.kernel.clone(), group_number::of(facts.group_size));
    let mut rows: BTreeMap<_, BTreeMap<&str, usize>> = BTreeMap::new();
    for facts in configs {
        *rows
            .entry(kind(facts))
            .or_default()
            .entry(&facts.output)
            .or_default() += facts.num_rows;
    }
    let most = |facts: &KernelConfig| rows[&kind(facts)].iter().max_by_key(|(_, rows)| **rows);
    let is_usual = |facts: &KernelConfig| most(facts).is_some_and(|(output, _)| *output == facts.output);
    configs.iter().map(is_usual).collect()
}

/// Counts one more row of a configuration.
fn widen(facts: &mut KernelConfig, row: &Row) {
    facts.num_rows += 1;
    facts.least_m = facts.least_m.min(row.m);
    facts.most_m = facts.most_m.max(row.m);
}
