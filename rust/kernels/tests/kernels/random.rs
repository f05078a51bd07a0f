//! Reproducible random numbers, and a comparison of floats, for all modules.

/// Reproducible random numbers (xorshift64*, S. Vigna, 2016).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.bits() >> 33) as usize % bound
    }

    /// A uniform value from -1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn units(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }

    /// Any bit pattern, with special values more often than by chance.
    pub(crate) fn any(&mut self) -> f32 {
        const SPECIAL: [u32; 12] = [
            0,
            1,
            0x7f_ffff,
            0x80_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7fc0_0000,
            0x3f80_0000,
            0x3f80_0001,
            0x4b00_0000,
            0x3380_0000,
            0x477f_efff,
        ];
        let bits = self.bits();
        let sign = (bits as u32) & 0x8000_0000;
        if bits >> 60 == 0 {
            f32::from_bits(SPECIAL[self.below(SPECIAL.len())] | sign)
        } else {
            f32::from_bits((bits >> 16) as u32)
        }
    }
}

/// Whether two values are equal in every bit; NaNs are equal to each other.
pub(crate) fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}
