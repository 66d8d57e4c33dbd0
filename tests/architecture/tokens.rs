//! Rust source as tokens: comments are dropped, and a brace in a string is no brace.

use std::iter::Peekable;
use std::ops::RangeInclusive;
use std::str::CharIndices;

/// A token and the line, from 1, where it begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token<'a> {
    pub kind: Kind<'a>,
    pub line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind<'a> {
    /// A name or a keyword, without `r#`.
    Word(&'a str),
    /// One character of punctuation.
    Mark(char),
    /// A string, a character, a number or a lifetime, as it is written.
    Literal(&'a str),
}

impl<'a> Token<'a> {
    pub fn word(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub fn is(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }

    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word(word)
    }

    pub fn opens(&self) -> bool {
        matches!(self.kind, Kind::Mark('(' | '[' | '{'))
    }

    pub fn closes(&self) -> bool {
        matches!(self.kind, Kind::Mark(')' | ']' | '}'))
    }
}

/// All tokens of `source`.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut reader = Reader {
        source,
        chars: source.char_indices().peekable(),
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some((start, first)) = reader.next() {
        let line = reader.line;
        if let Some(kind) = reader.token(start, first) {
            tokens.push(Token { kind, line });
        }
    }
    tokens
}

struct Reader<'a> {
    source: &'a str,
    chars: Peekable<CharIndices<'a>>,
    line: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(usize, char)> {
        let next = self.chars.next();
        self.line += usize::from(matches!(next, Some((_, '\n'))));
        next
    }

    /// The text that has not been read yet.
    fn rest(&mut self) -> &'a str {
        let start = self.chars.peek().map_or(self.source.len(), |&(start, _)| start);
        &self.source[start..]
    }

    /// The text from `start` to where reading has come.
    fn since(&mut self, start: usize) -> &'a str {
        let end = self.source.len() - self.rest().len();
        &self.source[start..end]
    }

    fn literal(&mut self, start: usize) -> Option<Kind<'a>> {
        Some(Kind::Literal(self.since(start)))
    }

    fn skip(&mut self, num_chars: usize) {
        (0..num_chars).for_each(|_| _ = self.next());
    }

    fn token(&mut self, start: usize, first: char) -> Option<Kind<'a>> {
        let rest = self.rest();
        match first {
            _ if first.is_whitespace() => None,
            '/' if rest.starts_with('/') => self.line_comment(),
            '/' if rest.starts_with('*') => self.block_comment(),
            '"' => self.until_quote('"').literal(start),
            '\'' => self.character_or_lifetime().literal(start),
            _ if first.is_alphabetic() || first == '_' => self.word_or_prefixed_literal(start),
            _ if first.is_ascii_digit() => self.number().literal(start),
            _ => Some(Kind::Mark(first)),
        }
    }

    fn line_comment(&mut self) -> Option<Kind<'a>> {
        let len = self.rest().chars().take_while(|&c| c != '\n').count();
        self.skip(len);
        None
    }

    /// Block comments nest.
    fn block_comment(&mut self) -> Option<Kind<'a>> {
        let mut depth = 0;
        loop {
            let rest = self.rest();
            if rest.starts_with("/*") || (depth == 0 && rest.starts_with('*')) {
                depth += 1;
                self.skip(if depth == 1 { 1 } else { 2 });
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.skip(2);
            } else if self.next().is_none() {
                return None;
            }
            if depth == 0 {
                return None;
            }
        }
    }

    fn until_quote(&mut self, quote: char) -> &mut Self {
        while let Some((_, c)) = self.next() {
            match c {
                '\\' => self.skip(1),
                _ if c == quote => break,
                _ => {}
            }
        }
        self
    }

    fn character_or_lifetime(&mut self) -> &mut Self {
        let mut rest = self.rest().chars();
        let (first, second) = (rest.next(), rest.next());
        if first == Some('\\') || second == Some('\'') {
            self.until_quote('\'')
        } else {
            self.skip_word()
        }
    }

    fn skip_word(&mut self) -> &mut Self {
        let in_word = |&c: &char| c.is_alphanumeric() || c == '_';
        let len = self.rest().chars().take_while(in_word).count();
        self.skip(len);
        self
    }

    /// A name, or what a name begins: `r"..."`, `br#"..."#`, `c"..."`, `b'x'`, `r#name`.
    fn word_or_prefixed_literal(&mut self, start: usize) -> Option<Kind<'a>> {
        let word = self.skip_word().since(start);
        let rest = self.rest();
        let hashes = rest.chars().take_while(|&c| c == '#').count();
        let quoted = rest[hashes..].starts_with('"');
        match word {
            "r" | "br" | "cr" if quoted => self.raw_string(hashes).literal(start),
            "b" | "c" if quoted && hashes == 0 => {
                self.skip(1);
                self.until_quote('"').literal(start)
            }
            "b" if rest.starts_with('\'') => {
                self.skip(1);
                self.until_quote('\'').literal(start)
            }
            "r" if hashes == 1 => {
                self.skip(1);
                self.word_or_prefixed_literal(start + 2)
            }
            _ => Some(Kind::Word(word)),
        }
    }

    fn raw_string(&mut self, hashes: usize) -> &mut Self {
        self.skip(hashes + 1);
        let end = format!("\"{}", "#".repeat(hashes));
        let rest = self.rest();
        let text = rest.split_once(&end).map_or(rest, |(text, _)| text);
        self.skip(text.chars().count() + end.len());
        self
    }

    /// A number; the dots of `0..n` and `0.max(1)` are not part of it.
    fn number(&mut self) -> &mut Self {
        self.skip_word();
        let mut rest = self.rest().chars();
        if rest.next() == Some('.') && rest.next().is_some_and(|c| c.is_ascii_digit()) {
            self.skip(1);
            self.skip_word();
        }
        self
    }
}

/// The index behind the item that begins at `start`: behind its `;`, or behind the first braces that stand in nothing else.
pub fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let first_words = tokens[start..].iter().filter_map(Token::word).take(3);
    let is_import = first_words
        .take_while(|word| ["pub", "crate", "super", "use"].contains(word))
        .any(|word| word == "use");
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        if token.opens() {
            depth += 1;
        } else if token.closes() {
            depth = depth.saturating_sub(1);
        }
        let ends = token.is(';') || (token.is('}') && !is_import);
        if depth == 0 && ends {
            return at + 1;
        }
    }
    tokens.len()
}

/// The index behind the bracket that closes the one at `open`.
pub fn closed(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.opens() {
            depth += 1;
        } else if token.closes() {
            depth = depth.saturating_sub(1);
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// `tokens` without the items under `#[cfg(test)]` or `#[cfg(all(test, ...))]`, and the lines of those.
pub fn without_tests<'a>(tokens: &[Token<'a>]) -> (Vec<Token<'a>>, Vec<RangeInclusive<usize>>) {
    let (mut kept, mut tests, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        if !is_test_attribute(&tokens[at..]) {
            kept.push(tokens[at]);
            at += 1;
            continue;
        }
        let first = at;
        while tokens.get(at).is_some_and(|token| token.is('#')) {
            at = closed(tokens, at + 1);
        }
        at = item_end(tokens, at);
        tests.push(tokens[first].line..=tokens[at - 1].line);
    }
    (kept, tests)
}

fn is_test_attribute(tokens: &[Token<'_>]) -> bool {
    let spelled = |pattern: &str| {
        let pattern = pattern.split(' ');
        let mut tokens = tokens.iter();
        pattern.into_iter().all(|expected| {
            tokens.next().is_some_and(|token| match token.kind {
                Kind::Word(word) => word == expected,
                Kind::Mark(mark) => expected.chars().eq([mark]),
                Kind::Literal(_) => false,
            })
        })
    };
    spelled("# [ cfg ( test )") || spelled("# [ cfg ( all ( test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source).iter().filter_map(Token::word).collect()
    }

    #[test]
    fn comments_and_literals_hide_what_stands_in_them() {
        for hidden in [
            "// b {\n",
            "/* b { */",
            "/* b /* { */ b */",
            "/**/",
            "/***/",
            r#""b \" { b""#,
            "r\"b \\\"",
            "r#\"b \" {\"#",
            "br##\"b \"# { \"##",
            "b\"b\"",
            "c\"b\"",
            "'{'",
            "'\\''",
            "b'b'",
            "b'\\''",
            "'\u{e9}'",
            "'b",
            "1.5e3",
            "0x1b_u8",
        ] {
            let source = format!("a {hidden} z");
            assert_eq!(words(&source), ["a", "z"], "{source}");
            assert!(!tokens(&source).iter().any(Token::opens), "{source}");
        }
    }

    #[test]
    fn what_looks_like_a_literal_is_none() {
        assert_eq!(words("r#type b r br"), ["type", "b", "r", "br"]);
        assert_eq!(words("x: &'a str, 'static, 'a: loop {}"), ["x", "str", "loop"]);
        assert_eq!(words("0..n 1.max(m) t.0.x"), ["n", "max", "m", "t", "x"]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let lines: Vec<usize> = tokens("a\n/*\n*/b \"\n\\\n\" c\nr\"\n\" d")
            .iter()
            .filter(|token| token.word().is_some())
            .map(|token| token.line)
            .collect();
        assert_eq!(lines, [1, 3, 5, 7]);
    }

    #[test]
    fn items_under_cfg_test_are_left_out_and_nothing_else() {
        let source = "use a;\n#[cfg(test)]\npub(crate) use b::{c};\nfn d() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn e() { {} }\n}\n\
                      #[cfg(all(test, unix))]\nconst F: [u8; 1] = [0];\n#[cfg(unix)]\nfn g() {}";
        let all = tokens(source);
        let (kept, tests) = without_tests(&all);
        let kept: Vec<&str> = kept.iter().filter_map(Token::word).collect();
        assert_eq!(kept, ["use", "a", "fn", "d", "cfg", "unix", "fn", "g"]);
        assert_eq!(tests, [2..=3, 5..=9, 10..=11]);
    }
}
