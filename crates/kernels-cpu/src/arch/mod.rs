//! Intrinsics, one folder per architecture. Nothing outside this module uses any.

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

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod generic;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod vector;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
