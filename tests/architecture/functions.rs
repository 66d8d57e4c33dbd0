//! How long functions are.

use crate::tokens::{Token, closed};

/// A function with a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    pub name: String,
    /// Of its `fn`.
    pub line: usize,
    /// Lines from its `fn` to its closing brace.
    pub num_lines: usize,
}

/// All functions with a body. One inside another counts by itself and as a part of the other; a closure is a part of its
/// function.
pub fn functions(tokens: &[Token<'_>]) -> Vec<Function> {
    (0..tokens.len())
        .filter(|&at| tokens[at].is_word("fn"))
        .filter_map(|at| function(tokens, at))
        .collect()
}

fn function(tokens: &[Token<'_>], at: usize) -> Option<Function> {
    // The name of a function in a macro is `$name`; the type `fn(A) -> B` has none.
    let in_macro = tokens.get(at + 1)?.is('$');
    let name = at + 1 + usize::from(in_macro);
    let function = Function {
        name: tokens.get(name)?.word()?.to_owned(),
        line: tokens[at].line,
        num_lines: 0,
    };
    let body = body(tokens, name)?;
    let last = tokens[closed(tokens, body) - 1];
    let num_lines = last.line + 1 - function.line;
    Some(Function {
        num_lines,
        ..function
    })
}

/// The index of the brace that opens the body of the function named at `name`; none in a trait's declaration.
fn body(tokens: &[Token<'_>], name: usize) -> Option<usize> {
    let mut at = name;
    while let Some(token) = tokens.get(at) {
        if token.is('{') {
            return Some(at);
        }
        if token.is(';') || token.closes() {
            return None;
        }
        at = if token.opens() { closed(tokens, at) } else { at + 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::tokens;

    fn lengths(source: &str) -> Vec<(String, usize)> {
        let functions = functions(&tokens(source));
        functions.into_iter().map(|f| (f.name, f.num_lines)).collect()
    }

    fn one(source: &str, num_lines: usize) {
        assert_eq!(lengths(source), [("a".to_owned(), num_lines)], "{source}");
    }

    #[test]
    fn a_function_goes_from_its_name_to_its_last_brace() {
        one("fn a() {}", 1);
        one(
            "/// Doc {\n#[inline]\npub const unsafe fn a<'x>(\n) -> u8 {\n1\n}\n",
            4,
        );
        one("fn a(b: [u8; 3]) -> [u8; 3] where X: Y {\nb\n}", 3);
        one("fn a() { let b = '{'; \"}\"; r#\"}\"#; // }\n}", 2);
        one("macro_rules! m { () => { fn $a() {\n} } }", 2);
    }

    #[test]
    fn nested_functions_count_twice_and_closures_belong_to_theirs() {
        let source = "fn outer() {\n fn inner() {\n }\n let c = |x| {\n x\n };\n}";
        assert_eq!(
            lengths(source),
            [("outer".to_owned(), 7), ("inner".to_owned(), 2)]
        );
    }

    #[test]
    fn declarations_and_types_of_functions_have_no_length() {
        assert!(lengths("trait T { fn a(&self); fn b() -> [u8; 2]; }").is_empty());
        assert!(lengths("type F = fn(u8) -> u8; const G: fn() = g; m!(fn c)").is_empty());
    }
}
