use super::*;
use crate::isa::Isa;
use ops::conformance::numbers;

fn all() -> [F32Ops; 2] {
    [Kernels::scalar(), Kernels::best()]
}

fn silu(ops: F32Ops, x: &mut [f32]) {
    let input = x.to_vec();
    ops.conv_silu(&vec![1.0; x.len()], &[&input], x);
}

/// Units in the last place of f32 between a result and the exact value.
fn ulps(got: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    let unit =
        (f64::from(rounded.abs().next_up()) - f64::from(rounded.abs())).max(f64::from(f32::MIN_POSITIVE));
    (f64::from(got) - exact).abs() / unit
}

#[test]
fn exp_is_accurate() {
    for ops in all() {
        let mut x: Vec<f32> = (-870_000..=880_000).map(|i| i as f32 * 1e-4).collect();
        let exact: Vec<f64> = x.iter().map(|&x| f64::from(x).exp()).collect();
        ops.exp_sum(&mut x, 0.0);
        let worst = x.iter().zip(exact).map(|(&got, exact)| ulps(got, exact)).fold(0.0, f64::max);
        assert!(worst < 2.0, "{worst} units in the last place");
    }
}

#[test]
fn exp_at_the_ends_of_its_range() {
    for ops in all() {
        let mut x = [f32::NEG_INFINITY, -1e30, -110.0, 0.0, -0.0, 89.0, 1e30, f32::INFINITY, f32::NAN, 88.7];
        ops.exp_sum(&mut x, 0.0);
        assert_eq!(x[..8], [0.0, 0.0, 0.0, 1.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]);
        assert!(x[8].is_nan());
        assert!(x[9].is_finite());
    }
}

#[test]
fn a_nan_is_never_hidden() {
    for ops in all() {
        for at in [0, 7, 8, 12] {
            let mut x = [1.0; 13];
            x[at] = f32::NAN;
            let max = ops.max(&x);
            assert!(ops.exp_sum(&mut x.clone(), max).is_nan());
            silu(ops, &mut x);
            assert!(x[at].is_nan());
        }
    }
}

#[test]
fn activations_of_large_values() {
    for ops in all() {
        let mut x = [-1e4, -200.0, -88.0, 0.0, 88.0, 200.0, 1e4];
        silu(ops, &mut x);
        assert!(x[..2].iter().all(|&y| y == 0.0), "{x:?}");
        assert!(x[2].abs() < 1e-30);
        assert_eq!(x[3..], [0.0, 88.0, 200.0, 1e4]);
    }
    assert_eq!([sigmoid(-200.0), sigmoid(200.0)], [0.0, 1.0]);
    assert_eq!([softplus(-200.0), softplus(200.0)], [0.0, 200.0]);
    assert!((softplus(-20.0) / 2.061_153_6e-9 - 1.0).abs() < 1e-5);
}

#[test]
fn elementwise_ops() {
    for ops in all() {
        for len in [0, 1, 7, 8, 9, 33] {
            let (a, b, c) = (numbers(1, len, 5.0), numbers(2, len, 5.0), numbers(3, len, 5.0));
            let check = |got: &[f32], exact: &dyn Fn(f64, f64, f64) -> f64| {
                for (i, &got) in got.iter().enumerate() {
                    let exact = exact(f64::from(a[i]), f64::from(b[i]), f64::from(c[i]));
                    assert!((f64::from(got) - exact).abs() <= 1e-5 * (1.0 + exact.abs()), "{got} {exact}");
                }
            };
            let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
            let mut y = a.clone();
            silu(ops, &mut y);
            check(&y, &|a, _, _| a * sigmoid(a));
            let mut y = a.clone();
            ops.silu_mul(&mut y, &b);
            check(&y, &|a, b, _| a * sigmoid(a) * b);
            ops.scaled_sigmoid_mul(3.0, &a, &b, &mut y);
            check(&y, &|a, b, _| 3.0 * a * sigmoid(b));
            y.copy_from_slice(&c);
            ops.scaled_mul_silu(3.0, &a, &b, &mut y);
            check(&y, &|a, b, c| 3.0 * c * a * b * sigmoid(b));
            y.copy_from_slice(&c);
            ops.axpby(3.0, &a, -2.0, &mut y);
            check(&y, &|a, _, c| 3.0 * a - 2.0 * c);
            for taps in [1, 2, 4, 5] {
                let (weight, inputs) = (numbers(4, taps * len, 1.0), &[&a[..], &b, &c, &a, &b][..taps]);
                ops.conv_silu(&weight, inputs, &mut y);
                for (i, &y) in y.iter().enumerate() {
                    let sum: f32 = (0..taps).map(|tap| weight[i * taps + tap] * inputs[tap][i]).sum();
                    assert!(
                        (y - sum * super::sigmoid(sum)).abs() < 1e-5,
                        "{taps} taps, element {i} of {len}"
                    );
                }
            }
            assert_eq!(ops.max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}

/// Strided operands with sizes around every tile; nothing outside the result is touched.
#[test]
fn products_of_all_shapes() {
    for ops in all() {
        for m in [1, 2, 4, 5, 9, 17] {
            for n in [1, 3, 8, 9, 16, 31, 64, 75] {
                for k in [0, 1, 7, 8, 17, 64, 150] {
                    product(ops, Dims { m, n, k });
                }
            }
        }
    }
}

fn product(ops: F32Ops, dims: Dims) {
    let Dims { m, n, k } = dims;
    let (lda, ldb, ldbt, ldc) = (k + 2, n + 1, k + 3, n + 5);
    let (a, b, bt) = (numbers(1, m * lda, 1.0), numbers(2, k * ldb, 1.0), numbers(3, n * ldbt, 1.0));
    let before = numbers(4, m * ldc, 1.0);
    let (mut sums, mut dots) = (before.clone(), before.clone());
    ops.matmul_add(dims, Rows::new(&a, lda), Rows::new(&b, ldb), RowsMut::new(&mut sums, ldc));
    ops.dots(dims, Rows::new(&a, lda), Rows::new(&bt, ldbt), RowsMut::new(&mut dots, ldc));
    for i in 0..m {
        for j in 0..ldc {
            let at = i * ldc + j;
            if j >= n {
                assert_eq!((sums[at], dots[at]), (before[at], before[at]), "outside of {dims:?}");
                continue;
            }
            let sum: f32 = (0..k).map(|l| a[i * lda + l] * b[l * ldb + j]).sum();
            let dot: f32 = (0..k).map(|l| a[i * lda + l] * bt[j * ldbt + l]).sum();
            assert!((sums[at] - before[at] - sum).abs() < 1e-5, "matmul_add {dims:?} at {i}, {j}");
            assert!((dots[at] - dot).abs() < 1e-5, "dots {dims:?} at {i}, {j}");
        }
    }
}

/// An element alone gives the same bits as among others.
#[test]
fn a_product_does_not_depend_on_its_tile() {
    let dims = Dims { m: 15, n: 75, k: 150 };
    let (a, b) = (numbers(1, dims.m * dims.k, 1.0), numbers(2, dims.n * dims.k, 1.0));
    for ops in all() {
        let (mut sums, mut dots) = (vec![0.0; dims.m * dims.n], vec![0.0; dims.m * dims.n]);
        ops.matmul_add(dims, Rows::new(&a, dims.k), Rows::new(&b, dims.n), RowsMut::new(&mut sums, dims.n));
        ops.dots(dims, Rows::new(&a, dims.k), Rows::new(&b, dims.k), RowsMut::new(&mut dots, dims.n));
        let one = Dims { m: 1, n: 1, k: dims.k };
        for i in 0..dims.m {
            for j in 0..dims.n {
                let row = Rows::new(&a[i * dims.k..], dims.k);
                let (mut sum, mut dot) = ([0.0], [0.0]);
                ops.matmul_add(one, row, Rows::new(&b[j..], dims.n), RowsMut::new(&mut sum, 1));
                ops.dots(one, row, Rows::new(&b[j * dims.k..], dims.k), RowsMut::new(&mut dot, 1));
                assert_eq!((sum[0].to_bits(), dot[0].to_bits()), {
                    let at = i * dims.n + j;
                    (sums[at].to_bits(), dots[at].to_bits())
                });
            }
        }
    }
}

#[test]
fn state_step_is_decay_write_read() {
    for ops in all() {
        for (dk, dv) in [(1, 1), (3, 8), (5, 37), (16, 64)] {
            let (k, q, d) = (numbers(1, dk, 1.0), numbers(2, dk, 1.0), numbers(3, dv, 1.0));
            let before = numbers(4, dk * dv, 1.0);
            let (mut state, mut out) = (before.clone(), vec![9.0; dv]);
            ops.state_step(&mut state, 0.75, &k, &q, &d, &mut out);
            for j in 0..dv {
                let mut read = 0.0;
                for i in 0..dk {
                    let expected = 0.75 * before[i * dv + j] + k[i] * d[j];
                    assert!((state[i * dv + j] - expected).abs() < 1e-6);
                    read += q[i] * expected;
                }
                assert!((out[j] - read).abs() < 1e-5, "{} {read}", out[j]);
            }
        }
    }
}

#[test]
#[should_panic(expected = "rows of")]
fn a_product_outside_its_operand_is_refused() {
    let (a, mut c) = ([0.0; 11], [0.0; 16]);
    let dims = Dims { m: 4, n: 4, k: 3 };
    Kernels::best().dots(dims, Rows::new(&a, 3), Rows::new(&a, 3), RowsMut::new(&mut c, 4));
}

#[test]
fn sums_of_squares_are_exact_enough() {
    let x = numbers(1, 4099, 1e3);
    let exact: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    assert!((sum_of_squares(&x) / exact - 1.0).abs() < 1e-14);
}

/// Rows of 21 at a stride of 25 halves, so that neither is a whole number of vectors: all that there are.
#[test]
fn every_half_is_decoded_as_the_codec_does() {
    const LEN: usize = 21;
    const STRIDE: usize = 25;
    let halves: Vec<u8> = (0..=u16::MAX).cycle().take(STRIDE << 16).flat_map(u16::to_le_bytes).collect();
    for ops in all() {
        let mut out = vec![0.0; LEN << 16];
        ops.decode_f16(&halves, 2 * STRIDE, LEN, &mut out);
        for (row, out) in out.chunks(LEN).enumerate() {
            let mut expected = [0.0; LEN];
            Format::F16.decode_row(&halves[2 * STRIDE * row..][..2 * LEN], &mut expected).unwrap();
            for (got, expected) in out.iter().zip(expected) {
                assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan());
            }
        }
    }
}

/// Around every half and every boundary of two, and far beyond them.
#[test]
fn values_become_the_halves_that_the_codec_says() {
    let ties = (0..0x7C00_u32).map(|half| {
        let of = |half: u32| {
            let mut value = [0.0];
            Format::F16.decode_row(&(half as u16).to_le_bytes(), &mut value).unwrap();
            value[0]
        };
        of(half) / 2.0 + of((half + 1).min(0x7BFF)) / 2.0
    });
    let around = |x: f32| [x.next_down(), x, x.next_up(), -x];
    let mut values: Vec<f32> = ties.flat_map(around).collect();
    values.extend([65519.9, 65520.0, 1e6, -1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, 1e-45, -0.0]);
    for ops in all() {
        let (mut got, mut expected) = (vec![0; 2 * values.len()], vec![0; 2 * values.len()]);
        ops.encode_f16(&values, &mut got);
        Format::F16.encode_row(&values, &mut expected).unwrap();
        assert!(got == expected);
    }
}

#[test]
fn blocks_of_the_cache_are_decoded_as_the_codec_does() {
    const ROW: usize = 3 * 34;
    let blocks: Vec<u8> = (0..300 * (ROW + 34)).map(|i| (i * 167 % 251 + i / 91) as u8).collect();
    for ops in all() {
        let mut out = vec![0.0; 300 * 96];
        ops.decode_q8_0(&blocks, ROW + 34, 96, &mut out);
        for (row, out) in out.chunks(96).enumerate() {
            let mut expected = [0.0; 96];
            Format::Q8_0.decode_row(&blocks[(ROW + 34) * row..][..ROW], &mut expected).unwrap();
            for (got, expected) in out.iter().zip(expected) {
                assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan());
            }
        }
    }
}

/// FNV-1a of the bits of results.
struct Fingerprint(u64);

impl Fingerprint {
    fn add(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.add_bytes(&value.to_bits().to_le_bytes()));
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
        }
    }

    fn of(results: impl FnOnce(&mut Fingerprint)) -> u64 {
        let mut fingerprint = Fingerprint(0xCBF2_9CE4_8422_2325);
        results(&mut fingerprint);
        fingerprint.0
    }
}

fn bits_of_products(ops: F32Ops) -> [u64; 3] {
    let shapes = [1, 2, 4, 5, 9, 13, 17, 37].into_iter().flat_map(|m| {
        [1, 3, 8, 9, 16, 31, 64, 75, 96]
            .into_iter()
            .flat_map(move |n| [0, 1, 7, 8, 17, 64, 150, 300].map(|k| Dims { m, n, k }))
    });
    let operands = |Dims { m, n, k }: Dims| (numbers(1, m * k, 1.0), numbers(2, n * k, 1.0));
    let dots = Fingerprint::of(|all| {
        for dims in shapes.clone() {
            let ((a, b), mut c) = (operands(dims), vec![0.0; dims.m * dims.n]);
            ops.dots(dims, Rows::new(&a, dims.k), Rows::new(&b, dims.k), RowsMut::new(&mut c, dims.n));
            all.add(&c);
        }
    });
    let matmul_add = Fingerprint::of(|all| {
        for dims in shapes {
            let ((a, b), mut c) = (operands(dims), numbers(3, dims.m * dims.n, 1.0));
            ops.matmul_add(dims, Rows::new(&a, dims.k), Rows::new(&b, dims.n), RowsMut::new(&mut c, dims.n));
            all.add(&c);
        }
    });
    let state_step = Fingerprint::of(|all| {
        for (dk, dv) in [(1, 1), (3, 8), (5, 37), (16, 64), (7, 47), (128, 128)] {
            let (k, q, d) = (numbers(1, dk, 1.0), numbers(2, dk, 1.0), numbers(3, dv, 1.0));
            let (mut state, mut out) = (numbers(4, dk * dv, 1.0), vec![9.0; dv]);
            ops.state_step(&mut state, 0.77, &k, &q, &d, &mut out);
            all.add(&state);
            all.add(&out);
        }
    });
    [dots, matmul_add, state_step]
}

fn bits_of_elementwise_ops(ops: F32Ops) -> [u64; 3] {
    let lens = [0, 1, 7, 8, 9, 33, 250];
    let operands = |len| [1, 2, 3].map(|seed| numbers(seed, len, 40.0));
    let exp = Fingerprint::of(|all| {
        for scale in [1e-3, 1.0, 30.0, 100.0, 1e5, f32::INFINITY] {
            for len in lens {
                let mut x = numbers(5, len, scale);
                x.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = -0.0);
                let max = ops.max(&x);
                let sum = ops.exp_sum(&mut x, if max.is_finite() { max / 2.0 } else { 1.0 });
                all.add(&x);
                all.add(&[max, sum]);
            }
        }
    });
    let gates = Fingerprint::of(|all| {
        for len in lens {
            let [a, b, c] = operands(len);
            let mut y = a.clone();
            ops.silu_mul(&mut y, &b);
            all.add(&y);
            ops.scaled_sigmoid_mul(3.1, &a, &b, &mut y);
            all.add(&y);
            y.copy_from_slice(&c);
            ops.scaled_mul_silu(3.1, &a, &b, &mut y);
            all.add(&y);
            ops.axpby(3.1, &a, -2.7, &mut y);
            all.add(&y);
        }
    });
    let conv = Fingerprint::of(|all| {
        for len in lens {
            let [a, b, c] = operands(len);
            let mut y = vec![0.0; len];
            for taps in [1, 2, 4, 5] {
                let inputs = &[&a[..], &b, &c, &a, &b][..taps];
                ops.conv_silu(&numbers(4, taps * len, 1.0), inputs, &mut y);
                all.add(&y);
            }
        }
    });
    [exp, gates, conv]
}

fn bits_of_codecs(ops: F32Ops) -> [u64; 3] {
    let values = |scale| numbers(6, 8000, scale);
    let encode_f16 = Fingerprint::of(|all| {
        for scale in [1e-7, 1e-4, 1.0, 1e5, f32::MAX] {
            let mut bytes = vec![0; 2 * 7997];
            ops.encode_f16(&values(scale)[..7997], &mut bytes);
            all.add_bytes(&bytes);
        }
    });
    let decode_f16 = Fingerprint::of(|all| {
        // All that are numbers.
        let halves: Vec<u8> =
            (0..=u16::MAX).filter(|bits| bits & 0x7FFF <= 0x7C00).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0.0; halves.len() / 2];
        ops.decode_f16(&halves, halves.len(), halves.len() / 2, &mut out);
        all.add(&out);
    });
    let decode_q8_0 = Fingerprint::of(|all| {
        let (mut blocks, mut out) = (vec![0; 250 * 34], vec![0.0; 8000]);
        Format::Q8_0.encode_row(&values(3.0), &mut blocks).unwrap();
        ops.decode_q8_0(&blocks, 2 * 34, 64, &mut out);
        all.add(&out);
    });
    [encode_f16, decode_f16, decode_q8_0]
}

/// Vector instruction sets of all processors add in the same order and round alike: the numbers are
/// those of any.
#[test]
fn results_have_the_same_bits_on_all_processors() {
    for ops in Kernels::all().filter(|kernels| kernels.isa() != Isa::Scalar) {
        assert_eq!(
            (bits_of_products(ops), bits_of_elementwise_ops(ops), bits_of_codecs(ops)),
            (
                [11_106_663_852_493_213_636, 2_377_169_312_494_472_110, 3_822_640_640_985_545_026],
                [15_310_973_814_740_941_435, 370_276_660_718_300_619, 8_152_237_757_341_872_007],
                [12_773_125_169_896_277_452, 12_080_191_306_194_942_245, 17_393_465_005_061_512_759],
            ),
            "{ops:?}"
        );
    }
}
