//! Which file of a crate uses which other, and the circles among them.
//!
//! A module and the modules below it are one thing seen from outside, so a file's use of the files below it is no
//! edge; their use of it is one. Names are followed through the imports and re-exports of the modules on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// A path in the code: its segments, the first of which may be `crate`, `super` or `self`.
type Path = Vec<String>;

/// The modules of one crate.
struct Modules<'a> {
    /// Path of a module below the crate, and its file.
    files: BTreeMap<Path, &'a Source>,
    /// For each module the names that it imports, and from where.
    imports: BTreeMap<Path, Vec<(String, Path)>>,
}

/// Files that use each other in a circle: each group sorted, by their paths.
pub(crate) fn circles(sources: &[&Source]) -> Vec<Vec<String>> {
    let modules = Modules::new(sources);
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, source) in &modules.files {
        for path in paths_in(&source.code) {
            let Some(target) = modules.resolve(module, &path, 0) else { continue };
            let below = target.len() >= module.len() && target[..module.len()] == module[..];
            if !below {
                edges.entry(&source.path).or_default().insert(&modules.files[&target].path);
            }
        }
    }
    groups(&edges)
}

impl<'a> Modules<'a> {
    fn new(sources: &[&'a Source]) -> Self {
        let module = |source: &Source| -> Path {
            let below = source.stem().split_once("/src/").map_or("", |(_, below)| below);
            below.split('/').filter(|part| !["lib", "main", ""].contains(part)).map(String::from).collect()
        };
        let files: BTreeMap<Path, &Source> = sources.iter().map(|source| (module(source), *source)).collect();
        let named = |source: &Source| {
            let paths = uses_in(&source.code).into_iter();
            paths.filter_map(|(path, name)| Some((name.or_else(|| path.last().cloned())?, path))).collect()
        };
        let imports = files.iter().map(|(module, source)| (module.clone(), named(source))).collect();
        Modules { files, imports }
    }

    /// The module whose file defines what `path`, seen from `module`, names; `None` outside the crate.
    fn resolve(&self, module: &Path, path: &[String], depth: usize) -> Option<Path> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => module.split_last()?.1.to_vec(),
            name => {
                rest = path;
                let child = [module.as_slice(), &[name.to_string()]].concat();
                self.files.contains_key(&child).then(|| module.clone())?
            }
        };
        while let Some((name, after)) = rest.split_first() {
            rest = after;
            if name == "super" {
                at.pop();
                continue;
            }
            let child = [at.as_slice(), std::slice::from_ref(name)].concat();
            if self.files.contains_key(&child) {
                at = child;
                continue;
            }
            let import = self.imports[&at].iter().find(|(imported, _)| imported == name);
            let Some((_, origin)) = import.filter(|_| depth < 8) else { break };
            let onward = [origin.as_slice(), rest].concat();
            return self.resolve(&at, &onward, depth + 1).or(Some(at));
        }
        Some(at)
    }
}

/// The paths that a file uses: those of its `use` items but for re-exports, and those in its code that begin in the
/// crate.
fn paths_in(code: &str) -> Vec<Path> {
    let mut found: Vec<Path> = Vec::new();
    let mut rest = code.to_string();
    for (start, end, reexport) in items(code) {
        if !reexport {
            found.extend(uses_in(&code[start..end]).into_iter().map(|(path, _)| path));
        }
        rest.replace_range(start..end, &" ".repeat(end - start));
    }
    for prefix in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(prefix) {
            let inside = rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if !inside {
                let end = rest[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                let path = &rest[at..end.map_or(rest.len(), |end| at + end)];
                found.push(path.split("::").filter(|part| !part.is_empty()).map(String::from).collect());
            }
        }
    }
    found
}

/// Start and end of each `use` item, and whether it is a re-export.
fn items(code: &str) -> Vec<(usize, usize, bool)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line..at].trim();
        if before.is_empty() || before.starts_with("pub") {
            let end = code[at..].find(';').map_or(code.len(), |end| at + end + 1);
            found.push((line, end, !before.is_empty()));
        }
    }
    found
}

/// What the `use` items of a file import: the whole path, and the other name that it gets, if any.
fn uses_in(code: &str) -> Vec<(Path, Option<String>)> {
    let mut found = Vec::new();
    for (start, end, _) in items(code) {
        let item = &code[start..end];
        let tree = item[item.find("use ").map_or(0, |at| at + 4)..].trim_end_matches(';');
        expand(tree, &[], &mut found);
    }
    found
}

/// Takes a tree such as `a::{b, c::d as e}` apart.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<(Path, Option<String>)>) {
    let tree = tree.trim();
    if let Some((head, list)) = tree.split_once('{') {
        let head = head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(String::from);
        let prefix: Path = prefix.iter().cloned().chain(head).collect();
        let list = list.rsplit_once('}').map_or(list, |(list, _)| list);
        let (mut depth, mut from) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&list[from..at], &prefix, found);
                    from = at + 1;
                }
                _ => {}
            }
        }
        expand(&list[from..], &prefix, found);
    } else if !tree.is_empty() {
        let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name)));
        let parts = path.split("::").map(|part| part.trim().to_string());
        let mut path: Path = prefix.iter().cloned().chain(parts).collect();
        if path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        found.push((path, name.map(|name| name.trim().to_string())));
    }
}

/// Groups of nodes that reach each other.
fn groups(edges: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<Vec<String>> {
    let reach = |start: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_string()]);
        while let Some(node) = next.pop() {
            for target in edges.get(node.as_str()).into_iter().flatten() {
                if seen.insert((*target).to_string()) {
                    next.push((*target).to_string());
                }
            }
        }
        seen
    };
    let all: BTreeMap<&str, BTreeSet<String>> = edges.keys().map(|node| (*node, reach(node))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (node, reached) in &all {
        let back = |other: &&String| all.get(other.as_str()).is_some_and(|of| of.contains(*node));
        let group: Vec<String> = reached.iter().filter(back).cloned().collect();
        if group.len() > 1 {
            found.insert(group);
        }
    }
    found.into_iter().collect()
}
