//! Which crate may use which, and where unsafe code may live.

use std::path::Path;

use crate::house::{House, read};
use crate::tokens::tokens;

/// A crate and the crates that it may depend on.
pub type Arrows<'a> = (&'a str, &'a [&'a str]);

/// Dependencies that are not drawn, crates that are missing, and crates that are gone.
pub fn undrawn_arrows(house: &House, drawn: &[Arrows<'_>]) -> Vec<String> {
    let crates = house.crates();
    let is_drawn = |name: &str| drawn.iter().any(|(other, _)| *other == name);
    let missing = crates.iter().filter(|name| !is_drawn(name));
    let mut violations: Vec<_> = missing
        .map(|name| format!("crates/{name} is not in the table of arrows"))
        .collect();
    for (name, allowed) in drawn {
        if !crates.iter().any(|other| other == name) {
            violations.push(format!("the table of arrows has {name}, which is not in crates/"));
            continue;
        }
        let manifest = house.root.join("crates").join(name).join("Cargo.toml");
        let used = dependencies(&read(&manifest)).into_iter();
        let undrawn = used.filter(|other| !allowed.contains(&other.as_str()));
        violations.extend(undrawn.map(|other| format!("{name} must not depend on {other}")));
    }
    violations
}

/// Dependencies of the binary that are not drawn, those of its tests apart.
pub fn undrawn_arrows_of_the_binary(house: &House, allowed: &[&str]) -> Vec<String> {
    undrawn_arrows_of(house, ("the binary", "Cargo.toml"), allowed)
}

/// The same of what is not in crates/: its name, and its manifest from the root.
pub fn undrawn_arrows_of(house: &House, (name, manifest): (&str, &str), allowed: &[&str]) -> Vec<String> {
    let mut used = dependencies(&read(&house.root.join(manifest)));
    used.retain(|other| !allowed.contains(&other.as_str()));
    used.iter()
        .map(|other| format!("{name} must not depend on {other}"))
        .collect()
}

/// Manifests that name `package` without being `owner`, all from the root.
pub fn strangers_with(house: &House, package: &str, owner: &str) -> Vec<String> {
    let crates = house.crates().into_iter();
    let manifests = crates.map(|name| format!("crates/{name}/Cargo.toml"));
    let manifests = manifests.chain(["Cargo.toml".to_owned()]);
    let names = |line: &str| line.trim().split(['.', ' ', '=']).next() == Some(package);
    manifests
        .filter(|manifest| read(&house.root.join(manifest)).lines().any(names))
        .map(|manifest| format!("{manifest} names {package}, which is {owner}'s alone"))
        .collect()
}

/// The crates of this project that a manifest names for itself, not for its tests or for the workspace.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut dependencies = Vec::new();
    let mut counts = false;
    for line in manifest.lines().map(str::trim) {
        let section = line.strip_prefix('[').map(|line| line.trim_end_matches(']'));
        counts = section.map_or(counts, |name| {
            name.contains("dependencies") && !["dev-", "workspace"].iter().any(|word| name.contains(word))
        });
        let entry = section
            .and_then(|name| name.rsplit_once("dependencies."))
            .map_or(line, |(_, entry)| entry);
        let package = entry.split(['.', ' ', '=']).next().unwrap_or_default();
        let own = package.strip_prefix("dualgrain").filter(|_| counts);
        dependencies.extend(own.map(|rest| match rest.strip_prefix('-') {
            Some(name) => name.to_owned(),
            None => package.to_owned(),
        }));
    }
    dependencies
}

/// Unsafe code where it may not be. `free` are the crates that may have it, `one_file` the crate that may in one file.
pub fn misplaced_unsafe(house: &House, free: &[&str], one_file: &str) -> Vec<String> {
    let mut violations = Vec::new();
    let is_free = |name: &str| {
        free.iter()
            .any(|free| name.starts_with(&format!("crates/{free}/")))
    };
    let exception = format!("crates/{one_file}/");
    let mut files_of_the_exception = Vec::new();
    for file in house.rust_files_apart_from_tests() {
        let name = house.name(&file);
        match unsafe_line(&file) {
            Some(_) if name.starts_with(&exception) => files_of_the_exception.push(name),
            Some(line) if !is_free(&name) => violations.push(format!("{name}:{line}: unsafe code")),
            _ => {}
        }
    }
    if files_of_the_exception.len() > 1 {
        violations.push(format!(
            "{one_file} has more than one file with unsafe code: {}",
            files_of_the_exception.join(", ")
        ));
    }
    violations
}

/// The first line with the keyword.
fn unsafe_line(file: &Path) -> Option<usize> {
    let source = read(file);
    let unsafe_token = tokens(&source).into_iter().find(|token| token.is_word("unsafe"));
    unsafe_token.map(|token| token.line)
}

/// Crates, the binary and `others`, roots of more, whose root does not keep unsafe code out: `forbid`, or `deny` in the one with an exception.
pub fn unguarded_crates(house: &House, free: &[&str], one_file: &str, others: &[&str]) -> Vec<String> {
    let crates = house
        .crates()
        .into_iter()
        .filter(|name| !free.contains(&name.as_str()));
    let libraries = crates.map(|name| (format!("crates/{name}/src/lib.rs"), name));
    let others = others.iter().chain(&["src/main.rs"]);
    let others = others.map(|root| ((*root).to_owned(), String::new()));
    let unguarded = libraries.chain(others).filter_map(|(root, name)| {
        let level = if name == one_file { "deny" } else { "forbid" };
        let guard = format!("#![{level}(unsafe_code)]");
        let guarded = read(&house.root.join(&root)).contains(&guard);
        (!guarded).then(|| format!("{root} lacks {guard}"))
    });
    unguarded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::invented;

    #[test]
    fn a_dependency_that_is_not_drawn_is_found_and_so_is_a_crate() {
        let manifest = "[package]\nname = \"dualgrain-b\"\n[dependencies]\ndualgrain-a.workspace = true\nserde = \"1\"\n\
                        [target.'cfg(unix)'.dependencies]\ndualgrain-c = { path = \"../c\" }\n[dependencies.dualgrain-e]\n\
                        [build-dependencies]\ndualgrain = \"1\"\n[dev-dependencies]\ndualgrain-d = { path = \"../d\" }\n";
        let (_folder, house) = invented(&[("crates/b/Cargo.toml", manifest), ("crates/f/Cargo.toml", "")]);
        assert_eq!(
            undrawn_arrows(&house, &[("b", &["a"]), ("gone", &[])]),
            [
                "crates/f is not in the table of arrows",
                "b must not depend on c",
                "b must not depend on e",
                "b must not depend on dualgrain",
                "the table of arrows has gone, which is not in crates/"
            ]
        );
    }

    #[test]
    fn the_binary_may_take_the_crate_of_tests_for_its_own_tests_alone() {
        let line = "\ndualgrain-testing.workspace = true\n";
        let (_folder, house) = invented(&[(
            "Cargo.toml",
            &format!("[workspace.dependencies]{line}[dev-dependencies]{line}"),
        )]);
        assert!(undrawn_arrows_of_the_binary(&house, &["cpu"]).is_empty());
        let (_folder, house) = invented(&[("Cargo.toml", &format!("[dependencies]{line}"))]);
        assert_eq!(
            undrawn_arrows_of_the_binary(&house, &["cpu"]),
            ["the binary must not depend on testing"]
        );
    }

    #[test]
    fn an_adapter_has_arrows_and_packages_of_its_own() {
        let manifest =
            "[dependencies]\npyo3 = \"1\"\ndualgrain.workspace = true\ndualgrain-cpu.workspace = true\n";
        let (_folder, house) = invented(&[
            ("adapters/x/Cargo.toml", manifest),
            ("crates/y/Cargo.toml", "[dependencies]\npyo3.workspace = true\n"),
            ("Cargo.toml", "[dependencies]\npyo3-like = \"1\"\n"),
        ]);
        assert_eq!(
            undrawn_arrows_of(&house, ("x", "adapters/x/Cargo.toml"), &["dualgrain"]),
            ["x must not depend on cpu"]
        );
        assert_eq!(
            strangers_with(&house, "pyo3", "x"),
            ["crates/y/Cargo.toml names pyo3, which is x's alone"]
        );
    }

    #[test]
    fn misplaced_unsafe_code_is_found_and_the_word_alone_is_none() {
        let (code, word) = (
            "\nfn a() { unsafe { b() } }",
            "// unsafe\nconst A: &str = \"unsafe\";",
        );
        let (_folder, house) = invented(&[
            ("crates/cpu/src/lib.rs", code),
            ("crates/one/src/a.rs", code),
            ("crates/one/src/b.rs", word),
            ("crates/other/src/lib.rs", word),
            ("crates/other/tests/a.rs", code),
            ("examples/c.rs", code),
        ]);
        let expected = ["examples/c.rs:2: unsafe code"];
        assert_eq!(misplaced_unsafe(&house, &["cpu"], "one"), expected);
        let (_folder, house) = invented(&[("crates/one/src/a.rs", code), ("crates/one/src/b.rs", code)]);
        assert_eq!(
            misplaced_unsafe(&house, &["cpu"], "one"),
            ["one has more than one file with unsafe code: crates/one/src/a.rs, crates/one/src/b.rs"]
        );
    }

    #[test]
    fn a_crate_without_its_guard_is_found() {
        let (forbid, deny) = ("#![forbid(unsafe_code)]", "#![deny(unsafe_code)]");
        let (_folder, house) = invented(&[
            ("src/main.rs", forbid),
            ("crates/cpu/src/lib.rs", ""),
            ("crates/one/src/lib.rs", deny),
            ("crates/other/src/lib.rs", deny),
            ("adapters/x/src/lib.rs", ""),
        ]);
        assert_eq!(
            unguarded_crates(&house, &["cpu"], "one", &["adapters/x/src/lib.rs"]),
            [
                "crates/other/src/lib.rs lacks #![forbid(unsafe_code)]",
                "adapters/x/src/lib.rs lacks #![forbid(unsafe_code)]"
            ]
        );
    }
}
