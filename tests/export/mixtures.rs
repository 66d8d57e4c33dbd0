//! A mixture of experts as `hf`: every expert under its own name, and the same logits.

use dualgrain::engine::Weights;
use dualgrain_format::checkpoint::Dtype;

use crate::formats::nearest_bf16;
use crate::models::{divergence, in_floats, linears, logits, mixture, scratch, tokens_of};
use crate::run;

#[test]
fn an_hf_folder_of_a_mixture_holds_every_expert_to_the_bit() {
    let out = scratch("mixture-bits").join("out");
    run(mixture(), "hf", &out);
    let weights = Weights::open(&out).unwrap();
    let mut num_of_experts = 0;
    for (name, linear) in linears(mixture()) {
        let expected = linear.into_float().unwrap().weight().to_f32();
        let (dtype, _, bytes) = weights.raw(&format!("{name}.weight")).unwrap();
        assert_eq!(dtype, Dtype::BF16);
        let expected = expected
            .iter()
            .flat_map(|&value| nearest_bf16(value).to_le_bytes());
        assert!(expected.eq(bytes.iter().copied()), "{name}");
        num_of_experts += usize::from(name.contains(".experts."));
    }
    // Gate, up and down of four experts in two blocks.
    assert_eq!(num_of_experts, 3 * 4 * 2);
}

#[test]
fn an_hf_folder_of_a_mixture_is_read_back_to_the_same_logits() {
    let out = scratch("mixture-logits").join("out");
    run(mixture(), "hf", &out);
    let ids = tokens_of(dualgrain::SAMPLE_EVALUATION, mixture(), 256);
    let (quantized, read_back) = (in_floats(mixture()), in_floats(&out));
    let vocab = quantized.config().vocab_size;
    let (ours, theirs) = (logits(&quantized, &ids), logits(&read_back, &ids));
    let kl = divergence(&ours, &theirs, vocab);
    let of_neighbour = divergence(&ours[vocab..], &ours[..ours.len() - vocab], vocab);
    println!("KL {kl:e}, between neighbouring tokens {of_neighbour:e}");
    // Weights are rounded to the eight bits of bf16.
    assert!(kl < 1e-3 && of_neighbour > 100.0 * kl, "{kl} and {of_neighbour}");
}
