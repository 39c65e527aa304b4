use crate::dot::Isa;
use crate::{CpuBackend, CpuKvCache, CpuOptions};
use ops::conformance::numbers;
use ops::{AttentionShape, Backend, KvFormat, RopePairing};

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
    for isa in [Isa::Scalar, Isa::detect()] {
        let mut backend = CpuBackend::new(CpuOptions { threads: 2, isa: Some(isa) });
        for kv in [KvFormat::F16, KvFormat::Q8_0] {
            let caches = [1, 2].map(|seed| {
                let [mut coded, mut plain] =
                    [kv, KvFormat::F32].map(|format| CpuKvCache::new(format, &shape, ctx));
                coded.store(&mut backend.context, 0, &numbers(seed, ctx * row, 2.0));
                let mut values = vec![0.0; ctx * row];
                coded.read(backend.context.ops, 0, &mut values);
                plain.store(&mut backend.context, 0, &values);
                (coded, plain)
            });
            let [(coded_keys, keys), (coded_values, values)] = &caches;
            for (pos, n) in [(0, 1), (0, 300), (127, 1), (128, 1), (299, 1), (250, 50), (120, 17)] {
                let mut qg = backend.buffer(n * 2 * q_row);
                backend.write(&mut qg, 0, &numbers(3, n * 2 * q_row, 2.0));
                let [mut coded, mut plain] = [0; 2].map(|_| backend.buffer(n * q_row));
                backend.gated_attention(&shape, pos, n, &qg, coded_keys, coded_values, &mut coded);
                backend.gated_attention(&shape, pos, n, &qg, keys, values, &mut plain);
                assert!(coded.as_slice() == plain.as_slice(), "{n} tokens at {pos}, {kv}, {isa:?}");
            }
        }
    }
}
