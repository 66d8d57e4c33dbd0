//! Paths of names as Rust writes them: `a::b::c`, and the trees that `use` makes of them.

use crate::tokens::Token;

/// The names of a path, from the first to the last; `crate`, `self` and `super` are names like others.
pub type Path = Vec<String>;

/// One name that a `use` brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The name it has from then on; none for `*`.
    pub name: Option<String>,
    pub path: Path,
    /// Whether it is passed on: `pub use`.
    pub is_public: bool,
}

impl Import {
    fn new(name: Option<String>, path: Path) -> Self {
        Self {
            name,
            path,
            is_public: false,
        }
    }

    /// The last name of the path under its own or another `name`; `a::{self}` brings `a`.
    fn named(mut path: Path, name: Option<String>) -> Self {
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        Self::new(name.or_else(|| path.last().cloned()), path)
    }
}

/// The path that begins at `at`, where a word is, and the index behind it.
pub fn path_at(tokens: &[Token<'_>], at: usize) -> (Path, usize) {
    let mut path = Path::new();
    let mut next = at;
    while let Some(word) = tokens.get(next).and_then(Token::word) {
        path.push(word.to_owned());
        next += 1;
        let goes_on = tokens.get(next + 2).is_some_and(|token| token.word().is_some());
        if !is_separator(tokens, next) || !goes_on {
            break;
        }
        next += 2;
    }
    (path, next)
}

fn is_separator(tokens: &[Token<'_>], at: usize) -> bool {
    let mut pair = tokens.iter().skip(at).take(2);
    pair.len() == 2 && pair.all(|token| token.is(':'))
}

/// What the `use` at `at` brings, and the index behind its tree.
pub fn import(tokens: &[Token<'_>], at: usize) -> (Vec<Import>, usize) {
    let mut imports = Vec::new();
    let end = tree(tokens, at + 1, &Path::new(), &mut imports);
    // What stands before it is `pub`, `pub(...)`, or the end of another item.
    let before = at.checked_sub(1).map(|before| tokens[before]);
    if before.is_some_and(|token| token.is_word("pub") || token.is(')')) {
        imports.iter_mut().for_each(|import| import.is_public = true);
    }
    (imports, end)
}

fn tree(tokens: &[Token<'_>], start: usize, prefix: &[String], imports: &mut Vec<Import>) -> usize {
    // `$crate` is the crate; a path that begins with `::` is another crate's.
    let mut at = start + tokens[start..].iter().take_while(|token| token.is('$')).count();
    at += 2 * usize::from(is_separator(tokens, at));
    let (names, mut at) = path_at(tokens, at);
    let path = [prefix, &names].concat();
    at += 2 * usize::from(is_separator(tokens, at));
    match tokens.get(at) {
        Some(token) if token.is('{') => return group(tokens, at, &path, imports),
        Some(token) if token.is('*') => {
            imports.push(Import::new(None, path));
            return at + 1;
        }
        _ if names.is_empty() => return at + 1,
        _ => {}
    }
    let (name, end) = match tokens.get(at) {
        Some(token) if token.is_word("as") => (tokens[at + 1].word().map(str::to_owned), at + 2),
        _ => (None, at),
    };
    imports.push(Import::named(path, name));
    end
}

fn group(tokens: &[Token<'_>], open: usize, path: &[String], imports: &mut Vec<Import>) -> usize {
    let mut at = open + 1;
    while let Some(token) = tokens.get(at) {
        at = match token {
            _ if token.is('}') => return at + 1,
            _ if token.is(',') => at + 1,
            _ => tree(tokens, at, path, imports),
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn imports(source: &str) -> Vec<String> {
        let source = format!("use {source}");
        let tokens = tokens(&source);
        let (imports, end) = import(&tokens, 0);
        assert!(tokens[end].is(';'), "{source}");
        let shown =
            |import: Import| format!("{} {}", import.name.unwrap_or_default(), import.path.join("::"));
        imports.into_iter().map(shown).collect()
    }

    #[test]
    fn a_tree_of_imports_is_a_list_of_paths() {
        assert_eq!(imports("a;"), ["a a"]);
        assert_eq!(imports("crate::a::b;"), ["b crate::a::b"]);
        assert_eq!(
            imports("super::{a, b::{self, C as D, e::*}, f,};"),
            [
                "a super::a",
                "b super::b",
                "D super::b::C",
                " super::b::e",
                "f super::f"
            ]
        );
        assert_eq!(imports("self::a as _;"), ["_ self::a"]);
        assert_eq!(imports("$crate::a::B;"), ["B crate::a::B"]);
        assert_eq!(imports("::std::mem;"), ["mem std::mem"]);
        assert_eq!(imports("{a::B, c};"), ["B a::B", "c c"]);
    }

    #[test]
    fn an_import_that_is_passed_on_is_told_apart() {
        for (source, is_public) in [
            ("use a;", false),
            ("pub use a;", true),
            ("pub(crate) use a;", true),
        ] {
            let tokens = tokens(source);
            let at = tokens.iter().position(|token| token.is_word("use")).unwrap();
            assert_eq!(import(&tokens, at).0[0].is_public, is_public, "{source}");
        }
    }

    #[test]
    fn a_path_in_code_ends_where_something_else_begins() {
        for (source, names) in [
            ("a::b::c(d)", 3),
            ("a::<T>::b", 1),
            ("a: b", 1),
            ("a::{b}", 1),
            ("a", 1),
        ] {
            let (path, _) = path_at(&tokens(source), 0);
            assert_eq!(path.len(), names, "{source}");
        }
    }
}
