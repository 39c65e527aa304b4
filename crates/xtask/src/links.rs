//! Relative links of the Markdown files: the file must be there, and the heading too. Nothing is fetched.
//!
//! A path in backticks counts as a link if it begins with a folder of the repository or of `crates` and
//! ends with the name of a file, for that is how these texts name sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Folders whose content is not ours or not text.
const SKIPPED: [&str; 5] = ["target", ".git", "corpus", "artifacts", "node_modules"];
/// What one Markdown file says.
#[derive(Default)]
struct Page {
    /// (line, target)
    links: Vec<(usize, String)>,
    /// (line, path in backticks)
    paths: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

/// Checks all Markdown files below `root`.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    list(root, &mut files)?;
    let mut pages = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        pages.insert(file, read(&text));
    }
    let (mut broken, mut count) = (Vec::new(), 0);
    for (file, page) in &pages {
        let shown = file.strip_prefix(root).unwrap_or(file).display();
        for (line, target) in &page.links {
            count += 1;
            if let Err(reason) = follow(root, file, target, &pages) {
                broken.push(format!("{shown}:{line}: `{target}`: {reason}"));
            }
        }
        for (line, path) in &page.paths {
            count += 1;
            let places = [root.join(path), root.join("crates").join(path)];
            let folder = |place: &PathBuf| {
                let below = path.split('/').count() - 1;
                place.ancestors().nth(below).is_some_and(Path::is_dir)
            };
            if places.iter().any(folder) && !places.iter().any(|place| place.exists()) {
                broken.push(format!("{shown}:{line}: `{path}`: no such file"));
            }
        }
    }
    println!("{count} relative links and paths in {} files", pages.len());
    if !broken.is_empty() {
        bail!("links that lead nowhere:\n{}", broken.join("\n"));
    }
    Ok(())
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() && !SKIPPED.iter().any(|name| entry.file_name() == *name) {
            list(&path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// Collects links, paths and the anchors that a forge gives to headings.
fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut heading: Option<String> = None;
    for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        let line = text[..range.start].matches('\n').count() + 1;
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. })
                if !is_address(&dest_url) =>
            {
                page.links.push((line, dest_url.into_string()));
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let slug = slug(&heading.take().unwrap_or_default());
                let again = (1..).map(|n| format!("{slug}-{n}"));
                let mut names = std::iter::once(slug.clone()).chain(again);
                page.anchors.extend(names.find(|name| !page.anchors.contains(name)));
            }
            Event::Text(text) => {
                if let Some(heading) = &mut heading {
                    *heading += &text;
                }
            }
            Event::Code(code) => {
                if let Some(heading) = &mut heading {
                    *heading += &code;
                }
                if is_path(&code) {
                    page.paths.push((line, code.into_string()));
                }
            }
            _ => {}
        }
    }
    page
}

/// Whether a target has a scheme, so that nothing here can tell whether it is there.
fn is_address(target: &str) -> bool {
    let scheme = target.split_once(':').map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)))
}

fn is_path(code: &str) -> bool {
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let (first, last) = (code.split('/').next(), code.rsplit('/').next().unwrap_or_default());
    plain
        && code.contains('/')
        && last.contains('.')
        && first.is_some_and(|first| !matches!(first, "" | "." | ".."))
}

/// The anchor of a heading: small letters, digits, `-` and `_`; a space becomes `-`.
fn slug(heading: &str) -> String {
    let lower = heading.trim().to_lowercase();
    let kept = lower.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn follow(root: &Path, from: &Path, target: &str, pages: &BTreeMap<PathBuf, Page>) -> Result<(), String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let file = match path {
        "" => from.to_path_buf(),
        _ => normal(&from.parent().unwrap_or(root).join(path)),
    };
    if !file.starts_with(root) {
        return Err("leads out of the repository".to_owned());
    }
    if !file.exists() {
        return Err("no such file".to_owned());
    }
    match (anchor, pages.get(&file)) {
        (Some(anchor), Some(page)) if !page.anchors.contains(anchor) => {
            Err(format!("no heading has the anchor #{anchor}"))
        }
        _ => Ok(()),
    }
}

/// A path without `.` and `..`, by its text alone.
fn normal(path: &Path) -> PathBuf {
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(found.pop()),
            part => found.push(part),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(files: &[(&str, &str)]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        check(directory.path()).err().map(|e| e.to_string())
    }

    #[test]
    fn sound_links_pass() {
        let a = "# One `two` three!\n\n[b](docs/b.md#the-end) [self](#one-two-three) <https://x.y/z> [m](mailto:a@b)\n\
                 \n[ref]\n\n[ref]: docs/b.md\n\n```\n[no](link.md)\n```\n`docs/b.md` `docs/*.md` `a/b.rs`\n";
        assert_eq!(
            errors(&[("a.md", a), ("docs/b.md", "## The end\n[up](../a.md)\n## The end\n[x](#the-end-1)")]),
            None
        );
    }

    #[test]
    fn each_broken_link_is_named_with_its_line() {
        let text = "# A\n[x](none.md)\n[y](#b)\n![z](../out.png)\n`docs/none.md`\n[w](b.md#none)\n";
        let found = errors(&[("docs/a.md", text), ("docs/b.md", "# B")]).unwrap();
        let lines: Vec<&str> = found.lines().skip(1).collect();
        assert_eq!(lines.len(), 5, "{found}");
        for (line, place) in
            ["docs/a.md:2", "docs/a.md:3", "docs/a.md:4", "docs/a.md:6", "docs/a.md:5"].iter().enumerate()
        {
            assert!(lines[line].starts_with(place), "{found}");
        }
    }
}
