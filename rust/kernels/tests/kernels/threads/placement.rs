use llamacpu_kernels::internals::threads::{Placement, UNKNOWN, affinity, current_processor, same, set_affinity};

#[test]
fn a_processor_is_excluded_and_comes_back() {
    let before = affinity().unwrap();
    // SAFETY: counts the bits of a set on the stack.
    let count = unsafe { libc::CPU_COUNT(&before) };
    let mut placement = Placement::of_worker();
    let here = current_processor();
    placement.exclude(here, 1);
    let during = affinity().unwrap();
    // SAFETY: the number is that of a processor, below the size of the set in bits.
    assert_eq!(unsafe { libc::CPU_ISSET(here, &during) }, count == 1);
    assert!(count == 1 || current_processor() != here);
    placement.exclude(UNKNOWN, 1);
    assert!(same(&affinity().unwrap(), &before));
}

#[test]
fn more_workers_than_processors_are_left_alone() {
    let before = affinity().unwrap();
    let mut placement = Placement::of_worker();
    placement.exclude(current_processor(), 1 << 20);
    assert!(same(&affinity().unwrap(), &before));
}

#[test]
fn a_placement_by_others_stays() {
    let before = affinity().unwrap();
    let here = current_processor();
    let mut placement = Placement::of_worker();
    placement.exclude(here, 1);
    let mut one = before;
    // SAFETY: processors outside the set are not added; the number is below the size of the set in bits.
    unsafe {
        libc::CPU_ZERO(&mut one);
        libc::CPU_SET(here, &mut one);
    }
    assert!(set_affinity(&one));
    placement.exclude(UNKNOWN, 1);
    assert!(same(&affinity().unwrap(), &one));
    assert!(set_affinity(&before));
}
