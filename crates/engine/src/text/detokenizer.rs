//! Text from tokens that come one at a time.

use std::sync::Arc;

use crate::text::tokenizer::{Tokenizer, TokenizerError};

/// Turns tokens into text as they come. Characters are given out whole: bytes of a character that its next tokens may
/// complete are held back, and so is nothing else.
///
/// Decoding a token alone is wrong in two ways: byte-level tokens split characters, and sentencepiece decoders drop the
/// space before the first token. So the tokens of the last piece stay as context, context and new tokens are decoded
/// together, and what goes beyond the context's text is new. Both parts are bounded, so a token costs the same
/// wherever it stands.
#[derive(Debug)]
pub struct DecodeStream {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    /// Context, then tokens that wait for the rest of a character.
    window: Vec<u32>,
    /// Tokens at the start of the window that are context: they decode to whole characters, all given out.
    num_context: usize,
    /// Bytes of the window's text that have been given out.
    emitted_bytes: usize,
}

/// Tokens of a prompt that are tried as the first context.
const PROMPT_CONTEXT_MAX: usize = 8;
/// Beyond this many tokens the bytes cannot be a character in the making (at most 4 tokens): they are garbage.
const WINDOW_TOKENS_MAX: usize = 32;
/// What decoders write for bytes that are not UTF-8.
const REPLACEMENT: char = '\u{fffd}';

impl DecodeStream {
    /// A stream of text; special tokens (end of text, roles of a chat) give none where they are skipped.
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special_tokens: bool) -> Self {
        Self {
            tokenizer,
            skip_special_tokens,
            window: Vec::new(),
            num_context: 0,
            emitted_bytes: 0,
        }
    }

    /// Takes the end of `prompt` as context, so that the text that follows joins it (a space before its first word
    /// is kept). A prompt that ends in a special token gives none: what follows begins anew.
    ///
    /// # Errors
    /// A decoder that fails.
    pub fn follow(&mut self, prompt: &[u32]) -> Result<(), TokenizerError> {
        for num_tokens in 1..=PROMPT_CONTEXT_MAX.min(prompt.len()) {
            let tail = &prompt[prompt.len() - num_tokens..];
            if self.tokenizer.is_special(tail[0]) {
                break;
            }
            let text = self.tokenizer.decode(tail, false)?;
            if !text.contains(REPLACEMENT) {
                self.window = tail.to_vec();
                self.num_context = num_tokens;
                self.emitted_bytes = text.len();
                break;
            }
        }
        Ok(())
    }

    /// Takes the next token and returns the text it completes, often empty.
    ///
    /// # Errors
    /// A decoder that fails.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        if self.skip_special_tokens && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.window.push(id);
        let text = self.window_text()?;
        let whole = text.trim_end_matches(REPLACEMENT).len();
        if whole == text.len() {
            let piece = self.emit_until(&text, whole);
            self.window.drain(..self.num_context);
            self.num_context = self.window.len();
            self.emitted_bytes = self.window_text()?.len();
            return Ok(piece);
        }
        if self.window.len() > WINDOW_TOKENS_MAX {
            return self.give_up_on_garbage(&text, text.len() - whole);
        }
        Ok(self.emit_until(&text, whole))
    }

    /// What is still held back: bytes that never became a character, each as U+FFFD.
    ///
    /// # Errors
    /// A decoder that fails.
    pub fn finish(mut self) -> Result<String, TokenizerError> {
        let text = self.window_text()?;
        Ok(self.emit_until(&text, text.len()))
    }

    /// Gives out all but the bytes that can still become a character: three at most, each at most one replacement.
    fn give_up_on_garbage(&mut self, text: &str, broken_bytes: usize) -> Result<String, TokenizerError> {
        let held_bytes = broken_bytes.min(3 * REPLACEMENT.len_utf8());
        let piece = self.emit_until(text, text.len() - held_bytes);
        self.window.drain(..WINDOW_TOKENS_MAX / 2);
        self.num_context = 0;
        self.emitted_bytes = self.window_text()?.len().saturating_sub(held_bytes);
        Ok(piece)
    }

    fn window_text(&self) -> Result<String, TokenizerError> {
        self.tokenizer.decode(&self.window, false)
    }

    fn emit_until(&mut self, text: &str, end: usize) -> String {
        // A run of byte-fallback tokens that turns out broken changes the text of its beginning: never split a character.
        let start = text.ceil_char_boundary(self.emitted_bytes.min(text.len()));
        self.emitted_bytes = self.emitted_bytes.max(end);
        text.get(start..end).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn load(json: &Value, vocab_size: usize) -> Arc<Tokenizer> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        Arc::new(Tokenizer::load(dir.path(), vocab_size).unwrap())
    }

    /// Byte-level, as GPT-2: one token per byte with id = byte (so any split of a character can be made), then
    /// "<|end|>" with id 256.
    fn byte_level() -> Arc<Tokenizer> {
        let printable = |b: u8| (33..=126).contains(&b) || (161..=172).contains(&b) || b >= 174;
        let mut others = 0;
        let vocab: serde_json::Map<String, Value> = (0..=255u8)
            .map(|b| {
                others += u32::from(!printable(b));
                let code = if printable(b) { u32::from(b) } else { 255 + others };
                (char::from_u32(code).unwrap().to_string(), b.into())
            })
            .collect();
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
            "added_tokens": [{"id": 256, "content": "<|end|>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": vocab, "merges": []}
        });
        load(&json, 257)
    }

    /// As Llama 2: words with a leading \u{2581}, bytes as <0xXX>, the first space stripped.
    fn sentencepiece() -> Arc<Tokenizer> {
        let mut vocab: serde_json::Map<String, Value> =
            (0..=255u32).map(|b| (format!("<0x{b:02X}>"), b.into())).collect();
        for (id, word) in ["\u{2581}", "\u{2581}Hi", "\u{2581}you", "!", "\u{e9}"]
            .into_iter()
            .enumerate()
        {
            vocab.insert(word.to_owned(), (256 + id).into());
        }
        let json = serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null,
            "pre_tokenizer": null,
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true}
        });
        load(&json, 261)
    }

    fn stream_pieces(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> Vec<String> {
        let mut stream = DecodeStream::new(Arc::clone(tokenizer), true);
        let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        pieces
    }

    #[test]
    fn encoding_and_decoding_are_inverse() {
        for tokenizer in [byte_level(), sentencepiece()] {
            for text in [
                "Hi you!",
                "na\u{ef}ve \u{65e5}\u{672c} \u{1f600}",
                "",
                " two  spaces ",
            ] {
                let ids = tokenizer.encode(text, false).unwrap();
                assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_stream_gives_whole_characters_only_and_the_same_text_as_decoding_at_once() {
        let text = "a\u{e9}\u{20ac}\u{1f600} \u{65e5}\u{672c}\u{8a9e}, fin";
        for tokenizer in [byte_level(), sentencepiece()] {
            let ids = tokenizer.encode(text, false).unwrap();
            let pieces = stream_pieces(&tokenizer, &ids);
            assert_eq!(pieces.concat(), text);
            assert!(
                pieces.iter().all(|piece| !piece.contains(REPLACEMENT)),
                "{pieces:?}"
            );
            // Every character appears as soon as its last byte is there: nothing is left for the end.
            assert_eq!(pieces.last().unwrap(), "");
        }
        let euro = [0xe2, 0x82, 0xac];
        assert_eq!(stream_pieces(&byte_level(), &euro), ["", "", "\u{20ac}", ""]);
        assert_eq!(stream_pieces(&sentencepiece(), &euro), ["", "", "\u{20ac}", ""]);
    }

    #[test]
    fn a_long_run_of_byte_fallback_tokens_streams_character_by_character() {
        let text = "\u{65e5}\u{20ac}".repeat(40);
        let ids: Vec<u32> = text.bytes().map(u32::from).collect();
        let pieces = stream_pieces(&sentencepiece(), &ids);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| piece.chars().count() <= 1));
    }

    #[test]
    fn sentencepiece_spaces_survive_streaming_except_the_first() {
        let tokenizer = sentencepiece();
        assert_eq!(
            stream_pieces(&tokenizer, &[257, 258, 259]),
            ["Hi", " you", "!", ""]
        );
        assert_eq!(
            stream_pieces(&tokenizer, &[256, 257, 256, 256, 258]).concat(),
            " Hi   you"
        );
    }

    #[test]
    fn a_stream_that_follows_a_prompt_keeps_the_space_between_them() {
        let tokenizer = sentencepiece();
        let mut stream = DecodeStream::new(Arc::clone(&tokenizer), true);
        stream.follow(&[257]).unwrap();
        assert_eq!(stream.push(258).unwrap(), " you");
        let mut after_bytes = DecodeStream::new(Arc::clone(&tokenizer), true);
        after_bytes.follow(&[257, 0xe2, 0x82, 0xac]).unwrap();
        assert_eq!(after_bytes.push(258).unwrap(), " you");
    }

    #[test]
    fn broken_utf8_is_replaced_and_what_follows_is_intact() {
        let ids = [0x61, 0xff, 0xe2, 0x82, 0x62, 0xc3];
        let expected = "a\u{fffd}\u{fffd}b\u{fffd}";
        let tokenizer = byte_level();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), expected);
        assert_eq!(stream_pieces(&tokenizer, &ids).concat(), expected);
    }

    #[test]
    fn endless_garbage_keeps_a_short_window_and_loses_no_character_after_it() {
        for (tokenizer, exclamation) in [(byte_level(), 0x21), (sentencepiece(), 259)] {
            let mut stream = DecodeStream::new(Arc::clone(&tokenizer), true);
            let mut text = String::new();
            for _ in 0..1000 {
                text += &stream.push(0x80).unwrap();
                assert!(stream.window.len() <= WINDOW_TOKENS_MAX);
            }
            for id in [0xe2, 0x82, 0xac, exclamation] {
                text += &stream.push(id).unwrap();
            }
            text += &stream.finish().unwrap();
            assert!(
                text.starts_with(&REPLACEMENT.to_string().repeat(900)),
                "{} characters",
                text.chars().count()
            );
            assert!(text.ends_with("!"));
        }
        let garbage_then_euro: Vec<u32> = [vec![0x80; 100], vec![0xe2, 0x82, 0xac]].concat();
        let tokenizer = byte_level();
        let streamed = stream_pieces(&tokenizer, &garbage_then_euro).concat();
        assert_eq!(streamed, tokenizer.decode(&garbage_then_euro, true).unwrap());
    }

    #[test]
    fn special_tokens_are_skipped_in_the_middle_of_a_character_too() {
        assert_eq!(
            stream_pieces(&byte_level(), &[0xc3, 256, 0xa9]).concat(),
            "\u{e9}"
        );
        let shown = byte_level();
        let mut stream = DecodeStream::new(Arc::clone(&shown), false);
        assert_eq!(stream.push(256).unwrap(), "<|end|>");
    }
}
