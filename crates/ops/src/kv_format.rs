//! How keys and values are kept in a cache.

use std::fmt;
use std::str::FromStr;

use tensor::Format;

/// Number format of a key/value cache.
///
/// Each head of each token is stored by itself. In a format of blocks its last block is filled up
/// with zeros, so that any head size works.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KvFormat {
    /// As computed: exact.
    F32,
    /// Half precision, to the nearest, finite values beyond 65504 to that: keys are normed, and values
    /// of published models stay far below.
    #[default]
    F16,
    /// 8-bit codes with a scale for every 32 values: lossy.
    Q8_0,
}

/// A name that is no cache format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown cache format {0:?}; write f16, q8_0 or f32")]
pub struct UnknownKvFormat(String);

impl KvFormat {
    /// Every format, the most exact first.
    pub const ALL: &[KvFormat] = &[KvFormat::F32, KvFormat::F16, KvFormat::Q8_0];

    /// The block format that the values have.
    pub fn format(self) -> Format {
        match self {
            KvFormat::F32 => Format::F32,
            KvFormat::F16 => Format::F16,
            KvFormat::Q8_0 => Format::Q8_0,
        }
    }

    /// Its name, as users write it.
    pub fn name(self) -> &'static str {
        self.format().name()
    }

    /// Whether its use is named among the lossy options.
    pub fn is_lossy(self) -> bool {
        self == KvFormat::Q8_0
    }

    /// Values that a head of `head_dim` takes: whole blocks.
    pub fn head_len(self, head_dim: usize) -> usize {
        head_dim.next_multiple_of(self.format().block_len())
    }

    /// Bytes that a head of `head_dim` takes.
    pub fn head_bytes(self, head_dim: usize) -> usize {
        let format = self.format();
        head_dim.div_ceil(format.block_len()) * format.block_bytes()
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for KvFormat {
    type Err = UnknownKvFormat;

    fn from_str(text: &str) -> Result<Self, UnknownKvFormat> {
        let known = KvFormat::ALL.iter().find(|format| format.name().eq_ignore_ascii_case(text));
        known.copied().ok_or_else(|| UnknownKvFormat(text.chars().take(20).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for &format in KvFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "q4_0".parse::<KvFormat>().unwrap_err().to_string();
        assert_eq!(error, "unknown cache format \"q4_0\"; write f16, q8_0 or f32");
    }

    #[test]
    fn heads_are_whole_blocks() {
        assert_eq!(KvFormat::ALL.iter().map(|f| f.head_bytes(256)).collect::<Vec<_>>(), [1024, 512, 272]);
        assert_eq!(KvFormat::ALL.iter().map(|f| f.head_bytes(20)).collect::<Vec<_>>(), [80, 40, 34]);
        assert_eq!(KvFormat::ALL.iter().map(|f| f.head_len(33)).collect::<Vec<_>>(), [33, 33, 64]);
    }
}
