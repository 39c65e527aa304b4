//! AVX2 and FMA, and AVX-512 where it gains.

/// An array whose element i is `$element`. A loop, not `array::from_fn` or `map`: a closure with
/// target features is not always inlined into those, which halved the speed of q5_K.
macro_rules! fill {
    ([$zero:expr; $n:expr], $i:ident => $element:expr) => {{
        let mut all = [$zero; $n];
        for ($i, element) in all.iter_mut().enumerate() {
            *element = $element;
        }
        all
    }};
}

pub(crate) mod avx2_dot;
mod avx2_signed;
pub(crate) mod avx512_dot;
mod avx512_signed;
pub(crate) mod f32_ops;
