use super::*;
use ops::conformance::numbers;

fn all() -> [F32Ops; 2] {
    [F32Ops::new(Isa::Scalar), F32Ops::new(Isa::detect())]
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
    F32Ops::new(Isa::detect()).dots(dims, Rows::new(&a, 3), Rows::new(&a, 3), RowsMut::new(&mut c, 4));
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
