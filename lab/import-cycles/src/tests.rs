//! Crates with and without a cycle made on purpose.

use std::path::Path;

use crate::modules::Crate;
use crate::{graph, read};

/// The cycles of a crate that consists of these files.
fn cycles(files: &[(&str, &str)]) -> Vec<String> {
    graph::cycles(&crate_of(files))
}

fn crate_of(files: &[(&str, &str)]) -> Crate {
    let sources = |path: &Path| {
        let file = files.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| (*text).to_owned())
    };
    read::read(Path::new("src/lib.rs"), &sources).expect("the crate is read")
}

#[test]
fn modules_in_one_direction_are_no_cycle() {
    let found = cycles(&[
        (
            "src/lib.rs",
            "mod a; mod b; pub use a::A; pub fn f(_: &A) { b::go(); }",
        ),
        (
            "src/a.rs",
            "use std::fmt; use crate::b::B; pub struct A(B);",
        ),
        (
            "src/b.rs",
            "pub struct B; pub fn go() -> B { let a = 1; assert_eq!(a, 1); B }",
        ),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn mutual_imports_are_a_cycle_with_its_lines() {
    let found = cycles(&[
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a.rs", "use crate::b::B;\npub struct A(B);"),
        (
            "src/b.rs",
            "\npub struct B;\nfn f() { let _: Option<crate::a::A> = None; }",
        ),
    ]);
    let text = "cycle of 2 modules: a, b\n  a -> b  src/a.rs:1 crate::b::B and 1 more\n  b -> a  src/b.rs:3 crate::a::A\n";
    assert_eq!(found, [text]);
}

#[test]
fn imports_through_super_and_a_renamed_module_are_one_cycle() {
    let found = cycles(&[
        ("src/lib.rs", "mod top;"),
        ("src/top/mod.rs", "mod a; mod b; mod c;"),
        (
            "src/top/a.rs",
            "use super::b as other; pub fn f() { other::f(); }",
        ),
        ("src/top/b.rs", "pub fn f() { vec![super::c::f()]; }"),
        ("src/top/c.rs", "pub fn f() { super::a::f(); }"),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("cycle of 3 modules: top::a, top::b, top::c\n"),
        "{}",
        found[0]
    );
}

#[test]
fn cycle_through_re_exports_names_the_defining_modules() {
    let found = cycles(&[
        (
            "src/lib.rs",
            "mod a; mod b; pub mod face { pub use crate::b::*; } pub use a::inner::A;",
        ),
        ("src/a.rs", "pub mod inner;"),
        (
            "src/a/inner.rs",
            "pub struct A; fn f() { crate::face::B::new(); }",
        ),
        (
            "src/b.rs",
            "pub struct B; impl B { pub fn new() {} } impl From<crate::A> for B {}",
        ),
    ]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("cycle of 2 modules: a::inner, b\n"),
        "{}",
        found[0]
    );
}

#[test]
fn parent_re_exporting_a_child_is_no_cycle_but_calling_is() {
    let child = ("src/a/b.rs", "use super::A; pub fn f(_: A) {}");
    let parent = "mod b; pub use b::f; pub struct A;";
    assert_eq!(
        cycles(&[("src/lib.rs", "mod a;"), ("src/a.rs", parent), child]),
        [""; 0]
    );

    let calls = format!("{parent} pub fn g() {{ f(A); }}");
    let found = cycles(&[("src/lib.rs", "mod a;"), ("src/a.rs", &calls), child]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("cycle of 2 modules: a, a::b\n"),
        "{}",
        found[0]
    );
}

#[test]
fn attribute_that_names_a_function_is_an_import() {
    let found = cycles(&[
        ("src/lib.rs", "mod a; mod b;"),
        (
            "src/a.rs",
            "#[derive(D)] pub struct A { #[serde(default = \"crate::b::value\")] b: u8 }",
        ),
        ("src/b.rs", "use crate::a::A; pub fn value() -> u8 { 0 }"),
    ]);
    assert_eq!(found.len(), 1);
}

#[test]
fn glob_import_counts_for_the_names_that_are_used() {
    let files = |b: &'static str| {
        cycles(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "use crate::b::B; pub struct A;"),
            ("src/b.rs", b),
        ])
    };
    assert_eq!(files("use crate::a::*; pub struct B;"), [""; 0]);
    assert_eq!(files("use crate::a::*; pub struct B(A);").len(), 1);
}

#[test]
fn tests_and_inline_modules_make_no_cycle() {
    let found = cycles(&[
        ("src/lib.rs", "mod a; mod b;"),
        (
            "src/a.rs",
            "pub fn f() { inner::g(); } mod inner { use super::f; pub fn g() { f(); } }",
        ),
        (
            "src/b.rs",
            "use crate::a::f; #[cfg(test)] mod tests; #[cfg(test)] use tests::T; pub fn b() { f(); }",
        ),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn module_without_a_file_is_an_error() {
    let sources = |path: &Path| (path == Path::new("src/lib.rs")).then(|| "mod gone;".to_owned());
    let error = read::read(Path::new("src/lib.rs"), &sources)
        .err()
        .expect("an error");
    assert_eq!(error.to_string(), "no file holds the module src/gone");
}

#[test]
fn types_of_one_name_are_found_outside_of_bodies_and_tests() {
    let found = crate_of(&[
        (
            "src/lib.rs",
            "mod a; mod b;\npub struct A;\npub fn f() { struct B; }",
        ),
        ("src/a.rs", "pub enum A { B }\npub struct Own;"),
        (
            "src/b.rs",
            "pub trait B { type A; } #[cfg(test)] mod tests { struct Own; }",
        ),
    ]);
    assert_eq!(
        found.shared_type_names(),
        ["types named A: src/a.rs:1, src/lib.rs:2"]
    );
}
