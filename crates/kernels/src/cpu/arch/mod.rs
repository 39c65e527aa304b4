//! Intrinsics, one folder per architecture. Nothing outside this module uses any.

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;
