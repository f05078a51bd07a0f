use llamacpu_kernels::processes::*;

#[test]
fn the_first_value_stands() {
    let value = Published::new();
    assert_eq!(value.get(), None);
    let found: Vec<usize> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|number| {
                scope.spawn({
                    let value = &value;
                    move || *value.set(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(found.iter().all(|number| Some(number) == value.get()));
    assert_eq!(value.set(9), &found[0]);
}

#[cfg(unix)]
#[test]
fn a_child_has_a_lock_of_its_own() {
    let lock = PerProcess::<std::sync::Mutex<()>>::default();
    let held = lock.get().lock().expect("not poisoned");
    assert!(lock.get().try_lock().is_err());
    // SAFETY: the child only looks at the lock, allocates and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = i32::from(lock.get().try_lock().is_err());
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(status) };
    }
    let mut status = -1;
    // SAFETY: waits for our own child, which does not wait for anything; `status` outlives the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    drop(held);
}
