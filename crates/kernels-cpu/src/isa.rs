//! The instruction sets by name.

use std::fmt;

/// Which instruction set the kernels use.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 (F, BW, VL, VBMI, VNNI) and GFNI on top of [`Isa::Avx2`]: Ice Lake, Zen 4
    /// and what followed them. No processor is known that has GFNI and VNNI in 512 bits without VBMI;
    /// a machine that lacks any of them counts as [`Isa::Avx2`]. What gains nothing runs as there.
    Avx512,
    /// 64-bit ARM with NEON, which is all of them.
    Neon,
    /// 64-bit ARM with the dot product instruction (`sdot`) on top of [`Isa::Neon`]: most of
    /// ARMv8.2, all of ARMv8.4 and what followed. Among them Apple's from the A13 and M1 on,
    /// Cortex-A55, A75, A76 and Neoverse N1.
    NeonDotprod,
}

impl Isa {
    /// Every instruction set, the slowest of each architecture first.
    pub const ALL: &[Isa] = &[Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Neon, Isa::NeonDotprod];

    /// Its name in lower case, as users write it (`--isa`).
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
        }
    }

    /// The instruction set of that name, if there is one.
    pub fn parse(name: &str) -> Option<Isa> {
        Isa::ALL.iter().copied().find(|isa| isa.name() == name)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The machine does not have an instruction set that was asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine does not have the instruction set {isa}")]
pub struct MissingIsa {
    /// The one that was asked for.
    pub isa: Isa,
}
