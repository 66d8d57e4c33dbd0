//! Tokenizer folders, chat templates and task files with random damage: an error or a working object, never a panic.

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use dualgrain_device::cases::Random;
use dualgrain_engine::chat::ChatTemplate;
use dualgrain_engine::detokenizer::DecodeStream;
use dualgrain_engine::evaluate::Task;
use dualgrain_engine::tokenizer::Tokenizer;
use dualgrain_testing::damage_text;

/// A tokenizer with one of each part that real ones have.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":3,"strategy":"LongestFirst","stride":0},
"padding":{"strategy":{"Fixed":9},"direction":"Right","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"a"},
"added_tokens":[{"id":7,"content":"<s>","single_word":false,"lstrip":true,"rstrip":true,"normalized":true,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"_"},{"type":"Replace","pattern":{"Regex":"a+"},"content":"b"},{"type":"NFKC"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+|\\p{L}+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[7],"tokens":["<s>"]}}},
"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
"model":{"type":"BPE","dropout":null,"unk_token":"c","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"vocab":{"a":0,"b":1,"c":2,"_":3,"ab":4,"abc":5,"<0x41>":6},"merges":["a b","ab c"]}}"#;
const TEMPLATE: &str = "{% set ns = namespace(a=0) %}{% for m in messages %}{%- if m['role'] == 'user' -%}{{ m.content | trim }}\
    {% else %}{{ m | tojson(indent=2) }}{{ raise_exception('no') }}{% endif %}{% set ns.a = ns.a + loop.index0 %}{% endfor %}\
    {{ strftime_now('%d %b %Y') }}{{ ns.a }}{% generation %}{{ messages[0].content[1:] }}{% endgeneration %}";
const TASKS: &str = r#"{"query": "q é", "choices": ["a", "b"], "gold": 1}
{"query": "", "choices": ["a", "bc", "d"], "gold": 0}
"#;
/// Runs `attempt` on damaged copies of `good`; it must accept some and refuse some, so that both paths are exercised.
fn damage_many(good: &str, rounds: usize, attempt: impl Fn(&str) -> bool + std::panic::RefUnwindSafe) {
    let random = &mut Random(1);
    assert!(attempt(good), "the undamaged text must be accepted");
    let mut num_accepted = 0;
    for round in 0..rounds {
        let mut text = damage_text(random, good);
        if round % 3 == 0 && !text.is_empty() {
            text = damage_text(random, &text);
        }
        let accepted =
            catch_unwind(|| attempt(&text)).unwrap_or_else(|_| panic!("round {round} panicked on {text}"));
        num_accepted += usize::from(accepted);
    }
    assert!(
        (1..rounds).contains(&num_accepted),
        "{num_accepted} of {rounds} accepted"
    );
}

#[test]
fn damaged_tokenizers_never_panic() {
    let sample = "ab abc é <s> \u{1f600}A _";
    damage_many(TOKENIZER, 3000, |text| {
        let Ok(tokenizer) = Tokenizer::parse(Path::new("tokenizer.json"), text.as_bytes(), 100_000) else {
            return false;
        };
        let ids = tokenizer.encode(sample, true).unwrap_or_default();
        let tokenizer = Arc::new(tokenizer);
        let mut stream = DecodeStream::new(Arc::clone(&tokenizer), true);
        for id in ids.iter().copied().chain([6, 6, 3, 99_999]) {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
        let _ = tokenizer.decode(&ids, false);
        true
    });
}

#[test]
fn damaged_templates_never_panic() {
    let messages =
        serde_json::json!([{"role": "user", "content": " é x "}, {"role": "user", "content": "y"}]);
    damage_many(TEMPLATE, 3000, |text| {
        let template = ChatTemplate::new(text.to_owned(), Default::default());
        template
            .and_then(|template| template.render(&messages, true))
            .is_ok()
    });
}

#[test]
fn damaged_task_files_never_panic() {
    damage_many(TASKS, 20_000, |text| {
        Task::parse(Path::new("task.jsonl"), text, None).is_ok()
    });
}
