//! Products of f32 matrices, and the step of the delta rule's state.

use super::elementwise::{load, store};
use crate::arch::vector::{LANES, Vector};
use crate::f32_ops::operands::{Dims, Rows, RowsMut};

/// Row `row` of `len` elements.
///
/// # Safety
/// The row lies inside.
#[inline(always)]
unsafe fn row_of<'a>(rows: Rows<'a>, row: usize, len: usize) -> &'a [f32] {
    let start = row * rows.stride;
    // SAFETY: the caller's promise.
    unsafe { rows.data.get_unchecked(start..start + len) }
}

// ---- dot products -------------------------------------------------------------------------------

#[inline(always)]
pub(crate) fn dots<V: Vector>(v: V, dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
    a.check(dims.m, dims.k);
    b.check(dims.n, dims.k);
    c.check(dims.m, dims.n);
    let mut i = 0;
    while i < dims.m {
        let tall = dims.m - i >= 4;
        let mut j = 0;
        while j < dims.n {
            // SAFETY: the tile lies inside [m, n] by the conditions; the matrices have been checked.
            j += unsafe {
                match (tall, dims.n - j) {
                    (true, 2..) => dots_tile::<V, 4, 2>(v, dims.k, (i, j), (a, b), c),
                    (true, _) => dots_tile::<V, 4, 1>(v, dims.k, (i, j), (a, b), c),
                    (false, 4..) => dots_tile::<V, 1, 4>(v, dims.k, (i, j), (a, b), c),
                    (false, _) => dots_tile::<V, 1, 1>(v, dims.k, (i, j), (a, b), c),
                }
            };
        }
        i += if tall { 4 } else { 1 };
    }
}

/// `c[i..i + R][j..j + C]` of `c = a b^T`; returns `C`.
///
/// # Safety
/// a has rows i..i + R and b rows j..j + C of k elements; c has the tile.
#[inline(always)]
unsafe fn dots_tile<V: Vector, const R: usize, const C: usize>(
    v: V,
    k: usize,
    (i, j): (usize, usize),
    (a, b): (Rows<'_>, Rows<'_>),
    c: &mut RowsMut<'_>,
) -> usize {
    let (mut left, mut right) = ([(&[][..], &[][..]); R], [(&[][..], &[][..]); C]);
    for (row, left) in left.iter_mut().enumerate() {
        // SAFETY: a has the row.
        *left = unsafe { row_of(a, i + row, k) }.as_chunks::<LANES>();
    }
    for (col, right) in right.iter_mut().enumerate() {
        // SAFETY: b has the row.
        *right = unsafe { row_of(b, j + col, k) }.as_chunks::<LANES>();
    }
    let mut sums = [[v.splat(0.0); C]; R];
    for l in 0..k / LANES {
        let mut columns = [v.splat(0.0); C];
        for (lanes, (right, _)) in columns.iter_mut().zip(&right) {
            // SAFETY: l < k / 8, which is the number of whole vectors of each row.
            *lanes = v.read(unsafe { right.get_unchecked(l) });
        }
        for (sums, (left, _)) in sums.iter_mut().zip(&left) {
            // SAFETY: as above.
            let left = v.read(unsafe { left.get_unchecked(l) });
            for (sum, &right) in sums.iter_mut().zip(&columns) {
                *sum = v.mul_add(left, right, *sum);
            }
        }
    }
    for (row, (sums, (_, left))) in sums.iter().zip(&left).enumerate() {
        for (col, (&sum, (_, right))) in sums.iter().zip(&right).enumerate() {
            let mut sum = v.sum_of_lanes(sum);
            for (left, &right) in left.iter().zip(*right) {
                sum = left.mul_add(right, sum);
            }
            // SAFETY: c has the tile.
            unsafe { *c.data.get_unchecked_mut((i + row) * c.stride + j + col) = sum };
        }
    }
    C
}

// ---- matrix products ----------------------------------------------------------------------------

/// Rows of `b` that are copied into a panel at a time.
const PANEL_ROWS: usize = 128;
/// Columns of a panel: two vectors.
const PANEL_COLS: usize = 2 * LANES;
/// From this many rows of `a` on, copying a panel pays: rows of `b` lie a power of two apart as a
/// rule, so that a column of them falls into a few sets of the first-level cache.
const PANEL_USES_MIN: usize = 12;
/// Rows of `b` taken at a time by few rows of `a`: long contiguous reads, so that the prefetcher
/// keeps up.
const STREAMED_ROWS: usize = 8;

/// Sums are carried in `c` from one block of k to the next, which changes no bit: they are f32 in
/// registers too.
#[inline(always)]
pub(crate) fn matmul_add<V: Vector>(v: V, dims: Dims, a: Rows<'_>, b: Rows<'_>, c: &mut RowsMut<'_>) {
    if dims.m == 0 || dims.n == 0 {
        return;
    }
    if dims.m >= PANEL_USES_MIN {
        return matmul_add_packed(v, dims, (a, b), c);
    }
    let block = if dims.m < 4 { dims.k.max(1) } else { STREAMED_ROWS };
    for l in (0..dims.k).step_by(block) {
        let dims = Dims { k: block.min(dims.k - l), ..dims };
        let a = Rows { data: &a.data[l..], ..a };
        let b = Rows { data: &b.data[l * b.stride..], ..b };
        matmul_block(v, dims, (a, b), c);
    }
}

#[inline(always)]
fn matmul_add_packed<V: Vector>(v: V, dims: Dims, (a, b): (Rows<'_>, Rows<'_>), c: &mut RowsMut<'_>) {
    let mut panel = [0.0_f32; PANEL_ROWS * PANEL_COLS];
    for l in (0..dims.k).step_by(PANEL_ROWS) {
        let k = PANEL_ROWS.min(dims.k - l);
        let a = Rows { data: &a.data[l..], ..a };
        let mut j = 0;
        while j < dims.n {
            let mut n = dims.n - j;
            let mut b = Rows { data: &b.data[l * b.stride + j..], ..b };
            if n >= PANEL_COLS {
                n = PANEL_COLS;
                copy_panel(b, k, &mut panel);
                b = Rows { data: &panel, stride: PANEL_COLS };
            }
            // One call for either, because it is compiled into this function.
            let mut c = RowsMut { data: &mut c.data[j..], stride: c.stride };
            matmul_block(v, Dims { n, k, ..dims }, (a, b), &mut c);
            j += n;
        }
    }
}

/// The first `k` rows of `b`, as far as a panel is wide.
#[inline(always)]
fn copy_panel(b: Rows<'_>, k: usize, panel: &mut [f32; PANEL_ROWS * PANEL_COLS]) {
    for (l, row) in panel.as_chunks_mut::<PANEL_COLS>().0.iter_mut().take(k).enumerate() {
        row.copy_from_slice(&b.data[l * b.stride..][..PANEL_COLS]);
    }
}

/// `c += a b`, all of k at once.
#[inline(always)]
fn matmul_block<V: Vector>(v: V, dims: Dims, (a, b): (Rows<'_>, Rows<'_>), c: &mut RowsMut<'_>) {
    a.check(dims.m, dims.k);
    b.check(dims.k, dims.n);
    c.check(dims.m, dims.n);
    let tall = dims.m / 4 * 4;
    let mut j = 0;
    while tall > 0 && dims.n - j >= LANES {
        let wide = dims.n - j >= 2 * LANES;
        for i in (0..tall).step_by(4) {
            // SAFETY: i + 4 <= m and the columns are inside n; the matrices have been checked.
            unsafe {
                match wide {
                    true => matmul_tile::<V, 4, 2>(v, dims.k, (i, j), (a, b), c),
                    false => matmul_tile::<V, 4, 1>(v, dims.k, (i, j), (a, b), c),
                };
            }
        }
        j += if wide { 2 * LANES } else { LANES };
    }
    let whole = dims.n / LANES * LANES;
    for i in tall..dims.m {
        let mut j = 0;
        while j < whole {
            // SAFETY: i < m and the columns are inside n; the matrices have been checked.
            j += unsafe {
                match whole - j {
                    64.. => matmul_tile::<V, 1, 8>(v, dims.k, (i, j), (a, b), c),
                    16.. => matmul_tile::<V, 1, 2>(v, dims.k, (i, j), (a, b), c),
                    _ => matmul_tile::<V, 1, 1>(v, dims.k, (i, j), (a, b), c),
                }
            };
        }
    }
    for i in 0..dims.m {
        for j in whole..dims.n {
            matmul_one(dims.k, (i, j), (a, b), c);
        }
    }
}

/// `c[i..i + R][j..j + 8 C] += a b`; returns `8 C`.
///
/// # Safety
/// a has rows i..i + R of k elements, b k rows with columns j..j + 8 C, and c has the tile.
#[inline(always)]
unsafe fn matmul_tile<V: Vector, const R: usize, const C: usize>(
    v: V,
    k: usize,
    (i, j): (usize, usize),
    (a, b): (Rows<'_>, Rows<'_>),
    c: &mut RowsMut<'_>,
) -> usize {
    let width = LANES * C;
    let mut left = [&[][..]; R];
    for (row, left) in left.iter_mut().enumerate() {
        // SAFETY: a has the row.
        *left = unsafe { row_of(a, i + row, k) };
    }
    let mut sums = [[v.splat(0.0); C]; R];
    for (row, sums) in sums.iter_mut().enumerate() {
        let start = (i + row) * c.stride + j;
        // SAFETY: c has the tile.
        let before = unsafe { c.data.get_unchecked(start..start + width) };
        for (sum, lanes) in sums.iter_mut().zip(before.as_chunks().0) {
            *sum = v.read(lanes);
        }
    }
    for l in 0..k {
        let start = l * b.stride + j;
        // SAFETY: l < k, and b has k rows with these columns.
        let columns = unsafe { b.data.get_unchecked(start..start + width) };
        let mut right = [v.splat(0.0); C];
        for (right, lanes) in right.iter_mut().zip(columns.as_chunks().0) {
            *right = v.read(lanes);
        }
        for (sums, left) in sums.iter_mut().zip(&left) {
            // SAFETY: l < k, the length of the rows.
            let left = v.splat(unsafe { *left.get_unchecked(l) });
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = v.mul_add(left, right, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let start = (i + row) * c.stride + j;
        // SAFETY: c has the tile.
        let after = unsafe { c.data.get_unchecked_mut(start..start + width) };
        for (&sum, lanes) in sums.iter().zip(after.as_chunks_mut().0) {
            v.write(sum, lanes);
        }
    }
    width
}

/// `c[i][j] += a[i] b[..][j]`.
#[inline(always)]
fn matmul_one(k: usize, (i, j): (usize, usize), (a, b): (Rows<'_>, Rows<'_>), c: &mut RowsMut<'_>) {
    let sum = &mut c.data[i * c.stride + j];
    for (l, left) in a.row(i, k).iter().enumerate() {
        *sum = left.mul_add(b.data[l * b.stride + j], *sum);
    }
}

// ---- the delta rule -----------------------------------------------------------------------------

/// See `F32Ops::state_step`. The state is [k.len(), d.len()].
#[inline(always)]
pub(crate) fn state_step<V: Vector>(
    v: V,
    state: &mut [f32],
    decay: f32,
    k: &[f32],
    q: &[f32],
    d: &[f32],
    out: &mut [f32],
) {
    let width = d.len();
    let mut j = 0;
    while width - j >= LANES {
        j += match width - j {
            32.. => state_columns::<V, 4>(v, state, j, decay, (k, q), (d, out)),
            _ => state_columns::<V, 1>(v, state, j, decay, (k, q), (d, out)),
        };
    }
    for j in j..width {
        let mut sum = 0.0_f32;
        for ((row, &k), &q) in state.chunks_exact_mut(width).zip(k).zip(q) {
            row[j] = k.mul_add(d[j], decay * row[j]);
            sum = q.mul_add(row[j], sum);
        }
        out[j] = sum;
    }
}

/// [`state_step`] for columns `j..j + 8 C`; returns `8 C`.
#[inline(always)]
fn state_columns<V: Vector, const C: usize>(
    v: V,
    state: &mut [f32],
    j: usize,
    decay: f32,
    (k, q): (&[f32], &[f32]),
    (d, out): (&[f32], &mut [f32]),
) -> usize {
    let decay = v.splat(decay);
    let mut sums = [v.splat(0.0); C];
    let mut written = [v.splat(0.0); C];
    for (at, written) in written.iter_mut().enumerate() {
        *written = load(v, d, j + at * LANES);
    }
    for ((row, &k), &q) in state.chunks_exact_mut(d.len()).zip(k).zip(q) {
        let (k, q) = (v.splat(k), v.splat(q));
        let columns = row[j..][..LANES * C].as_chunks_mut().0;
        for ((lanes, sum), &written) in columns.iter_mut().zip(&mut sums).zip(&written) {
            let new = v.mul_add(k, written, v.mul(decay, v.read(lanes)));
            v.write(new, lanes);
            *sum = v.mul_add(q, new, *sum);
        }
    }
    for (at, &sum) in sums.iter().enumerate() {
        store(v, out, j + at * LANES, sum);
    }
    LANES * C
}
