//! Licences of all dependencies, on all systems, against a list of those that ask for a notice and no more.

use std::path::Path;

use anyhow::{Context, bail};
use cargo_metadata::MetadataCommand;
use spdx::{Expression, ParseMode};

/// Licences under which code may become part of the binary.
const ALLOWED: [&str; 10] = [
    "Apache-2.0",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "BSL-1.0",
    // The certificates of Mozilla's list, as data.
    "CDLA-Permissive-2.0",
];

/// Packages with another licence, and the reason why it will do.
const EXCEPTIONS: [(&str, &str); 1] = [
    // By file: whoever changes one of its files publishes that file. We change none. `directories` needs it.
    ("option-ext", "MPL-2.0"),
];

/// Checks the licence of every package that the lock file names.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root.join("Cargo.toml")).other_options(["--locked".to_owned()]);
    let metadata = command.exec().context("cargo metadata")?;
    let mut refused = Vec::new();
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or_default();
        if EXCEPTIONS.contains(&(package.name.as_str(), licence)) {
            continue;
        }
        if let Err(reason) = is_allowed(licence) {
            refused.push(format!("{} {}: {reason}", package.name, package.version));
        }
    }
    println!("{} packages", metadata.packages.len());
    if !refused.is_empty() {
        bail!("licences that are not on the list:\n{}", refused.join("\n"));
    }
    Ok(())
}

/// Whether an SPDX expression can be met by allowed licences.
fn is_allowed(licence: &str) -> Result<(), String> {
    let parsed = Expression::parse_mode(licence, ParseMode::LAX);
    let expression = parsed.map_err(|e| format!("`{licence}` is no SPDX expression: {}", e.reason))?;
    let met = expression.evaluate(|wanted| {
        let id = wanted.license.id().map(|id| id.name);
        id.is_some_and(|name| ALLOWED.contains(&name))
    });
    if met { Ok(()) } else { Err(format!("`{licence}`")) }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn one_allowed_alternative_is_enough_and_each_part_of_a_sum_is_needed() {
        for good in ["MIT", "MIT OR GPL-3.0-only", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert_eq!(is_allowed(good), Ok(()), "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND LGPL-2.1-only", "", "no licence at all"] {
            assert!(is_allowed(bad).is_err(), "{bad}");
        }
    }
}
