//! What a CPU can run: the features it reports (all that kernels are chosen by) and the
//! instruction-set names that specs and profiles use. Each [`Isa`] belongs to exactly one backend.

use crate::program::Width;
use std::fmt;
use std::str::FromStr;

macro_rules! features {
    ($($variant:ident $name:literal $arch:tt $detect:tt;)*) => {
        /// One CPU feature that some kernel needs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Feature { $(#[doc = $name] $variant,)* }

        impl Feature {
            /// Every feature, in order.
            pub const ALL: &'static [Feature] = &[$(Feature::$variant,)*];

            /// The one called `name`.
            pub fn by_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|f| f.name() == name)
            }

            /// The processor family that has it.
            pub const fn arch(self) -> Arch {
                match self { $(Feature::$variant => Arch::called($arch),)* }
            }

            /// The name, as in `/proc/cpuinfo` or the vendor's manual.
            pub const fn name(self) -> &'static str {
                match self { $(Feature::$variant => $name,)* }
            }

            fn detected(self) -> bool {
                match self {
                    $(Feature::$variant => {
                        #[cfg(target_arch = $arch)]
                        { detect!($arch $detect) }
                        #[cfg(not(target_arch = $arch))]
                        { false }
                    })*
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! detect {
    ("x86_64" $f:tt) => {
        std::arch::is_x86_feature_detected!($f)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! detect {
    ("aarch64" $f:tt) => {
        std::arch::is_aarch64_feature_detected!($f)
    };
}
#[cfg(target_arch = "riscv64")]
macro_rules! detect {
    ("riscv64" $f:tt) => {
        cfg!(target_feature = $f)
    };
}

features! {
    Ssse3 "ssse3" "x86_64" "ssse3";
    Sse41 "sse4.1" "x86_64" "sse4.1";
    Avx "avx" "x86_64" "avx";
    Avx2 "avx2" "x86_64" "avx2";
    Fma "fma" "x86_64" "fma";
    AvxVnni "avx_vnni" "x86_64" "avxvnni";
    Avx512F "avx512f" "x86_64" "avx512f";
    Avx512Bw "avx512bw" "x86_64" "avx512bw";
    Avx512Vl "avx512vl" "x86_64" "avx512vl";
    Avx512Vnni "avx512_vnni" "x86_64" "avx512vnni";
    Avx512Vbmi "avx512_vbmi" "x86_64" "avx512vbmi";
    Neon "neon" "aarch64" "neon";
    Dotprod "dotprod" "aarch64" "dotprod";
    I8mm "i8mm" "aarch64" "i8mm";
    V "v" "riscv64" "v";
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features(u32);

impl Features {
    /// None.
    pub const NONE: Features = Features(0);

    /// What this CPU (and its operating system) can run.
    pub fn detect() -> Self {
        Feature::ALL
            .iter()
            .filter(|f| f.detected())
            .copied()
            .collect()
    }

    /// Whether `feature` is in the set.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set without `feature`: to run as a lesser CPU would.
    pub const fn without(self, feature: Feature) -> Self {
        Features(self.0 & !(1 << feature as u32))
    }

    /// This and `other`.
    pub const fn and(self, other: Features) -> Self {
        Features(self.0 | other.0)
    }

    /// What of the set is not in `other`.
    pub const fn beyond(self, other: Features) -> Self {
        Features(self.0 & !other.0)
    }

    /// The features in order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |f| self.has(*f))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, feature) in self.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, feature.name())?;
        }
        Ok(())
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<T: IntoIterator<Item = Feature>>(iter: T) -> Self {
        Features(iter.into_iter().fold(0, |bits, f| bits | 1 << f as u32))
    }
}

impl<const N: usize> From<[Feature; N]> for Features {
    fn from(list: [Feature; N]) -> Self {
        list.into_iter().collect()
    }
}

/// An instruction set that a backend can emit for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// The interpreter: any CPU, slow, the last resort.
    Interp,
    /// x86-64 with SSSE3 and SSE4.1, 128-bit, portable backend.
    Ssse3,
    /// x86-64 with AVX encodings, 128-bit, portable backend.
    Avx128,
    /// x86-64 with a 128-bit `vpdpbusd`, portable backend.
    Vnni128,
    /// x86-64 AVX2, 256-bit.
    Avx2,
    /// x86-64 AVX-VNNI (or AVX-512-VNNI with VL), 256-bit `vpdpbusd`.
    AvxVnni,
    /// x86-64 AVX-512BW, 512-bit, no dot product.
    Avx512Bw,
    /// x86-64 AVX-512-VNNI, 512-bit.
    Avx512Vnni,
    /// x86-64 AVX-512-VNNI and VBMI (byte look-ups in 64 and 128 entries), 512-bit.
    Avx512Vbmi,
    /// aarch64 NEON, portable backend.
    Neon,
    /// aarch64 with SDOT, portable backend.
    Sdot,
    /// aarch64 with USDOT (i8mm), portable backend.
    Usdot,
    /// riscv64 V at 128 bits, portable backend.
    Rvv,
}

/// The processor family of an [`Isa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Any.
    Any,
    /// x86-64.
    X86_64,
    /// aarch64.
    Aarch64,
    /// riscv64.
    Riscv64,
}

impl Arch {
    /// Of the machine that this code was compiled for; [`Arch::Any`] where only the interpreter runs.
    pub const HOST: Arch = if cfg!(target_arch = "x86_64") {
        Arch::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Arch::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Arch::Riscv64
    } else {
        Arch::Any
    };

    /// The one called `name`; any, where it is no name of [`Self::EMITTED`].
    const fn called(name: &str) -> Self {
        match name.as_bytes() {
            b"x86_64" => Arch::X86_64,
            b"aarch64" => Arch::Aarch64,
            b"riscv64" => Arch::Riscv64,
            _ => Arch::Any,
        }
    }

    /// Those that code is emitted for.
    pub const EMITTED: [Arch; 3] = [Arch::X86_64, Arch::Aarch64, Arch::Riscv64];

    /// The name, as in target triples.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Any => "any",
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
            Arch::Riscv64 => "riscv64",
        }
    }
}

impl Isa {
    /// All of them, slow to fast within an architecture.
    pub const ALL: &'static [Isa] = &[
        Isa::Interp,
        Isa::Ssse3,
        Isa::Avx128,
        Isa::Vnni128,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512Bw,
        Isa::Avx512Vnni,
        Isa::Avx512Vbmi,
        Isa::Neon,
        Isa::Sdot,
        Isa::Usdot,
        Isa::Rvv,
    ];

    /// The name in specs and profiles.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Interp => "interp",
            Isa::Ssse3 => "ssse3",
            Isa::Avx128 => "avx128",
            Isa::Vnni128 => "vnni128",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512Bw => "avx512bw",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Avx512Vbmi => "avx512vbmi",
            Isa::Neon => "neon",
            Isa::Sdot => "sdot",
            Isa::Usdot => "usdot",
            Isa::Rvv => "rvv",
        }
    }

    /// The processor family.
    pub const fn arch(self) -> Arch {
        match self {
            Isa::Interp => Arch::Any,
            Isa::Neon | Isa::Sdot | Isa::Usdot => Arch::Aarch64,
            Isa::Rvv => Arch::Riscv64,
            _ => Arch::X86_64,
        }
    }

    /// Vector width of the code.
    pub const fn width(self) -> Width {
        match self {
            Isa::Avx2 | Isa::AvxVnni => Width::W32,
            Isa::Avx512Bw | Isa::Avx512Vnni | Isa::Avx512Vbmi => Width::W64,
            _ => Width::W16,
        }
    }

    /// Vector registers that code may name.
    pub const fn vector_registers(self) -> usize {
        match self.arch() {
            Arch::X86_64 if matches!(self.width(), Width::W64) => 32,
            Arch::X86_64 => 16,
            _ => 32,
        }
    }

    /// Whether `u8·i8` products of four are summed into i32 by one instruction.
    pub const fn has_dot(self) -> bool {
        matches!(
            self,
            Isa::Interp
                | Isa::Vnni128
                | Isa::AvxVnni
                | Isa::Avx512Vnni
                | Isa::Avx512Vbmi
                | Isa::Sdot
                | Isa::Usdot
        )
    }

    /// Whether the unsigned factor of the dot product may be above 127.
    pub const fn dot_reads_u8(self) -> bool {
        self.has_dot() && !matches!(self, Isa::Sdot)
    }

    /// Whether the 64- and 128-entry byte look-ups exist.
    pub const fn has_wide_lut(self) -> bool {
        matches!(self, Isa::Avx512Vbmi)
    }

    /// The features of `cpu` that code emitted for it needs. Where an instruction has two encodings, emitters take the
    /// shorter one that the CPU has.
    pub fn needs(self, cpu: Features) -> Features {
        use Feature::*;
        let dot: Features = match cpu.has(AvxVnni) {
            true => [AvxVnni].into(),
            false => [Avx512F, Avx512Vl, Avx512Vnni].into(),
        };
        let plain: Features = match self {
            Isa::Interp => Features::NONE,
            Isa::Ssse3 => [Ssse3, Sse41].into(),
            Isa::Avx128 => [Ssse3, Sse41, Avx, Avx2].into(),
            Isa::Vnni128 | Isa::Avx2 | Isa::AvxVnni => [Avx, Avx2].into(),
            Isa::Avx512Bw => [Avx2, Avx512F, Avx512Bw].into(),
            Isa::Avx512Vnni => [Avx2, Avx512F, Avx512Bw, Avx512Vnni].into(),
            Isa::Avx512Vbmi => [Avx2, Avx512F, Avx512Bw, Avx512Vnni, Avx512Vbmi].into(),
            Isa::Neon => [Neon].into(),
            Isa::Sdot => [Neon, Dotprod].into(),
            Isa::Usdot => [Neon, Dotprod, I8mm].into(),
            Isa::Rvv => [V].into(),
        };
        match self {
            Isa::Vnni128 | Isa::AvxVnni => plain.and(dot),
            _ => plain,
        }
    }

    /// Whether `cpu` can run the code. `Vnni128` and `AvxVnni` have two encodings each, so this is
    /// no plain set of features.
    pub fn runs_on(self, cpu: Features) -> bool {
        cpu.contains(self.needs(cpu))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instruction-set name that is not in [`Isa::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set {0:?}; known: {known}", known = Isa::ALL.iter().map(|i| i.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownIsa(pub String);

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(s: &str) -> Result<Self, UnknownIsa> {
        Isa::ALL
            .iter()
            .copied()
            .find(|i| i.name() == s)
            .ok_or_else(|| UnknownIsa(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for &isa in Isa::ALL {
            assert_eq!(isa.name().parse::<Isa>(), Ok(isa));
        }
        assert!(
            "avx1024"
                .parse::<Isa>()
                .unwrap_err()
                .to_string()
                .contains("avx512vnni")
        );
    }

    /// What code needs is a set that suffices, and nothing in it can be spared.
    #[test]
    fn code_needs_what_runs_it_and_no_more() {
        let all: Features = Feature::ALL.iter().copied().collect();
        for cpu in [all, all.without(Feature::AvxVnni)] {
            for &isa in Isa::ALL {
                let needs = isa.needs(cpu);
                assert!(isa.runs_on(needs) && isa.needs(needs) == needs, "{isa}");
                for feature in needs.iter() {
                    assert!(!isa.runs_on(needs.without(feature)), "{isa} {feature:?}");
                    assert_eq!(feature.arch(), isa.arch(), "{isa} {feature:?}");
                }
            }
        }
    }

    #[test]
    fn masking_a_feature_removes_what_needs_it() {
        let cpu = Features::detect();
        assert!(!Isa::Avx512Vbmi.runs_on(cpu.without(Feature::Avx512Vbmi)));
        assert!(Isa::Interp.runs_on(Features::NONE));
        assert!(!Isa::Ssse3.runs_on(Features::NONE));
    }
}
