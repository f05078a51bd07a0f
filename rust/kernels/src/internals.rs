//! Inner parts of the kernels that the tests of this crate compare with definitions of their own. The tests are a crate of
//! their own (`tests/kernels`), linked with this one as it is used, so that the kernels are compiled once and what is tested
//! is what runs. Nothing else may use this module.

/// Of the attention: the rounding of keys and values, the width of its work, and when selected keys are copied.
pub mod attention {
    pub use crate::attention::copies::worth_copying;
    pub use crate::attention::pages::{BLOCK, quantize};
    pub use crate::attention::scores::CHUNK;
}

/// Of the backward pass.
pub mod backward {
    pub use crate::backward::attention::softmax::logarithm;
}

/// Of the evaluation: the log-probabilities that a record keeps.
pub mod evaluation {
    pub use crate::evaluation::KEPT_RANGE;
}

/// Of the formats: how blocks are read, packed and compressed.
pub mod formats {
    pub use crate::formats::blocks::Blocks;
    pub use crate::formats::compression::Compression;
    pub use crate::formats::decompress::digit;
    pub use crate::formats::i_quants::{Iq1M, Iq1S, Iq2S, Iq2Xs, Iq2Xxs, Iq3S, Iq3Xxs};
    pub use crate::formats::layout::{Packing, Unpacked};
    pub use crate::formats::nvfp4::half_of_e4m3;
    pub use crate::formats::pack::{Layout, pack_group};
    pub use crate::formats::ternary::{Tq1_0, Tq2_0};
}

/// Of the mapping of files: the ways to map one.
pub mod mapping {
    #[cfg(unix)]
    pub use crate::mapping::pages::page_size;
    pub use crate::mapping::{Mapper, private, shared};
}

/// Sixteen lanes and the functions built from them.
pub mod math {
    pub use crate::math::fused::software_fma;
    pub use crate::math::{
        Kernel, LANES, Lanes, MAGIC, dispatch, exp, exp2, float_to_half, fma, half_to_float, ln, power, silu,
        sine_and_cosine,
    };
}

/// Of the matrix products: activations, and the division of tokens into tiles.
pub mod matmul {
    pub use crate::matmul::activations::{Activations, Blocks, Needs, Variant, quantize_blocks};
    pub use crate::matmul::dispatch::float_tiles;
    pub use crate::matmul::spans::{direct_spans, even_spans};
}

/// Of the memory that is kept for allocations that cannot fail.
pub mod memory {
    pub use crate::memory::reserve::{LARGEST, NEEDED, RESERVE, Reserve, fallible};
}

/// Of the threads: their number, and where they run.
#[cfg(target_os = "linux")]
pub mod threads {
    pub use crate::threads::count::linux::{affinity as allowed_processors, choose, parse};
    #[cfg(not(miri))]
    pub use crate::threads::placement::linux::{Placement, UNKNOWN, affinity, current_processor, same, set_affinity};
}

/// The units that multiply tiles.
#[cfg(target_arch = "x86_64")]
pub mod tiles {
    pub use crate::tiles::amx::correct;
    pub use crate::tiles::{
        ACTIVATION_STRIDE, Amx, Configuration, SUM_STRIDE, Software, TOKENS, Tiles, WEIGHT_STRIDE, usable,
    };
}
