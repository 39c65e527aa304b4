//! The list of formats: names, sizes and codecs, as one table.

mod rows;

use std::fmt;

use crate::blocks::{
    Block, BlockBf16, BlockF16, BlockF32, BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs,
    BlockIq3S, BlockIq3Xxs, BlockIq4Nl, BlockIq4Xs, BlockMxfp4, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1,
    BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, BlockTq1_0, BlockTq2_0, EncodeBlock,
    from_bytes,
};

/// Element or block format of a row of weights (ggml names and bytes).
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
#[non_exhaustive]
pub enum Format {
    /// IEEE single precision, little endian.
    F32,
    /// IEEE half precision, little endian.
    F16,
    /// The upper half of a single, little endian.
    BF16,
    /// 32 weights: a half-precision scale and 4-bit codes minus 8.
    Q4_0,
    /// 32 weights: a half-precision scale and offset, 4-bit codes.
    Q4_1,
    /// 32 weights: a half-precision scale and 5-bit codes minus 16.
    Q5_0,
    /// 32 weights: a half-precision scale and offset, 5-bit codes.
    Q5_1,
    /// 32 weights: a half-precision scale and signed 8-bit codes.
    Q8_0,
    /// 32 weights: a half-precision scale, 4-bit codes for sixteen values closer near zero.
    IQ4NL,
    /// 32 weights: an exponent of 8 bits, floats of 4 bits.
    MXFP4,
    /// 256 weights: 16 sub-blocks of 16 with 4-bit scales and minima, 2-bit codes.
    Q2K,
    /// 256 weights: 16 sub-blocks of 16 with 6-bit scales, 3-bit codes minus 4.
    Q3K,
    /// 256 weights: 8 sub-blocks of 32 with 6-bit scales and minima, 4-bit codes.
    Q4K,
    /// 256 weights: 8 sub-blocks of 32 with 6-bit scales and minima, 5-bit codes.
    Q5K,
    /// 256 weights: 16 sub-blocks of 16 with 8-bit scales, 6-bit codes minus 32.
    Q6K,
    /// 256 weights: 8 sub-blocks of 32 with 3-bit scales, one of 2048 vectors for eight weights.
    IQ1S,
    /// 256 weights: as iq1_s, with 16 sub-blocks of 16.
    IQ1M,
    /// 256 weights: 8 sub-blocks of 32 with 4-bit scales, one of 256 vectors for eight weights.
    IQ2XXS,
    /// 256 weights: 16 sub-blocks of 16 with 4-bit scales, one of 512 vectors for eight weights.
    IQ2XS,
    /// 256 weights: 16 sub-blocks of 16 with 4-bit scales, one of 1024 vectors for eight weights.
    IQ2S,
    /// 256 weights: 8 sub-blocks of 32 with 4-bit scales, one of 256 vectors for four weights.
    IQ3XXS,
    /// 256 weights: 8 sub-blocks of 32 with 4-bit scales, one of 512 vectors for four weights.
    IQ3S,
    /// 256 weights: 8 sub-blocks of 32 with 6-bit scales, codes as in iq4_nl.
    IQ4XS,
    /// 256 weights: a half-precision scale times -1, 0 or 1, five a byte.
    TQ1_0,
    /// 256 weights: a half-precision scale times -1, 0 or 1, four a byte.
    TQ2_0,
}

type Decode = fn(&[u8], &mut [f32]);
type Encode = fn(&[f32], &mut [u8]);

/// One row of the table: all that tells a format from the others.
struct Spec {
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    decode: Decode,
    /// `None` where files are read only.
    encode: Option<Encode>,
}

const fn both_ways<B: EncodeBlock>(name: &'static str) -> Spec {
    Spec { encode: Some(encode_blocks::<B>), ..decode_only::<B>(name) }
}

const fn decode_only<B: Block>(name: &'static str) -> Spec {
    Spec { name, block_len: B::LEN, block_bytes: size_of::<B>(), decode: decode_blocks::<B>, encode: None }
}

/// In the order of the enum.
static SPECS: [(Format, Spec); 25] = [
    (Format::F32, both_ways::<BlockF32>("f32")),
    (Format::F16, both_ways::<BlockF16>("f16")),
    (Format::BF16, both_ways::<BlockBf16>("bf16")),
    (Format::Q4_0, both_ways::<BlockQ4_0>("q4_0")),
    (Format::Q4_1, both_ways::<BlockQ4_1>("q4_1")),
    (Format::Q5_0, both_ways::<BlockQ5_0>("q5_0")),
    (Format::Q5_1, both_ways::<BlockQ5_1>("q5_1")),
    (Format::Q8_0, both_ways::<BlockQ8_0>("q8_0")),
    (Format::IQ4NL, decode_only::<BlockIq4Nl>("iq4_nl")),
    (Format::MXFP4, decode_only::<BlockMxfp4>("mxfp4")),
    (Format::Q2K, both_ways::<BlockQ2K>("q2_K")),
    (Format::Q3K, both_ways::<BlockQ3K>("q3_K")),
    (Format::Q4K, both_ways::<BlockQ4K>("q4_K")),
    (Format::Q5K, both_ways::<BlockQ5K>("q5_K")),
    (Format::Q6K, both_ways::<BlockQ6K>("q6_K")),
    (Format::IQ1S, decode_only::<BlockIq1S>("iq1_s")),
    (Format::IQ1M, decode_only::<BlockIq1M>("iq1_m")),
    (Format::IQ2XXS, decode_only::<BlockIq2Xxs>("iq2_xxs")),
    (Format::IQ2XS, decode_only::<BlockIq2Xs>("iq2_xs")),
    (Format::IQ2S, decode_only::<BlockIq2S>("iq2_s")),
    (Format::IQ3XXS, decode_only::<BlockIq3Xxs>("iq3_xxs")),
    (Format::IQ3S, decode_only::<BlockIq3S>("iq3_s")),
    (Format::IQ4XS, decode_only::<BlockIq4Xs>("iq4_xs")),
    (Format::TQ1_0, decode_only::<BlockTq1_0>("tq1_0")),
    (Format::TQ2_0, decode_only::<BlockTq2_0>("tq2_0")),
];

const ALL: [Format; SPECS.len()] = {
    let mut all = [Format::F32; SPECS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = SPECS[i].0;
        assert!(all[i] as usize == i, "a format is not in its place");
        i += 1;
    }
    all
};

impl Format {
    /// Every format: floats, blocks of 32, blocks of 256.
    pub const ALL: &[Format] = &ALL;

    fn spec(self) -> &'static Spec {
        &SPECS[self as usize].1
    }

    /// ggml's name, for instance `q4_K`.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Weights in a block: 1, 32 or 256.
    pub fn block_len(self) -> usize {
        self.spec().block_len
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.spec().block_bytes
    }

    /// Bits that a weight takes, scales included.
    pub fn bits_per_weight(self) -> f64 {
        (self.block_bytes() * 8) as f64 / self.block_len() as f64
    }

    /// The format a row of `cols` weights is stored in when `self` is asked for: itself, or the
    /// 32-wide format of the same or more bits, or bf16 when `cols` is no multiple of 32 (bf16 and
    /// not f16: it has the range of every checkpoint, and most checkpoints are bf16, which makes it
    /// lossless there).
    pub fn for_cols(self, cols: usize) -> Format {
        if cols.is_multiple_of(self.block_len()) {
            return self;
        }
        let narrow = match self {
            Format::Q4K => Format::Q5_0,
            Format::Q5K => Format::Q5_1,
            Format::Q6K => Format::Q8_0,
            // The others with blocks of 256 have fewer bits.
            wide if wide.block_len() == 256 => Format::Q4_0,
            other => other,
        };
        if cols.is_multiple_of(narrow.block_len()) { narrow } else { Format::BF16 }
    }

    /// Whether a block holds more than one weight.
    pub fn is_quantised(self) -> bool {
        self.block_len() > 1
    }

    /// Whether [`Format::encode_row`] works: the others are read from files only.
    pub fn can_encode(self) -> bool {
        self.spec().encode.is_some()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

// Lengths were checked by `check_row`, so the blocks and the chunks are equally many.
fn decode_blocks<B: Block>(src: &[u8], dst: &mut [f32]) {
    for (block, weights) in from_bytes::<B>(src).iter().zip(dst.chunks_exact_mut(B::LEN)) {
        block.decode(weights);
    }
}

fn encode_blocks<B: EncodeBlock>(src: &[f32], dst: &mut [u8]) {
    let blocks: &mut [B] = bytemuck::cast_slice_mut(dst);
    for (block, weights) in blocks.iter_mut().zip(src.chunks_exact(B::LEN)) {
        *block = B::encode(weights);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::TensorError;

    #[test]
    fn names_parse_in_any_case() {
        for &format in Format::ALL {
            assert_eq!(Format::parse(format.name()), Ok(format));
            assert_eq!(Format::parse(&format.name().to_uppercase()), Ok(format));
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(Format::parse("q4_k"), Ok(Format::Q4K));
        let error = Format::parse("q9").unwrap_err().to_string();
        assert!(error.starts_with("unknown weight format \"q9\"; known formats: f32 f16 bf16 q4_0 q4_1 "));
        assert!(error.contains(" q3_K ") && error.ends_with(" tq2_0"), "{error}");
    }

    #[test]
    fn what_has_no_encoder_says_so() {
        let (row, mut bytes) = ([0.0; 256], [0; 98]);
        let error = Format::IQ3XXS.encode_row(&row, &mut bytes).unwrap_err().to_string();
        assert!(
            error.starts_with("weights cannot be stored as iq3_xxs, only read; choose one of f32 "),
            "{error}"
        );
        assert!(Format::IQ3XXS.decode_row(&bytes, &mut [0.0; 256]).is_ok());
    }

    #[test]
    fn sizes_are_those_of_ggml() {
        // Bytes of a block of 1, of 32 and of 256 weights, in the order of `Format::ALL`.
        let expected = [
            (1, &[4, 2, 2][..]),
            (32, &[18, 20, 22, 24, 34, 18, 17]),
            (256, &[84, 110, 144, 176, 210, 50, 56, 66, 74, 82, 98, 110, 136, 54, 66]),
        ];
        let expected: Vec<_> =
            expected.iter().flat_map(|(len, bytes)| bytes.iter().map(move |bytes| (*len, *bytes))).collect();
        let sizes: Vec<_> =
            Format::ALL.iter().map(|format| (format.block_len(), format.block_bytes())).collect();
        assert_eq!(sizes, expected);
        assert_eq!(Format::Q4K.bits_per_weight(), 4.5);
    }

    #[test]
    fn row_sizes() {
        assert_eq!(Format::Q4K.row_bytes(4096), Ok(2304));
        assert_eq!(Format::Q4K.row_bytes(0), Ok(0));
        assert_eq!(
            Format::Q4K.row_bytes(96).unwrap_err().to_string(),
            "q4_K stores blocks of 256 weights, so a row of 96 weights does not fit it; use q5_0 for this row"
        );
        assert!(matches!(Format::F32.row_bytes(usize::MAX), Err(TensorError::SizeOverflow { .. })));
    }

    #[test]
    fn fallback_never_has_fewer_bits() {
        for &format in Format::ALL {
            for cols in [1, 17, 32, 96, 256, 320, 4096] {
                let stored = format.for_cols(cols);
                assert!(stored.row_bytes(cols).is_ok(), "{format} {cols}");
                assert!(stored.bits_per_weight() >= format.bits_per_weight(), "{format} {cols}");
            }
        }
        assert_eq!(Format::Q4K.for_cols(512), Format::Q4K);
        assert_eq!(Format::Q3K.for_cols(96), Format::Q4_0);
        assert_eq!(Format::Q4K.for_cols(96), Format::Q5_0);
        assert_eq!(Format::Q6K.for_cols(96), Format::Q8_0);
        assert_eq!(Format::Q8_0.for_cols(100), Format::BF16);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut bytes = [0_u8; 34];
        let mut row = [0.0_f32; 32];
        assert!(Format::Q8_0.decode_row(&bytes, &mut row).is_ok());
        assert!(Format::Q8_0.decode_row(&bytes[1..], &mut row).is_err());
        assert!(Format::Q8_0.decode_row(&bytes, &mut row[1..]).is_err());
        row[7] = f32::INFINITY;
        let error = Format::Q8_0.encode_row(&row, &mut bytes).unwrap_err();
        assert!(matches!(error, TensorError::NotFinite { index: 7, .. }), "{error}");
    }
}
