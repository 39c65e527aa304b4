//! Decoding, bit for bit, against the `gguf` Python package; `data/make_blocks.py` made the file.

#![allow(clippy::unwrap_used)]

use tensor::Format;

static DATA: &[u8] = include_bytes!("data/blocks.bin");

#[test]
fn decodes_what_gguf_decodes() {
    let mut rest = DATA;
    let mut take = |len: usize| {
        let (head, tail) = rest.split_at(len);
        rest = tail;
        head
    };
    for expected_name in [
        "q4_0", "q5_0", "q8_0", "q4_k", "q6_k", "q3_k", "q2_k", "q5_k", "q4_1", "q5_1", "iq4_nl", "mxfp4",
        "iq4_xs", "iq3_xxs", "iq3_s", "iq2_xxs", "iq2_xs", "iq2_s", "iq1_s", "iq1_m", "tq1_0", "tq2_0",
    ] {
        let name = std::str::from_utf8(take(8)).unwrap().trim_end();
        assert_eq!(name, expected_name);
        let format = Format::parse(name).unwrap();
        let blocks = u32::from_le_bytes(take(4).try_into().unwrap()) as usize;
        let bytes = take(blocks * format.block_bytes());
        let weights = take(blocks * format.block_len() * 4);
        let mut decoded = vec![0.0; blocks * format.block_len()];
        format.decode_row(bytes, &mut decoded).unwrap();
        for (i, (got, expected)) in decoded.iter().zip(weights.as_chunks::<4>().0).enumerate() {
            let expected = f32::from_le_bytes(*expected);
            assert_eq!(got.to_bits(), expected.to_bits(), "{format}[{i}]: {got} instead of {expected}");
        }
    }
    assert!(rest.is_empty());
}
