//! Instruction sets: sets of features, detected once and selected at run time, by name through `LLAMACPU_ISA`.

pub(crate) mod sets;

use std::fmt;

use crate::Error;
use crate::processes::Published;

/// Instructions that kernels use beyond the baseline of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// AVX2 with FMA and F16C.
    Avx2,
    /// The 256-bit VEX form of VNNI.
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AVX-512 VBMI: lookups in byte tables.
    Avx512Vbmi,
    /// AMX: products of tiles of bytes, which the system permits.
    AmxInt8,
    /// Tiles in software, which every processor has: for tests of what runs on AMX.
    SoftwareTiles,
    /// Arm NEON with the dot product extension.
    DotProduct,
    /// Arm NEON with the 8-bit matrix extension.
    I8mm,
}

impl Feature {
    /// Every feature, in the order in which lists of them are printed.
    pub const ALL: [Self; 8] = [
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vbmi,
        Self::AmxInt8,
        Self::SoftwareTiles,
        Self::DotProduct,
        Self::I8mm,
    ];

    /// Its name in messages and in `LLAMACPU_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vbmi => "avx512vbmi",
            Self::AmxInt8 => "amx-int8",
            Self::SoftwareTiles => "software-tiles",
            Self::DotProduct => "dotprod",
            Self::I8mm => "i8mm",
        }
    }

    /// Queries the processor (and the operating system, which has to save the registers).
    fn detected(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return match self {
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            Self::AvxVnni => is_x86_feature_detected!("avxvnni"),
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx512Vbmi => is_x86_feature_detected!("avx512vbmi"),
            Self::AmxInt8 => crate::tiles::usable(),
            Self::SoftwareTiles => true,
            Self::DotProduct | Self::I8mm => false,
        };
        #[cfg(target_arch = "aarch64")]
        return match self {
            Self::DotProduct => std::arch::is_aarch64_feature_detected!("dotprod"),
            Self::I8mm => std::arch::is_aarch64_feature_detected!("i8mm"),
            _ => false,
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        false
    }
}

/// A set of features, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Features(u8);

impl Features {
    const NONE: Self = Self(0);

    const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u32 & 1 == 1
    }

    const fn with(self, feature: Feature) -> Self {
        Self(self.0 | 1 << feature as u32)
    }

    const fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u32))
    }

    /// The features of the processor.
    fn detected() -> Self {
        let found = Feature::ALL.into_iter().filter(|feature| feature.detected());
        found.fold(Self::NONE, Self::with)
    }
}

/// A name that `LLAMACPU_ISA` accepts, and its features.
struct Named {
    name: &'static str,
    /// Features that the processor must have.
    required: &'static [Feature],
    /// Further features that are used if the processor has them.
    optional: &'static [Feature],
}

/// Every name, from slowest to fastest within each processor family.
static NAMED: [Named; 8] = [
    Named { name: SCALAR, required: &[], optional: &[] },
    Named { name: "amx-software", required: &[Feature::SoftwareTiles], optional: &[Feature::Avx2, Feature::Avx512] },
    Named { name: "avx2", required: &[Feature::Avx2], optional: &[] },
    Named { name: "avxvnni", required: &[Feature::Avx2, Feature::AvxVnni], optional: &[] },
    Named { name: "avx512", required: &[Feature::Avx2, Feature::Avx512], optional: &[Feature::Avx512Vbmi] },
    Named {
        name: "amx",
        required: &[Feature::Avx2, Feature::Avx512, Feature::AmxInt8],
        optional: &[Feature::Avx512Vbmi],
    },
    Named { name: "neon", required: &[Feature::DotProduct], optional: &[] },
    Named { name: "i8mm", required: &[Feature::DotProduct, Feature::I8mm], optional: &[] },
];

const SCALAR: &str = "scalar";

/// A set of features that this processor has: it contains only features that were detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa {
    name: &'static str,
    features: Features,
}

impl Isa {
    /// Portable code; always available.
    pub const SCALAR: Self = Self { name: SCALAR, features: Features::NONE };

    /// The first part of the name that `LLAMACPU_ISA` accepts; `Display` writes all of it.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Whether the feature is in the set. If so, code may rely on the processor having it.
    pub const fn has(self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// The features of the set.
    pub fn features(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.into_iter().filter(move |feature| self.has(*feature))
    }

    /// The features of this processor, regardless of the selected set.
    pub fn detected() -> impl Iterator<Item = Feature> {
        let found = Self::found();
        Feature::ALL.into_iter().filter(move |feature| found.has(*feature))
    }

    /// Every named instruction set of this processor, slowest first, each with all optional features that are available.
    pub fn available() -> &'static [Self] {
        static SETS: Published<Vec<Isa>> = Published::new();
        SETS.get_or_set(|| NAMED.iter().filter_map(|named| Self::of(named, Self::found())).collect())
    }

    /// Every set that can be selected: those of `available`, and the same without optional features.
    pub fn all() -> Vec<Self> {
        let mut sets = Vec::new();
        for isa in Self::available() {
            let less = Self::optional(isa.name).iter().filter(|feature| isa.has(**feature));
            sets.extend(less.map(|feature| Self { features: isa.features.without(*feature), ..*isa }));
            sets.push(*isa);
        }
        sets
    }

    /// The set to use: the one that `LLAMACPU_ISA` names, otherwise the fastest.
    pub fn chosen() -> Result<Self, Error> {
        match std::env::var("LLAMACPU_ISA") {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(*Self::available().last().unwrap_or(&Self::SCALAR)),
        }
    }

    /// The available set of that name, minus the optional features listed after it, as in `avx512,-avx512vbmi`.
    pub fn named(name: &str) -> Result<Self, Error> {
        let mut words = name.split(',');
        let first = words.next().unwrap_or_default();
        let found = Self::available().iter().find(|isa| isa.name == first);
        let mut isa = *found.ok_or_else(|| {
            let names: Vec<_> = Self::available().iter().map(|isa| isa.name).collect();
            Error::Unsupported(format!(
                "instruction set {first:?} is not available here; this processor has {}; unset LLAMACPU_ISA to choose the fastest",
                names.join(", ")
            ))
        })?;
        for word in words {
            let optional = Self::optional(first);
            let feature = optional.iter().find(|feature| word.strip_prefix('-') == Some(feature.name()));
            isa.features = isa.features.without(*feature.ok_or_else(|| {
                let names: Vec<_> = optional.iter().map(|feature| format!("-{}", feature.name())).collect();
                Error::Unsupported(format!(
                    "{word:?} cannot follow the instruction set {first:?}; expected {}",
                    if names.is_empty() {
                        "nothing, since it has no optional feature".into()
                    } else {
                        names.join(" or ")
                    }
                ))
            })?);
        }
        Ok(isa)
    }

    /// AMX without asking for it, where the processor has what else the set needs: for tests that emulate its instructions.
    ///
    /// # Safety
    /// The process emulates the instructions of AMX before it uses the set, or the processor has them.
    #[doc(hidden)]
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub unsafe fn emulated_amx() -> Option<Self> {
        NAMED
            .iter()
            .find(|named| named.name == "amx")
            .and_then(|named| Self::of(named, Self::found().with(Feature::AmxInt8)))
    }

    /// Names and features of the sets that a processor with these features would have.
    #[doc(hidden)]
    pub fn sets_with(features: &[Feature]) -> Vec<(&'static str, Vec<Feature>)> {
        let found = features.iter().copied().fold(Features::NONE, Features::with);
        let sets = NAMED.iter().filter_map(|named| Self::of(named, found));
        sets.map(|isa| (isa.name, isa.features().collect())).collect()
    }

    fn found() -> Features {
        static FOUND: Published<Features> = Published::new();
        *FOUND.get_or_set(Features::detected)
    }

    /// The set of that name on a processor with these features.
    fn of(named: &Named, found: Features) -> Option<Self> {
        if !named.required.iter().all(|feature| found.has(*feature)) {
            return None;
        }
        let optional = named.optional.iter().filter(|feature| found.has(**feature));
        let features = named.required.iter().chain(optional).copied().fold(Features::NONE, Features::with);
        Some(Self { name: named.name, features })
    }

    fn optional(name: &str) -> &'static [Feature] {
        NAMED.iter().find(|named| named.name == name).map_or(&[], |named| named.optional)
    }
}

/// In the form that `LLAMACPU_ISA` accepts: the name, and the available optional features that are left out.
impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)?;
        for feature in Self::optional(self.name) {
            if Self::found().has(*feature) && !self.has(*feature) {
                write!(formatter, ",-{}", feature.name())?;
            }
        }
        Ok(())
    }
}
