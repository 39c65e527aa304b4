//! Checksums as manifest and journal write them.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Digits of a checksum.
pub(crate) const CHECKSUM_DIGITS: usize = 16;

/// An XXH3-64 checksum (seed 0), written as 16 lower-case hexadecimal digits.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Checksum(pub u64);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Checksum {
    /// Reads exactly 16 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Checksum> {
        let value = u64::from_str_radix(text, 16).ok()?;
        // Refuses signs, capitals and other lengths, which the number parser takes.
        (Checksum(value).to_string() == text).then_some(Checksum(value))
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Checksum::parse(&text).ok_or_else(|| D::Error::custom("expected 16 lower-case hexadecimal digits"))
    }
}
