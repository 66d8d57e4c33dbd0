//! What compressed-tensors names in `targets` and `ignore`: classes, names and patterns.

use super::error::ForeignError;
use super::pattern::Pattern;

/// One entry of such a list.
#[derive(Debug)]
pub(super) enum Target {
    /// The name of a linear, or of its class.
    Word(String),
    /// `re:` and a regular expression.
    Pattern(Pattern),
}

impl Target {
    /// The entry, or `None` for a pattern that is none.
    pub fn of(text: &str) -> Option<Self> {
        match text.strip_prefix("re:") {
            Some(pattern) => Pattern::of(pattern).map(Self::Pattern),
            None => Some(Self::Word(text.to_owned())),
        }
    }

    /// Whether linear `name` is meant. Folders of models that other models wrap may have more in front of a name than is kept of it here.
    pub fn fits(&self, name: &str) -> Result<bool, ForeignError> {
        match self {
            Self::Word(word) => Ok(word == class_of(name)
                || word == name
                || word
                    .strip_suffix(name)
                    .is_some_and(|before| before.ends_with('.'))),
            Self::Pattern(pattern) => pattern.fits(name),
        }
    }
}

/// Whether one of several entries means linear `name`.
pub(super) fn any_fits(targets: &[Target], name: &str) -> Result<bool, ForeignError> {
    for target in targets {
        if target.fits(name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The class of a module with weights. What is packed is a linear, or the embedding of tokens.
fn class_of(name: &str) -> &'static str {
    let embeddings = ["embed_tokens", "word_embeddings", "embed_positions"];
    match embeddings.contains(&name.rsplit('.').next().unwrap_or(name)) {
        true => "Embedding",
        false => "Linear",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_classes_names_and_patterns_from_the_beginning() {
        let fits = |target: &str, name: &str| Target::of(target).unwrap().fits(name).unwrap();
        let name = "model.layers.1.self_attn.q_proj";
        for target in [
            "Linear",
            name,
            "language_model.model.layers.1.self_attn.q_proj",
            "re:.*q_proj$",
            r"re:model\.layers\.\d+\.",
            "re:(?!.*mlp).*",
        ] {
            assert!(fits(target, name), "{target}");
        }
        for target in ["Embedding", "q_proj", "re:q_proj", "re:.*mlp", "model.layers.1"] {
            assert!(!fits(target, name), "{target}");
        }
        assert!(fits("Embedding", "model.embed_tokens") && !fits("Linear", "model.embed_tokens"));
        assert!(Target::of("re:(").is_none());
    }

    #[test]
    fn a_pattern_without_an_end_is_an_error() {
        let slow = Target::of(r"re:(?:(a|aa)+)\1$").unwrap();
        let name = "a".repeat(60) + "b";
        assert!(slow.fits(&name).is_err());
    }
}
