//! Which file of a crate takes which names from which other file, and where that goes round in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::house::House;
use crate::modules::{Crate, Module, ModuleIdx};
use crate::paths::{Import, Path};

/// More re-exports than these lie between no name and its definition.
const MAX_STEPS: usize = 16;

/// From a file to another: the names that it takes.
type Arrows = BTreeMap<(PathBuf, PathBuf), BTreeSet<String>>;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Definition {
    Module(ModuleIdx),
    /// Something that the module defines.
    Item(ModuleIdx),
}

/// The circles of all crates of the house, each with the names that tie it.
pub fn violations(house: &House, free_macros: &[(&str, &str)]) -> Vec<String> {
    let free: Vec<&str> = free_macros.iter().map(|(name, _)| *name).collect();
    let roots = house.crate_roots().into_iter();
    roots
        .flat_map(|root| {
            let arrows = arrows(&Crate::new(&root, &free));
            let circles = circles(&arrows).into_iter();
            let messages: Vec<_> = circles.map(|circle| message(house, &arrows, &circle)).collect();
            messages
        })
        .collect()
}

fn message(house: &House, arrows: &Arrows, circle: &BTreeSet<PathBuf>) -> String {
    let names: Vec<_> = circle.iter().map(|file| house.name(file)).collect();
    let mut message = format!("{} files in a circle: {}", circle.len(), names.join(", "));
    for ((from, to), names) in arrows {
        if circle.contains(from) && circle.contains(to) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (from, to) = (house.name(from), house.name(to));
            message += &format!("\n    {from} takes from {to}: {}", names.join(", "));
        }
    }
    message
}

/// Sets of files that can all be reached from each other.
fn circles(arrows: &Arrows) -> Vec<BTreeSet<PathBuf>> {
    let files: BTreeSet<&PathBuf> = arrows.keys().map(|(from, _)| from).collect();
    let reached: BTreeMap<_, _> = files.iter().map(|&file| (file, reached(arrows, file))).collect();
    let circle = |file: &PathBuf| -> BTreeSet<PathBuf> {
        let there = reached[file].iter();
        there
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(file)))
            .cloned()
            .collect()
    };
    let mut circles: Vec<_> = files.iter().map(|&file| circle(file)).collect();
    circles.retain(|circle| !circle.is_empty());
    circles.sort();
    circles.dedup();
    circles
}

/// The files that `start` takes from, and those that they take from, and so on.
fn reached(arrows: &Arrows, start: &std::path::Path) -> BTreeSet<PathBuf> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![start.to_owned()]);
    while let Some(file) = open.pop() {
        let next = arrows.keys().filter(|(from, _)| *from == file).map(|(_, to)| to);
        open.extend(next.filter(|to| reached.insert((*to).clone())).cloned());
    }
    reached
}

/// What each file takes from each other one.
fn arrows(modules: &Crate) -> Arrows {
    let mut arrows = Arrows::new();
    for (idx, module) in modules.modules.iter().enumerate() {
        for (path, taken) in taken(modules, idx) {
            let file = &modules.modules[taken].file;
            if *file != module.file {
                let pair = (module.file.clone(), file.clone());
                arrows.entry(pair).or_default().insert(path);
            }
        }
    }
    arrows
}

/// The names that a module takes, and the modules that define them. A name that is only passed on is not taken, and what is
/// taken out of another module is named where it is used.
fn taken(modules: &Crate, idx: ModuleIdx) -> Vec<(String, ModuleIdx)> {
    let module = &modules.modules[idx];
    let used = module.imports.iter().filter(|import| module.uses(import));
    let paths = used.map(|import| &import.path).chain(&module.paths);
    let of_path = |path: &Path| {
        let (definition, num_names) = modules.resolve(idx, path, 0)?;
        Some((path[num_names - 1].clone(), definition))
    };
    let words = module.words.iter().filter(|word| !module.knows(word));
    let of_word = |word: &String| Some((word.clone(), modules.find_in_globs(idx, word, 0)?));
    let taken = paths.filter_map(of_path).chain(words.filter_map(of_word));
    let items = taken.filter_map(|(name, definition)| match definition {
        Definition::Item(module) => Some((name, module)),
        Definition::Module(_) => None,
    });
    items.collect()
}

impl Module {
    /// Whether the module's own code uses what it imports: the compiler says so of all but what is passed on.
    fn uses(&self, import: &Import) -> bool {
        let name = import.name.as_ref();
        !import.is_public || name.is_some_and(|name| self.words.contains(name))
    }

    /// Whether a name is the module's own or brought by name.
    fn knows(&self, name: &str) -> bool {
        let imported = || {
            self.imports
                .iter()
                .any(|import| import.name.as_deref() == Some(name))
        };
        self.items.contains(name) || self.children.contains_key(name) || imported()
    }
}

impl Crate {
    /// Follows a path from the module `from` to a definition, through so many of its names; none when it leads out of the
    /// crate.
    fn resolve(&self, from: ModuleIdx, path: &[String], steps: usize) -> Option<(Definition, usize)> {
        let mut definition = Definition::Module(from);
        for (at, name) in path.iter().enumerate() {
            let Definition::Module(module) = definition else {
                return Some((definition, at));
            };
            let found = match name.as_str() {
                "crate" => Some(Definition::Module(0)),
                "self" => Some(definition),
                "super" => self.modules[module].parent.map(Definition::Module),
                name => self.find(module, name, at + 1 == path.len(), steps),
            };
            // What another module does not show is made by a macro there.
            let made_there = (at > 0).then_some(Definition::Item(module));
            definition = found.or(made_there)?;
        }
        Some((definition, path.len()))
    }

    /// What a name in `module` stands for. A function may have the name of a module: the `last` name of a path is then the
    /// function, another one the module.
    fn find(&self, module: ModuleIdx, name: &str, last: bool, steps: usize) -> Option<Definition> {
        let here = &self.modules[module];
        let child = here.children.get(name).copied().map(Definition::Module);
        let own = here.items.contains(name).then_some(Definition::Item(module));
        let imported = || {
            let named = here
                .imports
                .iter()
                .filter(|import| import.name.as_deref() == Some(name));
            let mut found = named.filter_map(|import| self.follow(module, &import.path, steps));
            found.next()
        };
        if last {
            own.or_else(imported).or(child)
        } else {
            child.or_else(imported).or(own)
        }
        .or_else(|| self.find_in_globs(module, name, steps))
    }

    fn find_in_globs(&self, module: ModuleIdx, name: &str, steps: usize) -> Option<Definition> {
        let globs = self.modules[module]
            .imports
            .iter()
            .filter(|import| import.name.is_none());
        let mut found = globs.filter_map(|glob| match self.follow(module, &glob.path, steps)? {
            Definition::Module(inside) if inside != module => self.find(inside, name, true, steps + 1),
            _ => None,
        });
        found.next()
    }

    fn follow(&self, module: ModuleIdx, path: &[String], steps: usize) -> Option<Definition> {
        let followed = (steps < MAX_STEPS).then(|| self.resolve(module, path, steps + 1));
        followed.flatten().map(|(definition, _)| definition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::invented;

    /// The circles of a crate with these files under `src`.
    fn circles_of(files: &[(&str, &str)], free_macros: &[(&str, &str)]) -> Vec<String> {
        let named: Vec<_> = files
            .iter()
            .map(|(name, text)| (format!("src/{name}"), *text))
            .collect();
        let files: Vec<_> = named.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let (_folder, house) = invented(&files);
        violations(&house, free_macros)
    }

    #[track_caller]
    fn open(files: &[(&str, &str)]) {
        assert_eq!(circles_of(files, &[]), [""; 0]);
    }

    #[track_caller]
    fn closed(files: &[(&str, &str)], arrows: &[&str]) {
        let circles = circles_of(files, &[]);
        assert_eq!(circles.len(), 1, "{circles:?}");
        let lines: Vec<&str> = circles[0].lines().skip(1).map(str::trim).collect();
        assert_eq!(lines, arrows);
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a;\nmod b;\nmod c;\npub use a::A;");

    #[test]
    fn a_circle_of_three_files_is_named_with_what_ties_it() {
        let files = [
            ROOT,
            ("a.rs", "use crate::b::{B, b};\npub struct A;"),
            ("b.rs", "pub struct B;\npub fn b() { crate::c::C::new(); }"),
            ("c/mod.rs", "use super::A;\npub enum C {}"),
        ];
        let circle = circles_of(&files, &[]);
        assert_eq!(
            circle,
            ["3 files in a circle: src/a.rs, src/b.rs, src/c/mod.rs\n    \
              src/a.rs takes from src/b.rs: B, b\n    \
              src/b.rs takes from src/c/mod.rs: C\n    \
              src/c/mod.rs takes from src/a.rs: A"]
        );
    }

    #[test]
    fn arrows_in_one_direction_are_no_circle() {
        open(&[
            ROOT,
            ("a.rs", "use crate::{b::B, c};\npub struct A(c::C);"),
            ("b.rs", "use crate::c::C;\npub struct B;"),
            (
                "c.rs",
                "// use crate::a::A;\npub struct C; const TEXT: &str = \"crate::a::A\";",
            ),
        ]);
    }

    #[test]
    fn tests_may_import_what_they_test() {
        open(&[
            ROOT,
            ("a.rs", "use crate::b::B;\npub struct A;"),
            (
                "b.rs",
                "pub struct B;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod more { use crate::a::A; }",
            ),
            ("b/tests.rs", "use crate::a::A;"),
            ("c.rs", ""),
        ]);
    }

    #[test]
    fn a_table_of_contents_stands_for_nothing() {
        let contents = "mod x;\nmod y;\npub use x::X;\npub use y::*;";
        let (user, x) = ("use super::Y;\npub struct X;", "pub struct Y;");
        let a = ("a.rs", "use crate::b::{X, Y};\npub struct A;");
        open(&[
            ROOT,
            a,
            ("b/mod.rs", contents),
            ("b/x.rs", user),
            ("b/y.rs", x),
            ("c.rs", ""),
        ]);
        // Nor does a root that defines something itself as long as its own code does not use what it passes on.
        let more = contents.to_owned() + "\npub const LIMIT: usize = 1;";
        let limited = "use super::LIMIT;\npub struct Y;";
        open(&[
            ROOT,
            a,
            ("b/mod.rs", &more),
            ("b/x.rs", user),
            ("b/y.rs", limited),
            ("c.rs", ""),
        ]);
        let using = more + "\nfn f() -> Y { Y }";
        closed(
            &[
                ROOT,
                a,
                ("b/mod.rs", &using),
                ("b/x.rs", user),
                ("b/y.rs", limited),
                ("c.rs", ""),
            ],
            &[
                "src/b/mod.rs takes from src/b/y.rs: Y",
                "src/b/y.rs takes from src/b/mod.rs: LIMIT",
            ],
        );
    }

    #[test]
    fn names_are_followed_through_globs_and_modules_and_other_names() {
        let arrows = [
            "src/b.rs takes from src/c.rs: C",
            "src/c.rs takes from src/b.rs: B",
        ];
        for (b, c) in [
            (
                "use crate::c::*;\npub struct B(C);",
                "use crate::b as d;\npub struct C(d::B);",
            ),
            ("use super::c;\npub struct B(c::C);", "pub struct C(super::b::B);"),
            (
                "pub struct B;\nfn f() { use crate::c::C; }",
                "pub struct C<T: Into<crate::b::B>>(T);",
            ),
            (
                "pub mod inner { pub use crate::c::C; }\nuse inner::C;\npub struct B(C);",
                "use crate::b::B;\npub struct C;",
            ),
        ] {
            closed(
                &[ROOT, ("a.rs", "pub struct A;"), ("b.rs", b), ("c.rs", c)],
                &arrows,
            );
        }
    }

    #[test]
    fn the_root_and_what_a_macro_makes_count_too() {
        closed(
            &[
                ("main.rs", "mod a;\nfn main() { a::a() }\nstatic STOP: u8 = 0;"),
                ("a.rs", "use crate::STOP;\npub fn a() {}"),
            ],
            &[
                "src/a.rs takes from src/main.rs: STOP",
                "src/main.rs takes from src/a.rs: a",
            ],
        );
        closed(
            &[
                ("lib.rs", "mod a;\nmod b;"),
                ("a.rs", "make! { fn a() {} }\nuse crate::b::B;"),
                ("b.rs", "pub struct B;\nfn b() { super::a::a() }"),
            ],
            &[
                "src/a.rs takes from src/b.rs: B",
                "src/b.rs takes from src/a.rs: a",
            ],
        );
    }

    #[test]
    fn a_file_may_be_named_by_its_path() {
        closed(
            &[
                ("lib.rs", "#[path = \"x/a.rs\"]\nmod a;\nmod b { pub mod c; }"),
                ("x/a.rs", "pub struct A(crate::b::c::C);"),
                ("b/c.rs", "pub struct C(crate::a::A);"),
            ],
            &[
                "src/b/c.rs takes from src/x/a.rs: A",
                "src/x/a.rs takes from src/b/c.rs: C",
            ],
        );
    }

    #[test]
    fn a_function_and_a_module_of_one_name_are_told_apart() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\npub use a::a;"),
            ("a/mod.rs", "mod x;\nmod y;\npub use x::a;"),
            ("a/x.rs", "use super::y::y;\npub fn a() {}"),
            ("a/y.rs", "pub fn y() {}"),
            ("b.rs", "use crate::a;\nfn b() { a::y::y(); a() }"),
        ];
        open(&files);
    }

    #[test]
    fn the_body_of_a_free_macro_is_read_where_it_is_used() {
        let a = "macro_rules! m { () => { $crate::b::B } }\npub(crate) use m;\npub struct A;";
        let files = [
            ROOT,
            ("a.rs", a),
            ("b.rs", "use crate::a::m;\npub struct B;"),
            ("c.rs", ""),
        ];
        closed(
            &files,
            &[
                "src/a.rs takes from src/b.rs: B",
                "src/b.rs takes from src/a.rs: m",
            ],
        );
        assert_eq!(circles_of(&files, &[("m", "why")]), [""; 0]);
    }
}
