//! The modules of a crate: which file holds each, and what each declares, defines, imports and names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::house::read;
use crate::paths::{Import, Path as NamePath, import, path_at};
use crate::tokens::{Kind, Token, closed, tokens, without_tests};

/// A module's place in `Crate::modules`; the root is 0.
pub type ModuleIdx = usize;

/// The modules of one crate, found from its root file along `mod` declarations. Tests are left out.
pub struct Crate {
    pub modules: Vec<Module>,
}

pub struct Module {
    /// The file that holds the module's items.
    pub file: PathBuf,
    pub parent: Option<ModuleIdx>,
    pub children: BTreeMap<String, ModuleIdx>,
    /// Names that the module defines itself.
    pub items: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// Paths of two and more names in the code.
    pub paths: Vec<NamePath>,
    /// Names that stand alone in the code.
    pub words: BTreeSet<String>,
}

impl Crate {
    /// The crate whose root is `root_file`. What the bodies of the macros in `free_macros` name is left out.
    pub fn new(root_file: &Path, free_macros: &[&str]) -> Self {
        let mut modules = Self { modules: Vec::new() };
        let folder = root_file.parent().unwrap().to_owned();
        modules.add_file(root_file.to_owned(), folder, None, free_macros);
        modules
    }

    /// `folder` is where the files of the module's children lie.
    fn add_file(
        &mut self,
        file: PathBuf,
        folder: PathBuf,
        parent: Option<ModuleIdx>,
        free_macros: &[&str],
    ) -> ModuleIdx {
        let source = read(&file);
        let (kept, _) = without_tests(&tokens(&source));
        let place = Place {
            file,
            folder,
            parent,
            free_macros,
        };
        self.add_module(&kept, place)
    }

    fn add_module(&mut self, tokens: &[Token<'_>], place: Place<'_>) -> ModuleIdx {
        let idx = self.modules.len();
        self.modules.push(Module::empty(&place));
        let (mut at, mut depth) = (0, 0_usize);
        while at < tokens.len() {
            depth += usize::from(tokens[at].opens());
            depth = depth.saturating_sub(usize::from(tokens[at].closes()));
            at = match tokens[at].word() {
                Some("mod") if depth == 0 => self.add_child(idx, tokens, at, &place),
                Some("use") => self.modules[idx].add_import(tokens, at),
                Some("macro_rules") => self.modules[idx].add_macro(tokens, at, place.free_macros),
                Some(_) => self.modules[idx].add_words(tokens, at, depth == 0),
                None => at + 1,
            };
        }
        idx
    }

    /// Follows `mod name;` to its file and `mod name { ... }` into its braces.
    fn add_child(&mut self, parent: ModuleIdx, tokens: &[Token<'_>], at: usize, place: &Place<'_>) -> usize {
        let name = tokens[at + 1].word().expect("a module has a name");
        let folder = place.folder.join(name);
        let (child, end) = if tokens[at + 2].is('{') {
            let end = closed(tokens, at + 2);
            let place = Place {
                file: place.file.clone(),
                folder,
                parent: Some(parent),
                free_macros: place.free_macros,
            };
            (Some(self.add_module(&tokens[at + 3..end - 1], place)), end)
        } else {
            let (file, folder) = place.file_of(name, written_path(tokens, at));
            let child =
                (!is_tests(&file)).then(|| self.add_file(file, folder, Some(parent), place.free_macros));
            (child, at + 3)
        };
        let named = child.map(|child| (name.to_owned(), child));
        self.modules[parent].children.extend(named);
        end
    }
}

/// The file that `#[path = "..."]` names before the `mod` at `at`.
fn written_path<'a>(tokens: &[Token<'a>], at: usize) -> Option<&'a str> {
    let mut before = tokens[..at].iter().rev().skip_while(|token| token.is_word("pub"));
    let kinds = [before.next()?, before.next()?, before.next()?, before.next()?];
    let [
        end,
        Token {
            kind: Kind::Literal(text),
            ..
        },
        is,
        path,
    ] = kinds
    else {
        return None;
    };
    (end.is(']') && is.is('=') && path.is_word("path")).then(|| text.trim_matches('"'))
}

fn is_tests(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.ends_with("tests/mod.rs")
}

fn follows_a_dot_or_colons(before: &[Token<'_>]) -> bool {
    let last = |back: usize, mark: char| before.iter().rev().nth(back).is_some_and(|token| token.is(mark));
    last(0, '.') && !last(1, '.') || last(0, ':') && last(1, ':')
}

struct Place<'a> {
    file: PathBuf,
    folder: PathBuf,
    parent: Option<ModuleIdx>,
    free_macros: &'a [&'a str],
}

impl Place<'_> {
    /// The file of the child `name`, and the folder of that child's children.
    fn file_of(&self, name: &str, written_path: Option<&str>) -> (PathBuf, PathBuf) {
        if let Some(path) = written_path {
            let file = self.file.parent().unwrap().join(path);
            let folder = file.parent().unwrap().to_owned();
            return (file, folder);
        }
        let folder = self.folder.join(name);
        let files = [self.folder.join(format!("{name}.rs")), folder.join("mod.rs")];
        let file = files.into_iter().find(|file| file.is_file());
        let file = file.unwrap_or_else(|| panic!("{}: no file for mod {name}", self.file.display()));
        (file, folder)
    }
}

impl Module {
    fn empty(place: &Place<'_>) -> Self {
        Self {
            file: place.file.clone(),
            parent: place.parent,
            children: BTreeMap::new(),
            items: BTreeSet::new(),
            imports: Vec::new(),
            paths: Vec::new(),
            words: BTreeSet::new(),
        }
    }

    fn add_import(&mut self, tokens: &[Token<'_>], at: usize) -> usize {
        let (imports, end) = import(tokens, at);
        self.imports.extend(imports);
        end
    }

    /// Goes on behind a macro whose body does not count, or into any other.
    fn add_macro(&mut self, tokens: &[Token<'_>], at: usize, free_macros: &[&str]) -> usize {
        let Some(name) = tokens.get(at + 2).and_then(Token::word) else {
            return at + 1;
        };
        self.items.insert(name.to_owned());
        match free_macros.contains(&name) {
            true => closed(tokens, at + 3),
            false => at + 3,
        }
    }

    /// Takes the path or the name at `at`, and the item that it defines.
    fn add_words(&mut self, tokens: &[Token<'_>], at: usize, at_top: bool) -> usize {
        let (path, end) = path_at(tokens, at);
        match path {
            // A method, a field, or what follows `Type::<T>::`.
            _ if follows_a_dot_or_colons(&tokens[..at]) => {}
            path if path.len() > 1 => self.paths.push(path),
            _ if at_top => self.add_item(tokens, at),
            _ => {}
        }
        if end == at + 1 {
            self.words.extend(tokens[at].word().map(str::to_owned));
        }
        end
    }

    fn add_item(&mut self, tokens: &[Token<'_>], at: usize) {
        const KINDS: [&str; 8] = [
            "fn", "struct", "enum", "union", "trait", "type", "const", "static",
        ];
        if !tokens[at].word().is_some_and(|word| KINDS.contains(&word)) {
            return;
        }
        let named = tokens[at + 1..].iter().map_while(Token::word);
        let mut named = named.filter(|word| !["mut", "unsafe", "async", "extern"].contains(word));
        let name = named.next().filter(|&word| word != "fn");
        self.items.extend(name.map(str::to_owned));
    }
}
