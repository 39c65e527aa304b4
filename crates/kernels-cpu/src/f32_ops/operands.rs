//! What the f32 loops work on: rows of a matrix in a slice, and the shape of a product.

/// Rows of a matrix in a slice: row i starts at `i * stride`.
#[derive(Copy, Clone)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
}

/// Rows to be written.
pub(crate) struct RowsMut<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) stride: usize,
}

/// Shape of a product: `[m, k]` by `[k, n]`.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Dims {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(data: &'a [f32], stride: usize) -> Self {
        Rows { data, stride }
    }

    #[inline(always)]
    pub(crate) fn row(&self, row: usize, len: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..len]
    }

    /// Panics unless `rows` rows of `len` lie inside.
    #[inline(always)]
    pub(crate) fn check(&self, rows: usize, len: usize) {
        check_rows(self.data.len(), self.stride, rows, len);
    }
}

impl<'a> RowsMut<'a> {
    pub(crate) fn new(data: &'a mut [f32], stride: usize) -> Self {
        RowsMut { data, stride }
    }

    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize, len: usize) -> &mut [f32] {
        &mut self.data[row * self.stride..][..len]
    }

    /// Panics unless `rows` rows of `len` lie inside, and do not overlap.
    #[inline(always)]
    pub(crate) fn check(&self, rows: usize, len: usize) {
        check_rows(self.data.len(), self.stride, rows, len);
        assert!(rows <= 1 || len <= self.stride, "rows of {len} at a stride of {}", self.stride);
    }
}

/// Panics unless `rows` rows of `len` elements, `stride` apart, lie inside of `available`.
#[inline(always)]
pub(crate) fn check_rows(available: usize, stride: usize, rows: usize, len: usize) {
    if rows > 0 && len > 0 {
        let end = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(len));
        assert!(
            end.is_some_and(|end| end <= available),
            "{rows} rows of {len}, stride {stride}, in {available}"
        );
    }
}
