//! Instruction sets: detected once, chosen at run time, forced by `LLAMACPU_ISA`.

use std::sync::OnceLock;

use crate::Error;

/// The kinds of kernels that exist, from the slowest to the fastest of each processor family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Portable Rust, compiled for the baseline of the target.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit VEX form of VNNI.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// Arm NEON with the dot product extension.
    NeonDot,
    /// Arm NEON with the 8-bit matrix extension.
    NeonI8mm,
}

/// An instruction set that this processor has: a value exists only if detection has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Kind);

impl Isa {
    /// Portable code; always available.
    pub const SCALAR: Self = Self(Kind::Scalar);

    /// The kind, to select a kernel. Code may rely on the processor having it.
    pub const fn kind(self) -> Kind {
        self.0
    }

    /// The name that `LLAMACPU_ISA` takes.
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            Kind::Avx2 => "avx2",
            Kind::AvxVnni => "avxvnni",
            Kind::Avx512 => "avx512",
            Kind::NeonDot => "neon",
            Kind::NeonI8mm => "i8mm",
        }
    }

    /// Every instruction set of this processor, slowest first.
    pub fn available() -> &'static [Self] {
        static SETS: OnceLock<Vec<Isa>> = OnceLock::new();
        SETS.get_or_init(detect)
    }

    /// The set to use: the fastest, or the one that `LLAMACPU_ISA` names.
    pub fn chosen() -> Result<Self, Error> {
        match std::env::var("LLAMACPU_ISA") {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(*Self::available().last().unwrap_or(&Self::SCALAR)),
        }
    }

    /// The available set of that name.
    pub fn named(name: &str) -> Result<Self, Error> {
        let found = Self::available().iter().find(|isa| isa.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::available().iter().map(|isa| isa.name()).collect();
            Error::Unsupported(format!(
                "instruction set {name:?} is not available here; this processor has {}; unset LLAMACPU_ISA to choose the fastest",
                names.join(", ")
            ))
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Vec<Isa> {
    let mut sets = vec![Isa::SCALAR];
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        sets.push(Isa(Kind::Avx2));
        if is_x86_feature_detected!("avxvnni") {
            sets.push(Isa(Kind::AvxVnni));
        }
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            sets.push(Isa(Kind::Avx512));
        }
    }
    sets
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Vec<Isa> {
    let mut sets = vec![Isa::SCALAR];
    if std::arch::is_aarch64_feature_detected!("dotprod") {
        sets.push(Isa(Kind::NeonDot));
        if std::arch::is_aarch64_feature_detected!("i8mm") {
            sets.push(Isa(Kind::NeonI8mm));
        }
    }
    sets
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Vec<Isa> {
    vec![Isa::SCALAR]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_is_found_by_its_name() {
        let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        assert_eq!(Isa::available()[0], Isa::SCALAR);
        for isa in Isa::available() {
            assert_eq!(Isa::named(isa.name()).unwrap(), *isa);
        }
        let error = Isa::named("mmx").unwrap_err().to_string();
        assert!(error.contains("mmx") && error.contains(&names.join(", ")), "{error}");
        // Where the processor is known because it is emulated.
        if let Ok(expected) = std::env::var("LLAMACPU_EXPECTED_ISAS") {
            assert_eq!(names.join(", "), expected);
        }
    }
}
