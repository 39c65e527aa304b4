//! Names of ways to read, for options and reports.

use std::fmt;
use std::str::FromStr;

use crate::{IoEngine, IoMode};

/// A name that is none of those known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown name {name:?}; known are {known}")]
pub struct UnknownName {
    /// The name as it was given.
    pub name: String,
    /// All known names, separated by spaces.
    pub known: String,
}

impl IoMode {
    /// Every mode.
    pub const ALL: &[IoMode] = &[IoMode::Direct, IoMode::Buffered];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            IoMode::Direct => "direct",
            IoMode::Buffered => "buffered",
        }
    }
}

impl IoEngine {
    /// Every one of them.
    pub const ALL: &[IoEngine] = &[IoEngine::Auto, IoEngine::Pread, IoEngine::Uring];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            IoEngine::Auto => "auto",
            IoEngine::Pread => "pread",
            IoEngine::Uring => "uring",
        }
    }
}

impl fmt::Display for IoMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for IoEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for IoMode {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(name, IoMode::ALL, IoMode::name)
    }
}

impl FromStr for IoEngine {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        find(name, IoEngine::ALL, IoEngine::name)
    }
}

fn find<T: Copy>(name: &str, all: &[T], name_of: fn(T) -> &'static str) -> Result<T, UnknownName> {
    let found = all.iter().copied().find(|value| name_of(*value) == name);
    found.ok_or_else(|| UnknownName {
        name: name.to_owned(),
        known: all.iter().map(|value| name_of(*value)).collect::<Vec<_>>().join(" "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_they_name() {
        for mode in IoMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(*mode));
        }
        for engine in IoEngine::ALL {
            assert_eq!(engine.to_string().parse(), Ok(*engine));
        }
        let error = "ring".parse::<IoEngine>().unwrap_err();
        assert_eq!(error.to_string(), "unknown name \"ring\"; known are auto pread uring");
    }
}
