//! Settings that take one of a few names.

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

pub(crate) use choices;

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

    /// Which rotation a layer applies to its queries and keys.
    Rotation {
        /// None: the layer does not see token positions.
        None = "none",
        /// The model's main rotation.
        Global = "global",
        /// The rotation with its own base, which is not scaled.
        Local = "local",
    }

    /// What enters the first layer.
    Input {
        /// The embeddings of tokens.
        Tokens = "tokens",
        /// Rows that a step is given in place of tokens.
        Rows = "rows",
        /// The second halves of such rows; the first layer attends to both halves, each normalized.
        Pairs = "pairs",
        /// A projection of such rows, after each half is normalized.
        ProjectedPairs = "projected_pairs",
    }

    /// Whether states of another model are normalized when rows are made of them.
    StatesNorm {
        /// No.
        None = "none",
        /// Before the matrix.
        Before = "before",
        /// After it.
        Behind = "behind",
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
        /// On the input.
        Before = "before",
        /// On the output, before it is added to the residual stream.
        Behind = "behind",
        /// On both.
        Both = "both",
        /// On the residual stream, after the output has been added to it.
        Stream = "stream",
    }

    /// How queries and keys are normalized.
    QueryKeyNorm {
        /// Not at all.
        None = "none",
        /// Each head by itself, all with the same weights.
        Head = "head",
        /// Each head by itself with its own weights.
        EachHead = "each_head",
        /// All heads together.
        Width = "width",
        /// Like `Head`, after the rotation.
        RotatedHead = "rotated_head",
        /// Each head by itself, after the rotation and without weights.
        Unweighted = "unweighted",
    }

    /// Whether attention has a gate on its output, element by element.
    AttentionGate {
        /// None.
        None = "none",
        /// In a separate matrix.
        Own = "own",
        /// In the matrix of the queries: the rows of each head are followed by those of its gate.
        Query = "query",
    }

    /// Which key head a value head of a recurrent layer uses.
    HeadOrder {
        /// Consecutive value heads use the same.
        Grouped = "grouped",
        /// Value head `h` uses key head `h mod key heads`.
        Interleaved = "interleaved",
    }

    /// Whether feed-forward networks have a gate.
    Gate {
        /// In a separate matrix.
        Own = "own",
        /// In the first half of the up-projection matrix.
        Fused = "fused",
        /// None.
        None = "none",
    }

    /// The activation function inside feed-forward networks.
    Activation {
        /// `x / (1 + exp(-x))`
        Silu = "silu",
        /// The Gaussian error linear unit in its usual tanh approximation (arXiv:1606.08415).
        GeluTanh = "gelu_tanh",
        /// The exact Gaussian error linear unit, computed with the error function.
        Gelu = "gelu",
        /// The hyperbolic tangent.
        Tanh = "tanh",
        /// The square of the positive part (arXiv:2109.08668).
        ReluSquared = "relu_squared",
        /// `(up + 1) · gate / (1 + exp(-1.702 gate))` with `gate` clamped to at most 7 and `up` to -7 to 7 (gpt-oss).
        ClampedSilu = "clamped_silu",
        /// `up · gate / (1 + exp(-gate))` with `gate` clamped to at most `activation_limit` and `up` to both sides of it
        /// (DeepSeek V4).
        LimitedSilu = "limited_silu",
    }

    /// How the router's scores become the weights of the chosen experts.
    ExpertGating {
        /// Softmax over all experts, then select the largest (Mixtral).
        Softmax = "softmax",
        /// The logistic function of every score.
        Sigmoid = "sigmoid",
        /// Select the largest scores, then softmax over these.
        SoftmaxSelected = "softmax_selected",
        /// Each in turn, by a softmax over those that are near it and not yet chosen (arXiv:2409.12136).
        SparseMixer = "sparse_mixer",
        /// The square root of `ln(1 + exp(score))` (DeepSeek V4).
        SqrtSoftplus = "sqrt_softplus",
    }

    /// How groups of experts are ranked.
    GroupScore {
        /// By their best expert (DeepSeek-V2, arXiv:2405.04434).
        Best = "best",
        /// By the sum of their two best experts (DeepSeek-V3, arXiv:2412.19437).
        TwoBest = "two_best",
    }
}
