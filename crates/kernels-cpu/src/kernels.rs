//! The kernels of one instruction set, chosen once: all dispatch is here.

use std::fmt;

#[cfg(target_arch = "aarch64")]
use crate::arch::aarch64::neon::{Neon, NeonDotprod};
#[cfg(target_arch = "x86_64")]
use crate::arch::x86_64::{avx2::Avx2, avx512::Avx512};
use crate::dot::job::Job;
use crate::dot::quantise::{self, Sums};
use crate::isa::{Isa, MissingIsa};

/// The kernels of one instruction set. Having one is the proof that the machine has the
/// instructions, so nothing is checked again when a kernel is called.
#[derive(Copy, Clone)]
pub struct Kernels(Set);

/// Each variant holds the proof of its instruction set.
#[derive(Copy, Clone)]
pub(crate) enum Set {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(NeonDotprod),
}

impl Isa {
    /// The best instruction set of this machine. It does not change while the process lives.
    pub fn detect() -> Isa {
        Kernels::best().isa()
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        Kernels::new(self).is_ok()
    }
}

impl Kernels {
    /// The kernels for `isa`.
    ///
    /// # Errors
    /// If the machine does not have it.
    pub fn new(isa: Isa) -> Result<Kernels, MissingIsa> {
        let set = match isa {
            Isa::Scalar => Some(Set::Scalar),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::new().map(Set::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::new().map(Set::Avx512),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => None,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::new().map(Set::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => NeonDotprod::new().map(Set::NeonDotprod),
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDotprod => None,
        };
        set.map(Kernels).ok_or(MissingIsa { isa })
    }

    /// Portable Rust, which every machine has.
    pub fn scalar() -> Kernels {
        Kernels(Set::Scalar)
    }

    /// The best that this machine has.
    pub fn best() -> Kernels {
        Kernels::all().last().unwrap_or(Kernels::scalar())
    }

    /// All that this machine has, the slowest first.
    pub fn all() -> impl Iterator<Item = Kernels> {
        Isa::ALL.iter().filter_map(|&isa| Kernels::new(isa).ok())
    }

    /// Their instruction set.
    pub fn isa(self) -> Isa {
        match self.0 {
            Set::Scalar => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "aarch64")]
            Set::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "aarch64")]
            Set::NeonDotprod(_) => Isa::NeonDotprod,
        }
    }

    pub(crate) fn set(self) -> Set {
        self.0
    }

    /// Computes all products of the job: `out` is [rows, n].
    pub(crate) fn mul_rows(self, job: &Job<'_>, out: &mut [f32]) {
        match self.0 {
            Set::Scalar => crate::dot::scalar::mul_rows(job, out),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(avx2) => avx2.mul_rows(job, out),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(avx512) => avx512.mul_rows(job, out),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(neon) => neon.mul_rows(job, out),
            #[cfg(target_arch = "aarch64")]
            Set::NeonDotprod(dotprod) => dotprod.mul_rows(job, out),
        }
    }

    /// Quantises one row of activations.
    pub(crate) fn quantise_row(self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: Sums<'_>) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(avx2) => avx2.quantise_row(x, codes, scales, sums),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(avx512) => avx512.avx2().quantise_row(x, codes, scales, sums),
            // NEON is what the compiler uses on 64-bit ARM anyway.
            _ => quantise::quantise_row(x, codes, scales, sums),
        }
    }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kernels").field(&self.isa()).finish()
    }
}

/// Calls an f32 loop of the kernels.
macro_rules! dispatch_f32 {
    ($kernels:ident, $name:ident($($argument:expr),*)) => {
        match $kernels.set() {
            $crate::kernels::Set::Scalar => $crate::f32_ops::scalar::$name($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Set::Avx2(avx2) => avx2.$name($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::Set::Avx512(avx512) => avx512.avx2().$name($($argument),*),
            #[cfg(target_arch = "aarch64")]
            $crate::kernels::Set::Neon(neon) => neon.$name($($argument),*),
            #[cfg(target_arch = "aarch64")]
            $crate::kernels::Set::NeonDotprod(dotprod) => dotprod.neon().$name($($argument),*),
        }
    };
}
pub(crate) use dispatch_f32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_set_is_there_or_refused() {
        for &isa in Isa::ALL {
            match Kernels::new(isa) {
                Ok(kernels) => assert_eq!(kernels.isa(), isa),
                Err(missing) => assert_eq!(missing, MissingIsa { isa }),
            }
        }
        let foreign = if cfg!(target_arch = "x86_64") { Isa::Neon } else { Isa::Avx2 };
        assert!(Kernels::new(foreign).is_err());
        assert_eq!(Kernels::all().next().map(Kernels::isa), Some(Isa::Scalar));
        assert_eq!(Kernels::best().isa(), Isa::detect());
    }
}
