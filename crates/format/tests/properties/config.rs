//! Configurations and group sizes as text.

use dualgrain_format::{ActivationScheme, CacheScheme, GroupSize, LinearScheme, QuantizationConfig};
use proptest::collection::btree_map;
use proptest::prelude::*;
use proptest::sample::select;

use crate::layers::group_sizes;

fn configs() -> impl Strategy<Value = QuantizationConfig> {
    let activations = select(vec![ActivationScheme::PerToken, ActivationScheme::Static]);
    let caches = select(vec![CacheScheme::F16, CacheScheme::Int8, CacheScheme::Int8Static]);
    let schemes = prop_oneof![
        Just(LinearScheme::Float),
        Just(LinearScheme::W8),
        group_sizes().prop_map(LinearScheme::w4)
    ];
    let linears = btree_map(".*", schemes, 0..8);
    (group_sizes(), activations, caches, ".*", ".*", linears).prop_map(
        |(group_size, activations, cache, smoothing, search, linears)| {
            let mut config = QuantizationConfig::new(group_size, activations, cache);
            config.smoothing = smoothing;
            config.search = search;
            config.linears = linears;
            config
        },
    )
}

proptest! {
    #[test]
    fn configurations_survive_as_text(config in configs()) {
        let text = serde_json::to_string_pretty(&config).unwrap();
        let value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(QuantizationConfig::from_json(&value).unwrap(), config);
    }

    #[test]
    fn a_word_is_a_group_size_only_as_a_group_size_is_written(text in "[ +0-9a-z]{0,8}|32|64|128|channel") {
        let known = ["32", "64", "128", "channel"].contains(&text.as_str());
        match text.parse::<GroupSize>() {
            Ok(size) => prop_assert!(known && size.to_string() == text),
            Err(error) => prop_assert!(!known && error.to_string().contains(&text)),
        }
    }

    #[test]
    fn a_number_is_a_group_size_in_json_only_when_there_are_kernels_for_it(number: i64) {
        let size = serde_json::from_str::<GroupSize>(&number.to_string());
        prop_assert_eq!(size.is_ok(), [32, 64, 128].contains(&number));
    }
}
