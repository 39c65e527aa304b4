//! Formats by tier: which tensor of a packed or synthetic model gets which format.

use tensor::Format;

use crate::layout::Tier;

/// Formats asked for, by tier. A row that is no multiple of a format's block gets [`Format::for_cols`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct QuantTiers {
    /// Routed experts.
    pub experts: Format,
    /// Projections of attention and DeltaNet, and the shared expert.
    pub dense: Format,
    /// Embedding table and head.
    pub embedding: Format,
}

impl QuantTiers {
    /// The usual tiers for `--quant format`: experts in that format; what every token reads, and so errs on every token,
    /// one step finer where there is one.
    pub fn of(format: Format) -> Self {
        let finer = match format {
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q4K | Format::Q5K => {
                Format::Q6K
            }
            Format::Q2K | Format::Q3K => Format::Q4K,
            other => other,
        };
        Self { experts: format, dense: finer, embedding: finer }
    }

    /// Format of a dense tensor of `tier` stored as `source`, with rows of `cols`.
    pub fn format(&self, tier: Tier, source: Format, cols: usize) -> Format {
        let asked = match tier {
            Tier::Embedding | Tier::Head => self.embedding,
            Tier::Dense => self.dense,
            Tier::Router => return source,
            Tier::Small => return Format::F32,
        };
        requantised(source, asked).for_cols(cols)
    }
}

/// The format of a tensor stored as `source` when `asked` is asked for: re-encoding a block format in
/// another only loses, so quantised tensors stay as they are.
pub fn requantised(source: Format, asked: Format) -> Format {
    match source.is_quantised() {
        true => source,
        false => asked,
    }
}
