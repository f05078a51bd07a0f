//! Settings that are one of a few names.

use crate::settings::Choice;

/// Declares an enumeration and the names of its members.
macro_rules! choices {
    ($($(#[$about:meta])* $name:ident { $($(#[$meaning:meta])* $member:ident = $text:literal,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $name { $($(#[$meaning])* $member,)* }

            impl Choice for $name {
                const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$member),)*];
            }
        )*
    };
}

choices! {
    /// How positions beyond the trained context are scaled; see [`llamacpu_kernels::rope::RopeScaling`].
    RopeScalingKind {
        /// Not at all.
        None = "none",
        /// By a factor.
        Linear = "linear",
        /// By YaRN (arXiv:2309.00071).
        Yarn = "yarn",
        /// By divisors of the frequencies: one set for sessions up to the original context, one for longer ones
        /// (LongRoPE, arXiv:2402.13753).
        LongRope = "longrope",
    }

    /// By which rotation a layer turns its queries and keys.
    Rotation {
        /// None: the layer does not see where tokens stand.
        None = "none",
        /// That of the whole model.
        Global = "global",
        /// The one with a base of its own, which is not scaled.
        Local = "local",
    }

    /// How vectors are normalized.
    NormKind {
        /// By the root of the mean square (arXiv:1910.07467).
        Rms = "rms",
        /// By mean and variance (arXiv:1607.06450).
        Layer = "layer",
    }

    /// Where attention and feed-forward networks have their norms.
    Norms {
        /// On what goes in.
        Before = "before",
        /// On what comes out, before it is added to the residual stream.
        Behind = "behind",
        /// On both.
        Both = "both",
        /// On the residual stream, after what comes out was added to it.
        Stream = "stream",
    }

    /// How queries and keys are normalized.
    QueryKeyNorm {
        /// Not at all.
        None = "none",
        /// Each head by itself, all with the same weights.
        Head = "head",
        /// Each head by itself with weights of its own.
        EachHead = "each_head",
        /// All heads together.
        Width = "width",
        /// Each head by itself, behind the rotation and without weights.
        Unweighted = "unweighted",
    }

    /// Whether feed-forward networks have a gate.
    Gate {
        /// In a matrix of its own.
        Own = "own",
        /// In the first half of the matrix that leads up.
        Fused = "fused",
        /// None.
        None = "none",
    }

    /// The function inside of feed-forward networks.
    Activation {
        /// `x / (1 + exp(-x))`
        Silu = "silu",
        /// The Gaussian error linear unit by its usual approximation with tanh (arXiv:1606.08415).
        GeluTanh = "gelu_tanh",
        /// The same exactly, by the error function.
        Gelu = "gelu",
        /// The hyperbolic tangent.
        Tanh = "tanh",
        /// The square of what is positive (arXiv:2109.08668).
        ReluSquared = "relu_squared",
        /// `(up + 1) · gate / (1 + exp(-1.702 gate))` with a gate of at most 7 and an `up` of -7 to 7 (gpt-oss).
        ClampedSilu = "clamped_silu",
    }

    /// How the router's scores become the weights of the chosen experts.
    ExpertGating {
        /// Softmax over all experts, then the largest (Mixtral).
        Softmax = "softmax",
        /// The logistic function of every score.
        Sigmoid = "sigmoid",
        /// The largest scores, then softmax over these.
        SoftmaxSelected = "softmax_selected",
    }

    /// What makes a group of experts good.
    GroupScore {
        /// Its best expert (DeepSeek-V2, arXiv:2405.04434).
        Best = "best",
        /// Its two best experts together (DeepSeek-V3, arXiv:2412.19437).
        TwoBest = "two_best",
    }
}
