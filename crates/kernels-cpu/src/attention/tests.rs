use super::{Inputs, gated_attention};
use crate::{CpuBackend, CpuKvPool, CpuOptions, Isa};
use ops::conformance::numbers;
use ops::{AttentionShape, Batch, KvFormat, PAGE_TOKENS, Phase, RopePairing, Rows};

/// Attention over a cache is that over f32 rows of what the cache stands for, to the bit.
#[test]
fn the_format_of_a_cache_changes_its_values_and_nothing_else() {
    let shape = AttentionShape {
        heads: 6,
        kv_heads: 2,
        head_dim: 40,
        rotary_dim: 16,
        rope_theta: 1e6,
        pairing: RopePairing::Halves,
        gated: true,
        eps: 1e-6,
    };
    let (ctx, row, q_row) = (300, shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim);
    let pages = [2, 0, 1];
    let rows = Rows {
        first: 0,
        len: 300,
        pos: 0,
        phase: Phase::Prefill,
        chunked: true,
        state: 0,
        keep: None,
        pages: (0, 3),
    };
    let whole = Batch { n: ctx, rows: &[rows], pages: &pages };
    for isa in [Isa::Scalar, Isa::detect()] {
        let mut backend = CpuBackend::new(CpuOptions { threads: 2, isa: Some(isa) }).unwrap();
        for kv in [KvFormat::F16, KvFormat::Q8_0] {
            let pools = [1, 2].map(|seed| {
                let pool = |format| CpuKvPool::new(format, &shape, pages.len()).unwrap();
                let [mut coded, mut plain] = [pool(kv), pool(KvFormat::F32)];
                coded.store(&mut backend.context, &whole, &numbers(seed, ctx * row, 2.0));
                let mut values = vec![0.0; pages.len() * PAGE_TOKENS * row];
                coded.read(backend.context.ops, 0, &mut values);
                for (page, values) in values.chunks_exact(PAGE_TOKENS * row).enumerate() {
                    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    plain.write_page(page, &bytes);
                }
                (coded, plain)
            });
            let [(coded_keys, keys), (coded_values, values)] = &pools;
            for (pos, n) in [(0, 1), (0, 300), (127, 1), (128, 1), (299, 1), (250, 50), (120, 17)] {
                let qg = numbers(3, n * 2 * q_row, 2.0);
                let mut attend = |k_cache, v_cache| {
                    let mut out = vec![0.0; n * q_row];
                    let inputs = Inputs { shape: &shape, pages: &pages, pos, n, qg: &qg, k_cache, v_cache };
                    gated_attention(&mut backend.context, &mut backend.attention, &inputs, &mut out);
                    out
                };
                let (coded, plain) = (attend(coded_keys, coded_values), attend(keys, values));
                assert!(coded == plain, "{n} tokens at {pos}, {kv}, {isa:?}");
            }
        }
    }
}
