//! Tests of failing growth and of the reserve.

use std::alloc::Layout;

use llamacpu_kernels::Error;
use llamacpu_kernels::internals::memory::{LARGEST, NEEDED, RESERVE, Reserve, fallible};
use llamacpu_kernels::memory::*;

#[test]
fn what_cannot_be_had_is_an_error() {
    let mut vector = vec![1u64];
    assert!(matches!(grow(&mut vector, usize::MAX / 8, 0, "a test"), Err(Error::Memory { .. })));
    assert!(matches!(reserve(&mut vector, usize::MAX / 16, "a test"), Err(Error::Memory { .. })));
    assert!(matches!(room::<u64>(usize::MAX / 8, "a test"), Err(Error::Memory { .. })));
    grow(&mut vector, 3, 7, "a test").unwrap();
    assert_eq!(vector, [1, 7, 7]);
    resize(&mut vector, 2, 9, "a test").unwrap();
    assert_eq!(vector, [1, 7]);
}

#[test]
fn the_reserve_is_handed_out_once_and_is_whole_again_in_the_end() {
    let reserve = Reserve::new(std::ptr::null_mut());
    let layout = Layout::from_size_align(1000, 16).unwrap();
    let first = reserve.take(layout);
    let second = reserve.take(layout);
    assert!(reserve.holds(first) && reserve.holds(second));
    assert_eq!(second.addr() - first.addr(), 1024);
    assert!(reserve.take(Layout::from_size_align(LARGEST + 1, 1).unwrap()).is_null());
    let large = Layout::from_size_align(LARGEST, 64).unwrap();
    let more = std::iter::from_fn(|| Some(reserve.take(large)).filter(|place| !place.is_null())).count();
    assert_eq!(more, RESERVE / LARGEST - 1);
    assert!(reserve.free() < NEEDED);
    let block = |index: usize| second.wrapping_add(1024 + index * LARGEST);
    (0..more).for_each(|index| reserve.give_back(block(index), LARGEST));
    reserve.give_back(first, 1000);
    reserve.give_back(second, 1000);
    assert_eq!(reserve.free(), RESERVE);
    assert_eq!(reserve.take(layout), first);
    assert!(!reserve.holds(std::ptr::from_ref(&reserve).cast_mut().cast()));
}

#[test]
fn what_was_taken_last_can_be_taken_again_while_others_stay() {
    let reserve = Reserve::new(std::ptr::null_mut());
    let layout = Layout::from_size_align(1000, 16).unwrap();
    reserve.take(layout);
    let second = reserve.take(layout);
    for _ in 0..RESERVE {
        reserve.give_back(second, 1000);
        assert_eq!(reserve.take(layout), second);
    }
}

#[test]
fn every_alignment_up_to_a_page_is_kept() {
    let reserve = Reserve::new(std::ptr::null_mut());
    for align in [1, 64, 128, 4096, 256, 8, 512] {
        let place = reserve.take(Layout::from_size_align(24, align).unwrap());
        assert!(!place.is_null() && place.addr().is_multiple_of(align), "{align}");
    }
    assert!(reserve.take(Layout::from_size_align(24, 8192).unwrap()).is_null());
}

#[test]
fn what_can_fail_leaves_the_reserve_alone() {
    let reserve = Reserve::new(std::ptr::null_mut());
    let layout = Layout::from_size_align(1000, 16).unwrap();
    assert!(fallible(|| reserve.take(layout)).is_null());
    assert!(!reserve.take(layout).is_null());
}
