//! Paths that a hub or another program wrote down: nothing of them is believed.

/// Longest path in a repository.
const PATH_BYTES_MAX: usize = 1024;
/// Longest name that common file systems take.
const NAME_BYTES_MAX: usize = 255;

/// Whether a relative path stays below its directory on every system: parts between `/`, none of
/// them empty, `.` or `..`, no backslash, no drive, no control character, none that Windows changes.
pub(crate) fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= PATH_BYTES_MAX
        && !path.contains(['\\', ':'])
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| {
            !part.is_empty()
                && part.len() <= NAME_BYTES_MAX
                && part != "."
                && part != ".."
                && !part.ends_with([' ', '.'])
        })
}

/// Whether a text is a hash in hexadecimal digits, of 40 to 128 of them: safe as a file name.
pub(crate) fn is_hash(text: &str) -> bool {
    (40..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase())
}

/// A path in an address: everything but the usual characters and `/` as `%XX`.
pub(crate) fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                text.push(char::from(byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_directory_are_safe() {
        for path in ["a", "a/b.gguf", ".gitattributes", "a b/c", "ü"] {
            assert!(is_safe(path), "{path}");
        }
        let long = "a".repeat(256);
        for path in
            ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "C:a", "a\n", "a/b.", long.as_str()]
        {
            assert!(!is_safe(path), "{path}");
        }
        assert!(is_hash(&"a1".repeat(20)) && !is_hash(&"A1".repeat(20)) && !is_hash("../../x"));
        assert_eq!(encoded("a b/ü#?"), "a%20b/%C3%BC%23%3F");
    }
}
