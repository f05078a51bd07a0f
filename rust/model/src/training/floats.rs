//! Buffers of floats in huge pages.

use std::ops::{Deref, DerefMut};

use llamacpu_kernels::mapping::AlignedBytes;

use crate::Error;

/// Floats that start as zeros. Large ones lie in huge pages: products store their results a few columns of many rows at a
/// time, each row in another page.
#[derive(Default)]
pub(super) struct Floats(AlignedBytes);

impl Floats {
    /// # Errors
    /// `Error::Memory`, also if there is no length, since it was too large for a number.
    pub(super) fn zeroed(len: Option<usize>, purpose: &'static str) -> Result<Self, Error> {
        let bytes = len.and_then(|len| len.checked_mul(size_of::<f32>())).unwrap_or(usize::MAX);
        Ok(Self(AlignedBytes::mapped(bytes, purpose)?))
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.view()
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.0.view_mut()
    }
}
