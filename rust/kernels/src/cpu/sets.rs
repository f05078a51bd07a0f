//! Instruction sets as types: code is compiled once for each, and a value is proof that the processor has it.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::Feature;
use super::Isa;

/// Work that is compiled for an instruction set by [`InstructionSet::call`].
pub trait Code {
    /// The result of the work.
    type Output;
    /// Does the work. Mark it and everything it calls `#[inline(always)]`; otherwise it is compiled for the baseline.
    fn run(self) -> Self::Output;
}

/// Work for a table of functions: see [`InstructionSet::entry`].
///
/// # Safety
/// `run` reads and writes only what its own contract with the caller allows, on a processor that has the set that it is
/// compiled for.
pub unsafe trait Entry {
    /// The operands of the work.
    type Operands;
    /// The result of the work.
    type Output;
    /// Does the work. Mark it and everything it calls `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the set that this is compiled for; the operands meet the requirements of the implementation.
    unsafe fn run(operands: &Self::Operands) -> Self::Output;
}

/// A set of features that code is compiled for. Its values are zero-cost tokens.
///
/// # Safety
/// `of` returns a token only if all features that `call` and `entry` enable are in the `Isa`, and safe code cannot get one in
/// any other way.
pub unsafe trait InstructionSet: Copy + Send + Sync + 'static {
    /// The token, if this set is part of `isa`.
    fn of(isa: Isa) -> Option<Self>;

    /// The token, without a check.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn assume() -> Self;

    /// Runs the work, compiled for this set.
    fn call<C: Code>(self, code: C) -> C::Output;

    /// The work as a function, compiled for this set.
    ///
    /// # Safety
    /// The processor has this set; as for [`Entry::run`].
    unsafe fn entry<E: Entry>(operands: &E::Operands) -> E::Output;
}

/// Defines a set: its type name, its features, and the compiler's names for them.
macro_rules! instruction_set {
    ($(#[$documentation:meta])* $set:ident, [$($feature:ident),*] $(, $enabled:literal)?) => {
        $(#[$documentation])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $set(());

        // SAFETY: the field is private to this module, where `of` alone fills it, after it has seen the features, whose
        // detection asks for everything that is enabled here.
        unsafe impl InstructionSet for $set {
            #[inline(always)]
            fn of(isa: Isa) -> Option<Self> {
                let _ = isa;
                (true $(&& isa.has(Feature::$feature))*).then_some(Self(()))
            }

            #[inline(always)]
            unsafe fn assume() -> Self {
                Self(())
            }

            #[inline(always)]
            fn call<C: Code>(self, code: C) -> C::Output {
                // Work that other work calls is compiled once, rather than once more inside each caller.
                #[inline(never)]
                $(#[target_feature(enable = $enabled)])?
                unsafe fn compiled<C: Code>(code: C) -> C::Output {
                    code.run()
                }
                // SAFETY: a token exists only where the processor has the features.
                unsafe { compiled(code) }
            }

            $(#[target_feature(enable = $enabled)])?
            unsafe fn entry<E: Entry>(operands: &E::Operands) -> E::Output {
                // SAFETY: the caller promises the set and the operands.
                unsafe { E::run(operands) }
            }
        }
    };
}

instruction_set!(
    /// Portable code, compiled for the baseline of the target.
    Scalar, []
);

impl Scalar {
    /// The token, which is valid on every processor.
    pub(crate) const TOKEN: Self = Self(());
}

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// AVX2 with FMA and F16C.
    Avx2, [Avx2], "avx2,fma,f16c"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// AVX2 with the 256-bit VEX form of VNNI.
    AvxVnni, [Avx2, AvxVnni], "avx2,fma,f16c,avxvnni"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// AVX-512 F, BW, DQ, VL and VNNI, with AVX2, FMA and F16C.
    Avx512, [Avx2, Avx512], "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// The same with VBMI.
    Avx512Vbmi, [Avx2, Avx512, Avx512Vbmi], "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// AVX-512 with the tiles of AMX, whose instructions the compiler need not know.
    Amx, [Avx2, Avx512, AmxInt8], "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// The same with tiles in software.
    SoftwareTilesAvx512, [Avx2, Avx512, SoftwareTiles], "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
);

#[cfg(target_arch = "x86_64")]
instruction_set!(
    /// Portable code with tiles in software.
    SoftwareTiles, [SoftwareTiles]
);

#[cfg(target_arch = "aarch64")]
instruction_set!(
    /// NEON with the dot product extension.
    Neon, [DotProduct], "neon,dotprod"
);

#[cfg(target_arch = "aarch64")]
instruction_set!(
    /// NEON with the dot product and the 8-bit matrix extension.
    I8mm, [DotProduct, I8mm], "neon,dotprod,i8mm"
);
