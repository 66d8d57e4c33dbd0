use serde_json::Value;

use super::*;
use serde_json::json;

fn parse(value: Value) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_json(&value.to_string())
}

fn llama(extra: Value) -> Result<ModelConfig, ConfigError> {
    let mut value = json!({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 100});
    let object = value.as_object_mut().unwrap();
    object.extend(extra.as_object().unwrap().clone());
    parse(value)
}

fn error(result: Result<ModelConfig, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_transformers() {
    let config = parse(json!({"model_type": "llama"})).unwrap();
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.ffn_size),
        (32_000, 4_096, 11_008)
    );
    assert_eq!(
        (config.num_kv_heads, config.head_dim, config.max_positions),
        (32, 128, 2_048)
    );
    assert_eq!(config.norm_eps, 1e-6);
    assert!(!config.tie_embeddings && !config.qkv_bias && config.quantization.is_none());
    assert_eq!((config.bos_token, config.eos_tokens), (Some(1), vec![2]));
    let mistral = parse(json!({"model_type": "mistral"})).unwrap();
    assert_eq!(
        (mistral.num_kv_heads, mistral.sliding_windows[31]),
        (8, Some(4_096))
    );
    let qwen = parse(json!({"model_type": "qwen3", "num_key_value_heads": 8})).unwrap();
    assert!(qwen.qk_norm == QkNorm::Heads && !qwen.qkv_bias && qwen.eos_tokens.is_empty());
    assert_eq!(
        (qwen.head_dim, qwen.num_kv_heads, qwen.sliding_windows[31]),
        (128, 8, None)
    );
    let opt = parse(json!({"model_type": "opt"})).unwrap();
    assert!(opt.tie_embeddings && opt.qkv_bias && opt.ffn_bias);
    assert_eq!(opt.position, Position::Learned { offset: 2 });
    assert_eq!(parse(json!({"model_type": "bloom"})).unwrap().ffn_size, 256);
}

#[test]
fn both_spellings_of_rope_mean_the_same() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32});
    let old = llama(json!({"rope_theta": 500000.0, "rope_scaling": scaling})).unwrap();
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(500000.0);
    let new = llama(json!({"rope_parameters": parameters})).unwrap();
    let nested = llama(json!({"rope_parameters": {"full_attention": parameters}})).unwrap();
    assert_eq!(old.position, new.position);
    assert_eq!(old.position, nested.position);
    let linear = llama(json!({"rope_scaling": {"type": "linear", "factor": 2}})).unwrap();
    assert!(matches!(
        linear.position,
        Position::Rope(RopeConfig {
            scaling: RopeScaling::Linear { factor: 2.0 },
            theta: 10_000.0
        })
    ));
}

#[test]
fn unknown_rope_types_are_refused_by_name() {
    for kind in ["ntk", "mrope", "proportional"] {
        let text = error(llama(json!({"rope_scaling": {"type": kind, "factor": 2.0}})));
        assert!(text.contains(kind) && text.contains("llama3"), "{text}");
    }
    for settings in [
        json!({"factor": 2.0}),
        json!({"rope_theta": 1e4, "factor": 2.0}),
        json!({"rope_type": "default", "factor": 4.0}),
        json!({"long_factor": [1.0]}),
    ] {
        for name in ["rope_scaling", "rope_parameters"] {
            let text = error(llama(json!({ name: settings })));
            assert!(text.contains(name) && text.contains("rope_type"), "{text}");
        }
    }
    assert!(llama(json!({"rope_parameters": {"rope_theta": 1e4, "factor": 1.0}})).is_ok());
    let differing = json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6},
        "sliding_attention": {"rope_theta": 1e4}}});
    assert!(error(llama(differing)).contains("layer type"));
    assert!(error(llama(json!({"partial_rotary_factor": 0.5}))).contains("partial_rotary_factor"));
    assert!(error(llama(json!({"rope_scaling": {"type": "linear"}}))).contains("factor"));
    let both = json!({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "yarn"}});
    assert!(
        error(llama(both)).contains("rope_scaling"),
        "two spellings that contradict each other"
    );
}

#[test]
fn rope_types_take_the_defaults_of_transformers() {
    let scaling = |extra: Value| match llama(extra).unwrap().position {
        Position::Rope(rope) => rope.scaling,
        _ => unreachable!(),
    };
    // Heads of 16 elements, 2,048 positions.
    let yarn =
        json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}});
    let RopeScaling::Yarn {
        attention_factor,
        beta_fast,
        beta_slow,
        original_max_positions,
        truncate,
        ..
    } = scaling(yarn)
    else {
        panic!("another type");
    };
    assert!((attention_factor - 1.138_629_436).abs() < 1e-9);
    assert_eq!(
        (beta_fast, beta_slow, original_max_positions, truncate),
        (32.0, 1.0, 512.0, true)
    );
    let ratio = json!({"rope_parameters": {"rope_type": "yarn", "factor": null, "mscale": 1.0, "mscale_all_dim": 1.0},
        "original_max_position_embeddings": 1024});
    let RopeScaling::Yarn {
        factor,
        attention_factor,
        ..
    } = scaling(ratio)
    else {
        panic!("another type");
    };
    assert_eq!((factor, attention_factor), (2.0, 1.0));
    let lists = json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1],
        "long_factor": [2, 2, 2, 2, 2, 2, 2, 2.5], "original_max_position_embeddings": 1024}});
    let RopeScaling::LongRope {
        attention_factor,
        long_factor,
        ..
    } = scaling(lists)
    else {
        panic!("another type");
    };
    assert!((attention_factor - (1.0 + 2_f64.ln() / 1024_f64.ln()).sqrt()).abs() < 1e-9);
    assert_eq!(long_factor[7], 2.5);
    let dynamic = scaling(json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}));
    assert_eq!(
        dynamic,
        RopeScaling::Dynamic {
            factor: 2.0,
            max_positions: 2048.0
        }
    );
    for (settings, word) in [
        (
            json!({"type": "longrope", "short_factor": [1], "long_factor": [1]}),
            "8 numbers",
        ),
        (
            json!({"type": "longrope", "long_factor": [1, 1, 1, 1, 1, 1, 1, 1]}),
            "short_factor",
        ),
        (json!({"type": "yarn", "factor": 0.5}), "1 or more"),
        (json!({"type": "dynamic"}), "factor"),
        (
            json!({"type": "dynamic", "factor": 1.0, "alpha": 1000.0}),
            "alpha",
        ),
    ] {
        let text = error(llama(json!({ "rope_scaling": settings })));
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn fields_that_are_not_used_stop_no_model() {
    for extra in [
        json!({"pad_token_id": -1}),
        json!({"bos_token_id": -1, "eos_token_id": [2, -1]}),
        json!({"sliding_window": 0, "max_window_layers": "all", "layer_types": "many"}),
        json!({"architectures": ["LLaMAForCausalLM"], "torch_dtype": "torch.bfloat16"}),
        json!({"architectures": ["FSDPLlamaForCausalLM"], "dtype": "bf16"}),
        json!({"architectures": ["LlamaForCausalLMWithValueHead"], "model_type": "LLaMA"}),
        json!({"torch_dtype": "half"}),
    ] {
        let config = llama(extra.clone()).unwrap_or_else(|error| panic!("{extra}: {error}"));
        assert!(config.pad_token.is_none() && config.eos_tokens == [2], "{extra}");
        assert_eq!(config.sliding_windows, [None; 2]);
    }
    let off = json!({"model_type": "qwen2", "use_sliding_window": false, "sliding_window": -1, "max_window_layers": -3});
    assert_eq!(parse(off).unwrap().sliding_windows[0], None);
    assert_eq!(llama(json!({"bos_token_id": -1})).unwrap().bos_token, None);
    assert_eq!(llama(json!({"bos_token_id": null})).unwrap().bos_token, Some(1));
}

#[test]
fn windows_follow_use_sliding_window_and_layer_types() {
    let qwen = |extra: Value| {
        let mut value = json!({"model_type": "qwen2", "num_hidden_layers": 3, "sliding_window": 16});
        value
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        parse(value).map(|config| config.sliding_windows)
    };
    assert_eq!(qwen(json!({"max_window_layers": 0})).unwrap(), [None; 3]);
    let on = json!({"use_sliding_window": true, "max_window_layers": 2});
    assert_eq!(qwen(on).unwrap(), [None, None, Some(16)]);
    let types = json!({"use_sliding_window": true,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"]});
    assert_eq!(qwen(types).unwrap(), [Some(16), None, None]);
    assert!(qwen(json!({"layer_types": ["full_attention"]})).is_err());
    assert!(qwen(json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"]})).is_err());
    assert!(qwen(json!({"layer_types": ["linear_attention", "full_attention", "full_attention"]})).is_err());
}

#[test]
fn unknown_architectures_list_the_supported_ones() {
    for value in [
        json!({"model_type": "gpt2"}),
        json!({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}),
        json!({"architectures": ["LlamaForSequenceClassification"], "model_type": "llama"}),
        json!({}),
    ] {
        let text = error(parse(value));
        assert!(
            text.contains("LlamaForCausalLM") && text.contains("BloomForCausalLM"),
            "{text}"
        );
    }
    assert_eq!(
        parse(json!({"architectures": ["OPTModel"]})).unwrap().family,
        Family::Opt
    );
}

#[test]
fn unsupported_features_are_errors() {
    for (value, word) in [
        (
            json!({"model_type": "opt", "do_layer_norm_before": false}),
            "do_layer_norm_before",
        ),
        (
            json!({"model_type": "opt", "word_embed_proj_dim": 512}),
            "word_embed_proj_dim",
        ),
        (
            json!({"model_type": "opt", "_remove_final_layer_norm": true}),
            "_remove_final_layer_norm",
        ),
        (
            json!({"model_type": "opt", "layer_norm_elementwise_affine": false}),
            "elementwise_affine",
        ),
        (
            json!({"model_type": "bloom", "apply_residual_connection_post_layernorm": true}),
            "apply_residual",
        ),
        (
            json!({"model_type": "llama", "num_local_experts": 8}),
            "num_local_experts",
        ),
        (json!({"model_type": "llama", "hidden_act": "xielu"}), "xielu"),
        (
            json!({"model_type": "llama", "torch_dtype": "float8_e4m3fn"}),
            "float8",
        ),
        (
            json!({"model_type": "llama", "quantization_config": {"quant_method": "aqlm"}}),
            "aqlm",
        ),
    ] {
        let text = error(parse(value));
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused_with_their_field() {
    for (extra, field) in [
        (json!({"num_attention_heads": 0}), "num_attention_heads"),
        (
            json!({"num_attention_heads": 3, "head_dim": 21}),
            "num_attention_heads",
        ),
        (json!({"num_key_value_heads": 3}), "num_key_value_heads"),
        (json!({"num_key_value_heads": 0}), "num_key_value_heads"),
        (json!({"head_dim": 7}), "head_dim"),
        (json!({"head_dim": 1_000_000_000_000_u64}), "head_dim"),
        (json!({"hidden_size": -4}), "hidden_size"),
        (json!({"hidden_size": 4.5}), "hidden_size"),
        (json!({"hidden_size": u64::MAX}), "hidden_size"),
        (json!({"num_hidden_layers": 1_000_000_000}), "num_hidden_layers"),
        (json!({"vocab_size": "many"}), "vocab_size"),
        (json!({"rms_norm_eps": 0}), "rms_norm_eps"),
        (json!({"eos_token_id": [1, "x"]}), "eos_token_id"),
        (json!({"tie_word_embeddings": 1}), "tie_word_embeddings"),
    ] {
        let text = error(llama(extra));
        assert!(text.contains(field), "{text}");
    }
    assert!(ModelConfig::from_json("[1]").is_err());
    assert!(ModelConfig::from_json("{").is_err());
}

#[test]
fn end_tokens_may_be_one_or_many_and_generation_config_adds() {
    assert_eq!(llama(json!({"eos_token_id": [7, 9]})).unwrap().eos_tokens, [7, 9]);
    assert!(
        llama(json!({"eos_token_id": null}))
            .unwrap()
            .eos_tokens
            .is_empty()
    );
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "llama", "eos_token_id": 7});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    std::fs::write(
        dir.path().join("generation_config.json"),
        r#"{"eos_token_id": [9, 7]}"#,
    )
    .unwrap();
    assert_eq!(ModelConfig::load(dir.path()).unwrap().eos_tokens, [7, 9]);
    std::fs::write(dir.path().join("generation_config.json"), "[]").unwrap();
    assert!(error(ModelConfig::load(dir.path())).contains("generation_config.json"));
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(error(ModelConfig::load(dir.path())).contains("config.json"));
}

/// Gemma 3 with pictures: its text model, and what the whole says beside it.
fn with_pictures(whole: Value) -> Result<ModelConfig, ConfigError> {
    let text = json!({"model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "eos_token_id": 7, "sliding_window": 16, "sliding_window_pattern": 3});
    let mut config = json!({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
        "vision_config": {"hidden_size": 1}, "text_config": text});
    for (name, value) in whole.as_object().unwrap() {
        config[name] = value.clone();
    }
    parse(config)
}

#[test]
fn of_gemma_3_with_pictures_the_text_model_is_read() {
    let config = with_pictures(json!({})).unwrap();
    assert_eq!((config.family, config.hidden_size), (Family::Gemma3, 64));
    assert_eq!(config.eos_tokens, [7]);
    assert_eq!(config.sliding_windows, [Some(16), Some(16), None]);
    let config = with_pictures(json!({"eos_token_id": [1, 106], "tie_word_embeddings": false})).unwrap();
    assert_eq!(config.eos_tokens, [1, 106]);
    assert!(!config.tie_embeddings);
}

#[test]
fn null_beside_a_text_model_says_nothing_of_it() {
    let nothing = json!({"eos_token_id": null, "tie_word_embeddings": null, "quantization_config": null});
    let config = with_pictures(nothing).unwrap();
    assert_eq!(config.eos_tokens, [7]);
    assert!(config.tie_embeddings && config.quantization.is_none());
}

#[test]
fn other_classes_of_gemma_3_are_refused() {
    let class = json!({"architectures": ["Gemma3ForSequenceClassification"]});
    let error = with_pictures(class).unwrap_err().to_string();
    assert!(error.contains("Gemma3ForSequenceClassification"), "{error}");
}

#[test]
fn caps_that_floats_can_not_take_are_refused() {
    for cap in [0.0, 1e-38, 3e38, -1.0] {
        let config = json!({"model_type": "gemma2", "attn_logit_softcapping": cap});
        let error = parse(config).unwrap_err().to_string();
        assert!(error.contains("attn_logit_softcapping"), "{error}");
    }
    let off = parse(json!({"model_type": "gemma2", "attn_logit_softcapping": null})).unwrap();
    assert_eq!((off.score_cap, off.logit_cap), (None, Some(30.0)));
    let scalar = json!({"model_type": "gemma2", "query_pre_attn_scalar": 1e300});
    assert!(parse(scalar).is_err());
}
