//! Memory for pages of keys and values. Dropped pages may be reused: mapping one anew takes as long as computing a
//! token of a small model.

use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

use llamacpu_kernels::mapping::AlignedBytes;

use crate::Error;

/// The purpose of pages, used in messages.
pub(crate) const PURPOSE: &str = "keys and values";
/// Maximum number of bytes held for reuse; everything else goes back to the system.
const MOST_BYTES: usize = 4 << 20;

/// Pages of one model that are held for reuse.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    pages: Mutex<Vec<AlignedBytes>>,
}

impl Spare {
    // Not `lock`: a process forked while another thread held it would wait forever.

    fn take(&self, len: usize) -> Option<AlignedBytes> {
        let mut pages = self.pages.try_lock().ok()?;
        let place = pages.iter().rposition(|page| page.len() == len)?;
        Some(pages.swap_remove(place))
    }

    fn keep(&self, page: AlignedBytes) {
        if let Ok(mut pages) = self.pages.try_lock()
            && pages.iter().map(|page| page.len()).sum::<usize>() + page.len() <= MOST_BYTES
            && pages.try_reserve(1).is_ok()
        {
            pages.push(page);
        }
    }
}

/// The keys and values of a run of tokens.
#[derive(Debug)]
pub(crate) struct Page {
    bytes: AlignedBytes,
    spare: Arc<Spare>,
}

impl Page {
    /// A page of zeros, in memory mapped from the system rather than the heap.
    pub(crate) fn zeroed(len: usize, spare: &Arc<Spare>) -> Result<Self, Error> {
        let bytes = match spare.take(len) {
            Some(mut used) => {
                used.fill(0);
                used
            }
            None => AlignedBytes::mapped(len, PURPOSE)?,
        };
        Ok(Self { bytes, spare: Arc::clone(spare) })
    }

    /// A page with a copy of these bytes.
    pub(crate) fn copy_of(bytes: &[u8], spare: &Arc<Spare>) -> Result<Self, Error> {
        let mut copy = match spare.take(bytes.len()) {
            Some(used) => used,
            None => AlignedBytes::mapped(bytes.len(), PURPOSE)?,
        };
        copy.copy_from_slice(bytes);
        Ok(Self { bytes: copy, spare: Arc::clone(spare) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.spare.keep(take(&mut self.bytes));
    }
}

impl Deref for Page {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_pages_wait_and_come_back_as_zeros() {
        let spare = Arc::new(Spare::default());
        let len = MOST_BYTES / 4;
        let mut pages: Vec<_> = (0..9).map(|_| Page::zeroed(len, &spare).unwrap()).collect();
        for page in &mut pages {
            page.fill(7);
        }
        pages.push(Page::copy_of(&[1, 2, 3], &spare).unwrap());
        drop(pages);
        assert_eq!(spare.pages.lock().unwrap().len(), 4);
        assert!(Page::zeroed(len, &spare).unwrap().iter().all(|&byte| byte == 0));
        let copy = Page::copy_of(&vec![9; len], &spare).unwrap();
        assert_eq!(spare.pages.lock().unwrap().len(), 3);
        assert!(copy.iter().all(|&byte| byte == 9));
        assert_eq!(*Page::copy_of(&[4, 5], &spare).unwrap(), [4, 5]);
    }
}
