//! What a set of rows holds: configurations, kernels, the ranges they were measured in; and the rows as samples to learn
//! from.

use super::features::Physics;
use crate::data::{Dataset, Layout, Row};
use crate::error::PerfError;
use crate::machine::Machine;
use crate::product::{ConfigFacts, Operands, Product, Query, config_of};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Configurations and kernels, each list sorted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Catalogue {
    /// Sorted by [`ConfigFacts::key`].
    pub configs: Vec<ConfigFacts>,
    /// Sorted by name.
    pub kernels: Vec<KernelRange>,
    /// Of each configuration: its kernel's number. Not stored, it follows.
    #[serde(skip)]
    pub kernel_of: Vec<usize>,
    /// Of each kernel: what it multiplies. Not stored, it follows.
    #[serde(skip)]
    pub operands: Vec<Operands>,
    /// Of each configuration: whether its output is the one that most rows of its kernel, in its group length, have. Not stored,
    /// it follows.
    #[serde(skip)]
    pub is_usual: Vec<bool>,
    /// Hashes of the configurations' keys, sorted, with their places. Not stored, they follow.
    #[serde(skip)]
    by_hash: Vec<(u64, usize)>,
}

/// A kernel and the ranges it was measured in, both ends held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KernelRange {
    /// Its name.
    pub name: String,
    /// Rows.
    pub num_rows: usize,
    /// Least M, N, K.
    pub least: [usize; 3],
    /// Most M, N, K.
    pub most: [usize; 3],
    /// Most operations.
    pub most_ops: f64,
    /// Layouts, and whether alpha was not 1 and beta not 0, as they occurred.
    pub variants: Vec<(Layout, bool, bool)>,
}

impl KernelRange {
    fn new(row: &Row) -> Self {
        let sides = [row.m, row.n, row.k];
        Self {
            name: row.kernel.clone(),
            num_rows: 0,
            least: sides,
            most: sides,
            most_ops: 0.0,
            variants: Vec::new(),
        }
    }

    fn add(&mut self, row: &Row) {
        self.num_rows += 1;
        for (at, side) in [row.m, row.n, row.k].into_iter().enumerate() {
            self.least[at] = self.least[at].min(side);
            self.most[at] = self.most[at].max(side);
        }
        self.most_ops = self.most_ops.max(row.ops());
        let variant = variant(&Product::of_row(row));
        if !self.variants.contains(&variant) {
            self.variants.push(variant);
        }
    }

    fn holds(&self, product: &Product<'_>) -> bool {
        let sides = [product.m, product.n, product.k];
        let within = sides.iter().zip(self.least.iter().zip(&self.most));
        within
            .into_iter()
            .all(|(side, (least, most))| (least..=most).contains(&side))
            && product.ops() <= self.most_ops
            && self.variants.contains(&variant(product))
    }
}

fn variant(product: &Product<'_>) -> (Layout, bool, bool) {
    (product.layout, product.alpha != 1.0, product.beta != 0.0)
}

impl Catalogue {
    /// Of all sound rows.
    pub fn new(data: &Dataset) -> Result<Self, PerfError> {
        let (mut configs, mut kernels): (Vec<ConfigFacts>, Vec<KernelRange>) = (Vec::new(), Vec::new());
        for row in data.rows.iter().filter(|row| row.is_sound()) {
            let facts = ConfigFacts::of_row(row);
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
        let mut catalogue = Self {
            configs,
            kernels,
            kernel_of: Vec::new(),
            operands: Vec::new(),
            is_usual: Vec::new(),
            by_hash: Vec::new(),
        };
        catalogue.link()?;
        Ok(catalogue)
    }

    /// Works out what is not stored, and refuses a catalogue that contradicts itself.
    pub fn link(&mut self) -> Result<(), PerfError> {
        self.operands = self
            .kernels
            .iter()
            .map(|kernel| Operands::of_kernel(&kernel.name))
            .collect::<Result<_, _>>()?;
        self.is_usual = usual(&self.configs);
        let hashes = self.configs.iter().enumerate();
        self.by_hash = hashes.map(|(at, facts)| (hash(facts.key()), at)).collect();
        self.by_hash.sort_unstable();
        let number = |facts: &ConfigFacts| {
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

    /// Whether a configuration writes what a product wants.
    pub fn writes(&self, config: usize, product: &Product<'_>) -> bool {
        match product.output {
            "" => self.is_usual[config],
            output => self.configs[config].output == output,
        }
    }

    /// The place of a query's configuration, and whether it is exactly the one that was measured.
    pub fn find(&self, query: &Query<'_>) -> Result<(usize, bool), PerfError> {
        let product = &query.product;
        let key = (query.kernel, query.config, product.group_size, product.output);
        if let Some(at) = self.exactly(key) {
            return Ok((at, true));
        }
        let of_kernel = self.range_of(query.kernel);
        let alike = of_kernel
            .clone()
            .filter(|&at| self.configs[at].config == query.config);
        let rank = |&at: &usize| {
            let facts = &self.configs[at];
            let group = facts.group_size == product.group_size;
            (group, self.writes(at, product), facts.num_rows)
        };
        let Some(at) = alike.max_by_key(rank) else {
            return Err(self.not_found(query, of_kernel));
        };
        let facts = &self.configs[at];
        let exact = product.output.is_empty() || facts.output == product.output;
        Ok((at, exact && facts.group_size == product.group_size))
    }

    /// Looked up by hash: comparing the names of a kernel's configurations, which begin alike, takes longer than a walk
    /// through a hundred trees.
    fn exactly(&self, key: (&str, &str, usize, &str)) -> Option<usize> {
        let hash = hash(key);
        let first = self.by_hash.partition_point(|&(known, _)| known < hash);
        let alike = self.by_hash[first..]
            .iter()
            .take_while(|&&(known, _)| known == hash);
        let mut places = alike.map(|&(_, at)| at);
        places.find(|&at| self.configs[at].key() == key)
    }

    /// Places of a kernel's configurations.
    pub fn range_of(&self, kernel: &str) -> std::ops::Range<usize> {
        let begin = self
            .configs
            .partition_point(|facts| facts.kernel.as_str() < kernel);
        let end = self
            .configs
            .partition_point(|facts| facts.kernel.as_str() <= kernel);
        begin..end
    }

    /// Whether a product lies within what its kernel was measured with.
    pub fn covers(&self, config: usize, product: &Product<'_>) -> bool {
        let facts = &self.configs[config];
        self.kernels[self.kernel_of[config]].holds(product)
            && (facts.least_m..=facts.most_m).contains(&product.m)
    }

    fn not_found(&self, query: &Query<'_>, of_kernel: std::ops::Range<usize>) -> PerfError {
        if of_kernel.is_empty() {
            return self.unknown_kernel(query.kernel);
        }
        let configs = &self.configs[of_kernel];
        PerfError::UnknownConfig {
            kernel: query.kernel.to_owned(),
            got: format!("{:?}", query.config),
            hint: meant(query.config, configs.iter().map(|facts| facts.config.as_str())),
        }
    }

    /// The error about a kernel that was not measured.
    pub fn unknown_kernel(&self, got: &str) -> PerfError {
        PerfError::UnknownKernel {
            got: got.to_owned(),
            hint: meant(got, self.kernels.iter().map(|kernel| kernel.name.as_str())),
        }
    }
}

/// Of a configuration's key, eight bytes at a time.
fn hash((kernel, config, group_size, output): (&str, &str, usize, &str)) -> u64 {
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
    text(text(text(mix(0, group_size as u64), kernel), config), output)
}

/// Which configurations have the output that most rows of their kernel, in their group length, have.
fn usual(configs: &[ConfigFacts]) -> Vec<bool> {
    let kind = |facts: &ConfigFacts| (facts.kernel.clone(), facts.group_size);
    let mut rows: BTreeMap<_, BTreeMap<&str, usize>> = BTreeMap::new();
    for facts in configs {
        *rows
            .entry(kind(facts))
            .or_default()
            .entry(&facts.output)
            .or_default() += facts.num_rows;
    }
    let most = |facts: &ConfigFacts| rows[&kind(facts)].iter().max_by_key(|(_, rows)| **rows);
    let is_usual = |facts: &ConfigFacts| most(facts).is_some_and(|(output, _)| *output == facts.output);
    configs.iter().map(is_usual).collect()
}

fn widen(facts: &mut ConfigFacts, row: &Row) {
    facts.num_rows += 1;
    facts.least_m = facts.least_m.min(row.m);
    facts.most_m = facts.most_m.max(row.m);
}

/// "did you mean ...", with what was measured.
pub(crate) fn meant<'a>(got: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.dedup();
    let question = question(got, &known);
    let shown = known.len().min(12);
    let more = if known.len() > shown { ", ..." } else { "" };
    format!("{question}measured were {}{more}", known[..shown].join(", "))
}

/// "did you mean ...? ", where there is anything that could be meant.
pub(crate) fn question(got: &str, known: &[&str]) -> String {
    // A beginning is meant before a name that is as short.
    let distance = |name: &&&str| (!name.starts_with(got), strsim::levenshtein(name, got));
    let nearest = known.iter().min_by_key(distance);
    nearest.map_or(String::new(), |name| format!("did you mean {name}? "))
}

/// A row to learn from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample<'a> {
    /// Its place in the set.
    pub row_idx: usize,
    /// The row.
    pub row: &'a Row,
    /// Its configuration's place in the catalogue.
    pub config: usize,
    /// Number of its shape.
    pub shape: u32,
    /// What is known before learning.
    pub physics: Physics,
    /// Seconds.
    pub time_s: f64,
}

/// All sound rows as samples, and the number of distinct shapes.
pub(crate) fn samples<'a>(
    data: &'a Dataset,
    catalogue: &Catalogue,
    machine: &Machine,
) -> Result<(Vec<Sample<'a>>, usize), PerfError> {
    let mut shapes = std::collections::HashMap::new();
    let mut samples = Vec::new();
    for (row_idx, row) in data.rows.iter().enumerate().filter(|(_, row)| row.is_sound()) {
        let name = config_of(row);
        let query = Query {
            config: &name,
            ..Query::of_row(row)
        };
        query.product.check()?;
        let (config, _) = catalogue.find(&query)?;
        let operands = &catalogue.operands[catalogue.kernel_of[config]];
        let next = shapes.len() as u32;
        samples.push(Sample {
            row_idx,
            row,
            config,
            shape: *shapes.entry((row.m, row.n, row.k)).or_insert(next),
            physics: Physics::new(&catalogue.configs[config], operands, &query.product, machine),
            time_s: row.time_s.unwrap_or(f64::NAN),
        });
    }
    Ok((samples, shapes.len()))
}
