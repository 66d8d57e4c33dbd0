//! Whether a model finds all that it asks for, and asks for all that is there.

use std::sync::atomic::Ordering;

use dualgrain_format::checkpoint::{FOREIGN_CONFIGS, INDEX};

use super::error::WeightsError;
use super::names::{LEADING, is_of_adapter, is_unneeded};
use super::tensors::{Shard, Tensor, Weights};

/// Tensors named in an error or a notice.
const NUM_NAMED: usize = 5;

impl Weights {
    /// Refuses tensors that nothing took, except those known to be of no use to a language model. Returns what a person should
    /// know of the folder's tensors, a sentence each.
    ///
    /// # Errors
    /// The names of unused tensors.
    pub fn finish(&self) -> Result<Vec<String>, WeightsError> {
        let unused = self
            .tensors
            .iter()
            .filter(|(_, tensor)| !tensor.used.load(Ordering::Relaxed));
        let unused = unused.map(|(name, _)| name.clone());
        let drafts = self.drafts();
        let is_of_draft = |name: &str| drafts.iter().any(|block| name.starts_with(block));
        let is_left = |name: &String| is_unneeded(name) || self.is_empty_bias(name) || is_of_draft(name);
        let (unneeded, names): (Vec<_>, Vec<_>) = unused.partition(is_left);
        if names.is_empty() {
            let mut notices = self.notices.clone();
            notices.extend(self.notice_of_unneeded(&unneeded));
            return Ok(notices);
        }
        Err(WeightsError::Unused {
            dir: self.dir.clone(),
            count: names.len(),
            names: names.into_iter().take(NUM_NAMED).collect(),
        })
    }

    /// What the names of blocks begin with that predict further tokens ahead (GLM-4.5): they have a linear that joins the embedding to the
    /// hidden state, and the model has taken none of their tensors.
    fn drafts(&self) -> Vec<String> {
        let joins = |name: &String| {
            name.strip_suffix(".eh_proj.weight")
                .map(|block| format!("{block}."))
        };
        let is_unused = |block: &String| {
            let of_block = |(name, _): &(&String, &Tensor)| name.starts_with(block.as_str());
            let mut tensors = self.tensors.iter().filter(of_block);
            tensors.all(|(_, tensor)| !tensor.used.load(Ordering::Relaxed))
        };
        self.tensors.keys().filter_map(joins).filter(is_unused).collect()
    }

    fn notice_of_unneeded(&self, names: &[String]) -> Option<String> {
        let (first, more) = (names.first()?, names.len() - 1);
        let adapter = match names.iter().any(|name| is_of_adapter(name)) {
            true => " (an adapter's leftovers are NOT applied: merge an adapter before)",
            false => "",
        };
        let listed = names.iter().take(NUM_NAMED).map(|name| format!("`{name}`"));
        let listed = listed.collect::<Vec<_>>().join(", ");
        Some(match more < NUM_NAMED {
            true => format!(
                "{}: left out what the model does not need: {listed}{adapter}",
                self.dir.display()
            ),
            false => format!(
                "{}: left out {} tensors that the model does not need, like `{first}`: {listed}, ...{adapter}",
                self.dir.display(),
                names.len()
            ),
        })
    }

    /// Whether a tensor is a bias of zeros beside a packed linear: programs that quantize write one for linears that have none.
    fn is_empty_bias(&self, name: &str) -> bool {
        let packed = |linear: &str| {
            self.tensors
                .get(&format!("{linear}.weight"))
                .is_some_and(Tensor::is_packed)
        };
        name.strip_suffix(".bias").is_some_and(packed)
            && self
                .tensors
                .get(name)
                .is_some_and(|bias| self.tensor_bytes(bias).iter().all(|&byte| byte == 0))
    }

    /// The error of a tensor that the model asks for.
    pub(super) fn missing(&self, name: &str) -> WeightsError {
        let names = |shard: &Shard| {
            shard
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        let (path, files) = match self.shards.as_slice() {
            [only] => (only.path.clone(), String::new()),
            [first, .., last] => {
                let ends = [first, last].map(|shard| names(shard).unwrap_or_default());
                (self.dir.clone(), format!(" from {}", ends.join(" to ")))
            }
            [] => (self.dir.join(INDEX), ": no file is listed".to_owned()),
        };
        let hint = files + &self.missing_hint(name);
        let name = name.to_owned();
        WeightsError::Missing { path, name, hint }
    }

    fn missing_hint(&self, name: &str) -> String {
        let bare = LEADING.iter().filter_map(|leading| name.strip_prefix(leading));
        let absent_stack = |name: &str| {
            Self::stacks_of(name)
                .iter()
                .find_map(|stack| self.absent.get(stack))
        };
        if let Some(shard) = std::iter::once(name).chain(bare).find_map(|name| {
            let whole = self.absent.get(name).or_else(|| self.absent_part(name));
            whole.or_else(|| absent_stack(name))
        }) {
            let is_there = self.dir.join(shard).exists();
            let what = if is_there {
                "where it is not"
            } else {
                "which is not there (was a download cut short?)"
            };
            return format!("; model.safetensors.index.json says that it is in `{shard}`, {what}");
        }
        if self.tensors.keys().any(|stored| is_of_adapter(stored)) {
            return "; the tensors are those of an adapter that was not merged: merge it first (peft: merge_and_unload, then \
                    save_pretrained)"
                .to_owned();
        }
        if self.is_packed_unsaid(name) {
            return format!(
                "; the folder looks quantized by GPTQ or AWQ, and neither config.json nor {} says how: get that file from where the model \
                 comes from",
                FOREIGN_CONFIGS.join(" nor ")
            );
        }
        let nearest = self.nearest(name);
        nearest.map_or_else(String::new, |name| {
            format!("; the nearest name there is `{name}`")
        })
    }

    /// Whether codes stand in the place of a linear's weight, and nothing says what they mean.
    fn is_packed_unsaid(&self, name: &str) -> bool {
        let codes = |linear: &str| self.find(&format!("{linear}.qweight")).is_some();
        self.foreign.is_none() && name.strip_suffix(".weight").is_some_and(codes)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        // A misspelt tensor is one that nothing else has asked for.
        let distance = |(other, tensor): &(&String, &Tensor)| {
            let used = tensor.used.load(Ordering::Relaxed);
            (used, strsim::levenshtein(name, other))
        };
        let (nearest, _) = self.tensors.iter().min_by_key(distance)?;
        Some(nearest.clone())
    }

    /// The file that an index names for a tensor into which `name`, a linear's weight, is packed.
    fn absent_part(&self, name: &str) -> Option<&String> {
        let linear = name.strip_suffix("weight")?;
        let parts = self.foreign.as_ref()?.parts().iter();
        let mut files = parts.filter_map(|part| self.absent.get(&format!("{linear}{part}")));
        files.next()
    }
}
