//! What compressed-tensors names in `targets` and `ignore`: classes, names and patterns.

use super::error::ForeignError;
use super::pattern::Pattern;

/// How closely an entry names a linear, the closest first: an entry counts before all that are less close, in whichever group it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closeness {
    /// By its own name.
    Name,
    /// By a pattern.
    Pattern,
    /// By its class.
    Class,
}

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

    /// How linear `name` is meant, if it is. Folders of models that other models wrap may have more in front of a name than is kept of it
    /// here.
    fn closeness(&self, name: &str) -> Result<Option<Closeness>, ForeignError> {
        Ok(match self {
            Self::Word(word) => {
                let before = word.strip_suffix(name);
                let is_name = before.is_some_and(|before| before.is_empty() || before.ends_with('.'));
                let is_class = word == class_of(name);
                is_name
                    .then_some(Closeness::Name)
                    .or(is_class.then_some(Closeness::Class))
            }
            Self::Pattern(pattern) => pattern.fits(name)?.then_some(Closeness::Pattern),
        })
    }
}

/// How closely the closest of several entries means linear `name`; `None` where none does.
pub(super) fn closest(targets: &[Target], name: &str) -> Result<Option<Closeness>, ForeignError> {
    let mut closest: Option<Closeness> = None;
    for target in targets {
        if let Some(closeness) = target.closeness(name)? {
            closest = Some(closest.map_or(closeness, |other| other.min(closeness)));
        }
    }
    Ok(closest)
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
        let fits = |target: &str, name: &str| {
            let closeness = Target::of(target).unwrap().closeness(name);
            closeness.unwrap().is_some()
        };
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
    fn names_are_closer_than_patterns_and_patterns_than_classes() {
        let closest = |texts: &[&str]| {
            let targets: Vec<_> = texts.iter().map(|text| Target::of(text).unwrap()).collect();
            super::closest(&targets, "model.layers.1.mlp.up_proj").unwrap()
        };
        assert_eq!(closest(&["re:.*down"]), None);
        assert_eq!(closest(&["Linear"]), Some(Closeness::Class));
        assert_eq!(closest(&["Linear", "re:.*up"]), Some(Closeness::Pattern));
        let all = ["Linear", "re:.*up", "model.layers.1.mlp.up_proj"];
        assert_eq!(closest(&all), Some(Closeness::Name));
    }

    #[test]
    fn a_pattern_without_an_end_is_an_error() {
        let slow = Target::of(r"re:(?:(a|aa)+)\1$").unwrap();
        let name = "a".repeat(60) + "b";
        assert!(slow.closeness(&name).is_err());
    }
}
