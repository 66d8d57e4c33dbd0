//! `quantization_config` of other programs: what is read, and what is refused by its field.

use dualgrain_engine::ModelConfig;
use serde_json::{Value, json};

fn read(quantization: Value) -> Result<ModelConfig, String> {
    let config = json!({"model_type": "llama", "quantization_config": quantization});
    ModelConfig::from_json(&config.to_string()).map_err(|error| error.to_string())
}

fn compressed(weights: Value, more: Value) -> Value {
    let mut value = json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}});
    let object = value.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    value
}

#[test]
fn models_of_other_programs_are_models_of_floats() {
    for quantization in [
        json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true, "sym": true}),
        json!({"quant_method": "gptq", "bits": 3, "group_size": -1, "checkpoint_format": "gptq_v2",
            "dynamic": {"-:.*down.*": {}, r"+:.*\.0\..*": {"bits": 8}}}),
        json!({"quant_method": "awq", "bits": 4, "group_size": 64, "version": "GEMM", "zero_point": true}),
        compressed(
            json!({"num_bits": 4, "strategy": "group", "group_size": 32}),
            json!({"ignore": ["lm_head"]}),
        ),
        json!({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}),
        json!({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}),
    ] {
        let config = read(quantization.clone()).unwrap_or_else(|error| panic!("{quantization}: {error}"));
        assert!(config.quantization.is_none(), "{quantization}");
    }
    let older = json!({"model_type": "llama", "compression_config": {"quant_method": "bitnet"}});
    let error = ModelConfig::from_json(&older.to_string())
        .unwrap_err()
        .to_string();
    assert!(error.contains("bitnet"), "{error}");
}

#[test]
fn what_is_not_read_is_refused_by_its_field() {
    let gptq = |more: Value| {
        let mut value = json!({"quant_method": "gptq", "bits": 4, "group_size": 128});
        let object = value.as_object_mut().unwrap();
        object.extend(more.as_object().unwrap().clone());
        value
    };
    for (quantization, words) in [
        (
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
            "bitsandbytes",
        ),
        (json!({}), "quant_method"),
        (json!(4), "an object"),
        (gptq(json!({"bits": 5})), "`bits` is 5"),
        (gptq(json!({"bits": "4"})), "`bits`"),
        (gptq(json!({"group_size": 0})), "`group_size` is 0"),
        (gptq(json!({"group_size": null})), "`group_size` is missing"),
        (gptq(json!({"checkpoint_format": "marlin"})), "marlin"),
        (gptq(json!({"is_marlin_format": true})), "is_marlin_format"),
        (gptq(json!({"dynamic": {".*up.*": {"bits": 6}}})), "dynamic"),
        (gptq(json!({"dynamic": {"(": {}}})), "dynamic"),
        (
            json!({"quant_method": "awq", "bits": 8, "group_size": 128}),
            "`bits` is 8",
        ),
        (
            json!({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"}),
            "gemv",
        ),
        (
            json!({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": false}),
            "zero_point",
        ),
        (
            compressed(json!({"num_bits": 3}), json!({})),
            "config_groups.group_0.weights.num_bits",
        ),
        (
            compressed(json!({"num_bits": 4, "type": "float"}), json!({})),
            "num_bits",
        ),
        (
            compressed(
                json!({"num_bits": 4, "strategy": "tensor_group", "group_size": 16}),
                json!({}),
            ),
            "tensor_group",
        ),
        (
            compressed(json!({"num_bits": 4}), json!({"format": "marlin-24"})),
            "marlin-24",
        ),
        (
            compressed(
                json!({"num_bits": 4}),
                json!({"sparsity_config": {"format": "sparse-24-bitmask"}}),
            ),
            "sparse-24",
        ),
        (
            compressed(
                json!({"num_bits": 4}),
                json!({"transform_config": {"config_groups": {"u": {}}}}),
            ),
            "transform_config",
        ),
        (
            compressed(json!({"num_bits": 4}), json!({"ignore": ["re:("]})),
            "ignore",
        ),
        (json!({"quant_method": "fp8", "fmt": "e5m2"}), "e5m2"),
        (
            json!({"quant_method": "fp8", "weight_block_size": [128]}),
            "weight_block_size",
        ),
    ] {
        let error = read(quantization.clone()).unwrap_err();
        assert!(error.contains(words), "{quantization}: {error}");
    }
}
