//! Rust source without a parser: enough of the language to tell code from comments and strings, and to find functions.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file of a crate.
pub(crate) struct Source {
    /// Path below the repository, with `/`.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// The text with comments, strings and tests blanked out; the same length and lines.
    pub(crate) code: String,
    /// Line and content of each string literal outside tests.
    pub(crate) strings: Vec<(usize, String)>,
}

/// A function in a [`Source`].
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace.
    pub(crate) lines: usize,
    /// Parameters, `self` among them.
    pub(crate) parameters: usize,
}

impl Source {
    /// Reads the files below `dir`, sorted; files that are compiled for tests only are left out.
    pub(crate) fn read_all(root: &Path, krate: &str) -> Vec<Source> {
        let mut paths = Vec::new();
        list(&root.join("crates").join(krate).join("src"), &mut paths);
        paths.sort();
        let mut found: Vec<Source> = Vec::new();
        for path in paths {
            let text = fs::read_to_string(&path).unwrap();
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source::new(relative, text));
        }
        let test_only: Vec<String> = found.iter().flat_map(test_modules).collect();
        found.retain(|source| !test_only.iter().any(|stem| source.stem().starts_with(stem)));
        found
    }

    pub(crate) fn new(path: String, text: String) -> Source {
        let (mut code, mut strings) = blanked(&text);
        for (start, end) in tests_in(&code) {
            let first = line_of(&code, start);
            let last = line_of(&code, end);
            strings.retain(|(line, _)| *line < first || *line > last);
            code.replace_range(start..end, &spaces(&code[start..end]));
        }
        Source { path, text, code, strings }
    }

    /// The path without its extension, and without `mod` at its end: that of the module.
    pub(crate) fn stem(&self) -> &str {
        let stem = self.path.strip_suffix(".rs").unwrap();
        stem.strip_suffix("/mod").unwrap_or(stem)
    }

    /// The functions that have a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let (mut found, mut line, mut counted) = (Vec::new(), 1, 0);
        for (at, _) in self.code.match_indices("fn ") {
            let starts_word = !self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let rest = &self.code[at + 3..];
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !starts_word || name.is_empty() {
                continue;
            }
            let (parameters, after) = parameters(&self.code, at + 3 + name.len());
            let end = body_end(&self.code, after).unwrap_or(after);
            line += self.code[counted..at].matches('\n').count();
            counted = at;
            let lines = self.code[at..end].matches('\n').count() + 1;
            found.push(Function { name, line, lines, parameters });
        }
        found
    }

    /// Lines that are too long for `limit` and have a comment on them: number and length.
    pub(crate) fn wide_comments(&self, limit: usize) -> Vec<(usize, usize)> {
        let lines = self.text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"));
        let lengths = lines.map(|(index, line)| (index + 1, line.chars().count()));
        lengths.filter(|(_, length)| *length > limit).collect()
    }
}

fn list(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Stems of the modules that a file declares for tests: `#[cfg(test)] mod tests;`.
fn test_modules(source: &Source) -> Vec<String> {
    let base = match source.stem().rsplit_once('/') {
        Some((dir, "lib" | "main")) => dir,
        _ => source.stem(),
    };
    let mut found = Vec::new();
    for (at, _) in source.text.match_indices("#[cfg(test)]") {
        let rest = source.text[at..].lines().skip(1).find(|line| !line.trim_start().starts_with("#["));
        let module = rest.and_then(|line| line.trim().strip_prefix("mod ")?.strip_suffix(';'));
        found.extend(module.map(|module| format!("{base}/{module}")));
    }
    found
}

/// Byte ranges of the items behind `#[cfg(test)]` that have a body.
fn tests_in(code: &str) -> Vec<(usize, usize)> {
    let starts = code.match_indices("#[cfg(test)]").map(|(at, _)| at);
    starts.filter_map(|at| Some((at, body_end(code, at + "#[cfg(test)]".len())?))).collect()
}

/// End of the block that begins behind `from`; `None` if a `;` at the same depth comes first.
fn body_end(code: &str, from: usize) -> Option<usize> {
    let (mut depth, mut round) = (0usize, 0usize);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round = round.saturating_sub(1),
            ';' if depth == 0 && round == 0 => return None,
            '{' => depth += 1,
            '}' if depth <= 1 => return Some(from + at + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Number of parameters of the function whose name ends at `from`, and the place behind their list.
fn parameters(code: &str, from: usize) -> (usize, usize) {
    let (mut depth, mut angle, mut count, mut filled) = (0usize, 0usize, 0, false);
    let mut before = ' ';
    for (at, c) in code[from..].char_indices() {
        let separates = depth == 1 && angle == 0;
        match c {
            ')' if separates => return (count + usize::from(filled), from + at + 1),
            ',' if separates => {
                count += usize::from(filled);
                filled = false;
            }
            // Brackets of the function's own generic parameters come before the list.
            '(' | '[' | '{' => (depth, filled) = (depth + 1, depth > 0),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '<' => (angle, filled) = (angle + 1, depth > 0),
            '>' if before != '-' && before != '=' => angle = angle.saturating_sub(1),
            c if depth > 0 && !c.is_whitespace() => filled = true,
            _ => {}
        }
        before = c;
    }
    (count, code.len())
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// As many spaces as `text` has bytes, with its line ends.
fn spaces(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The text with comments, strings and characters blanked out, and the strings with their lines.
fn blanked(text: &str) -> (String, Vec<(usize, String)>) {
    let (mut code, mut strings, mut at, mut line) = (String::with_capacity(text.len()), Vec::new(), 0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let plain = rest.find(['/', '"', '\'', 'b', 'c', 'r']).unwrap_or(rest.len());
        if plain > 0 {
            let bytes = |c: char| if c.is_ascii() { (c, 1) } else { (' ', c.len_utf8()) };
            let shown = rest[..plain].chars().map(bytes);
            code.extend(shown.flat_map(|(c, times)| std::iter::repeat_n(c, times)));
            line += rest[..plain].matches('\n').count();
            at += plain;
            continue;
        }
        let word_before = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = string_length(rest).filter(|_| !word_before) {
            strings.push((line, rest[..length].to_string()));
            length
        } else if let Some(length) = character_length(rest) {
            length
        } else {
            code.push_str(&rest[..1]); // One of those that were looked for.
            at += 1;
            continue;
        };
        code.push_str(&spaces(&rest[..length]));
        line += rest[..length].matches('\n').count();
        at += length;
    }
    (code, strings)
}

/// Length of the string literal at the start of `rest`, raw and byte strings among them.
fn string_length(rest: &str) -> Option<usize> {
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let raw = rest[..prefix].contains('r');
    let hashes = rest[prefix..].bytes().take_while(|byte| *byte == b'#').count();
    let start = prefix + hashes;
    if prefix > 2 || !rest[start..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    if raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return rest[start + 1..].find(&end).map(|at| start + 1 + at + end.len());
    }
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(start + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Length of the character literal at the start of `rest`; a lifetime is none.
fn character_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let length = match inner.strip_prefix('\\') {
        Some(escaped) => 1 + escaped.char_indices().nth(1)?.0 + escaped[1..].find('\'')?,
        None => inner.chars().next()?.len_utf8(),
    };
    inner[length..].starts_with('\'').then_some(length + 2)
}
