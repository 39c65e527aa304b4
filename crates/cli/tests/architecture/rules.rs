//! Rules that the shape of the source shows: sizes of functions, width of comments, circles, absences.
//!
//! A list of exceptions names what broke a rule when the rule was written. It only ever gets
//! shorter.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::circles::circles;
use crate::source::Source;
use crate::{root, table};

/// Longest function, lines from `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Most parameters of a function, `self` among them.
const PARAMETERS_MAX: usize = 7;
/// Widest line that has only a comment, columns.
const COMMENT_COLUMNS_MAX: usize = 110;

/// Beginnings of paths where comments are wider.
const COMMENTS_NOT_YET: [&str; 3] = ["crates/ops/", "crates/kernels-cpu/", "crates/models/"];
/// Beginnings of paths where files use each other in circles.
const CIRCLES_NOT_YET: [&str; 3] = ["crates/kernels-cpu/", "crates/models/", "crates/tokenizer/src/jinja/"];
/// Beginnings of paths where messages name options of the command line.
const FLAGS_NOT_YET: [&str; 0] = [];
/// The crates whose messages are for people at a command line.
const COMMAND_LINES: [&str; 2] = ["cli", "xtask"];

/// The sources of each crate.
static SOURCES: LazyLock<BTreeMap<String, Vec<Source>>> = LazyLock::new(|| {
    let names = table().into_keys();
    let found: BTreeMap<String, Vec<Source>> =
        names.map(|name| (name.clone(), Source::read_all(&root(), &name))).collect();
    assert!(found.values().flatten().count() > 40);
    found
});

fn is_excepted(path: &str, exceptions: &[&str]) -> bool {
    exceptions.iter().any(|start| path.starts_with(start))
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn functions_are_short_and_take_few_parameters() {
    let (mut long, mut wide, mut count) = (Vec::new(), Vec::new(), 0);
    for source in SOURCES.values().flatten() {
        for function in source.functions() {
            count += 1;
            let shown = format!("{}:{} {}", source.path, function.line, function.name);
            if function.lines > FUNCTION_LINES_MAX {
                long.push(format!("{shown}: {} lines", function.lines));
            }
            if function.parameters > PARAMETERS_MAX {
                wide.push(format!("{shown}: {} parameters", function.parameters));
            }
        }
    }
    assert!(count > 1000, "only {count} functions were found");
    assert_none(&long, "functions of more than 70 lines");
    assert_none(&wide, "functions with more than 7 parameters, self included");
}

#[test]
fn comments_are_wrapped() {
    let mut found = Vec::new();
    for source in SOURCES.values().flatten().filter(|s| !is_excepted(&s.path, &COMMENTS_NOT_YET)) {
        for (line, columns) in source.wide_comments(COMMENT_COLUMNS_MAX) {
            found.push(format!("{}:{line} {columns} columns", source.path));
        }
    }
    assert_none(&found, "comments wider than 110 columns");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut found = Vec::new();
    for sources in SOURCES.values() {
        let all: Vec<&Source> = sources.iter().collect();
        let circles = circles(&all).into_iter();
        found.extend(circles.filter(|c| !is_excepted(&c[0], &CIRCLES_NOT_YET)).map(|c| c.join(" ")));
    }
    assert_none(&found, "files of a crate that use each other in a circle");
}

#[test]
fn threads_are_started_by_those_who_can_be_refused_one() {
    let mut found = Vec::new();
    for source in SOURCES.values().flatten().filter(|source| !source.path.contains("/tests")) {
        let code = source.code.split("mod tests").next().unwrap_or_default();
        let panics = ["thread::spawn(", "scope.spawn(", "s.spawn(|", "enable_steady_tick("];
        found.extend(
            panics.iter().filter(|call| code.contains(*call)).map(|call| format!("{} {call}", source.path)),
        );
    }
    assert_none(&found, "calls that panic where the system starts no more threads, instead of a `Builder`");
}

#[test]
fn messages_of_libraries_name_no_option_of_the_command_line() {
    let mut found = Vec::new();
    for source in
        SOURCES.iter().filter(|(name, _)| !COMMAND_LINES.contains(&name.as_str())).flat_map(|(_, s)| s)
    {
        let texts = source.strings.iter().filter(|(_, text)| names_an_option(text));
        if !is_excepted(&source.path, &FLAGS_NOT_YET) {
            found.extend(texts.map(|(line, text)| format!("{}:{line} {text}", source.path)));
        }
    }
    assert_none(&found, "options of the command line in messages of a library");
}

/// Whether a text has `--` and a word that begins with a small letter.
fn names_an_option(text: &str) -> bool {
    let option = |(at, _): (usize, &str)| {
        let begins = !text[..at].ends_with(|c: char| c == '-' || c.is_alphanumeric());
        begins && text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase())
    };
    text.match_indices("--").any(option)
}

#[test]
fn the_scanner_sees_what_the_rules_are_about() {
    let circle = |first: &str, second: &str| {
        let file = |name: &str, text: &str| Source::new(format!("crates/x/src/{name}.rs"), text.into());
        let all = [file("lib", "mod a;\nmod b;\npub use a::A;\n"), file("a", first), file("b", second)];
        !circles(&all.iter().collect::<Vec<_>>()).is_empty()
    };
    assert!(circle("use crate::b::B;\npub struct A(B);", "use super::A;\npub struct B(Option<A>);"));
    assert!(circle("pub struct A(crate::b::B);", "use crate::{A as Other};\npub struct B(Other);"));
    assert!(!circle("use crate::b::B;\npub struct A(B);", "#[cfg(test)]\nmod t {\n use crate::A;\n}"));
    assert!(!circle("use crate::b::B;\npub struct A(B);", "// use crate::A;\nconst B: &str = \"crate::A\";"));
    let text = "impl X {\n  fn f<T: Fn(u8, u8) -> u8>(&self, a: &[(u8, u8)], b: HashMap<u8, u8>,) -> char {\n    '\"'\n  }\n}";
    let functions = Source::new("crates/x/src/a.rs".into(), text.into()).functions();
    let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.lines, f.parameters)).collect();
    assert_eq!(found, [("f", 3, 3)]);
    assert!(names_an_option("use --memory") && !names_an_option("a -- b --- --8"));
}
