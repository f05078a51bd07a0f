#[cfg(target_os = "linux")]
mod count;
#[cfg(all(target_os = "linux", not(miri)))]
mod placement;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use llamacpu_kernels::Error;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::threads::*;

fn pool(threads: usize) -> Pool {
    Pool::new(threads).expect("threads start")
}

fn counters(count: usize) -> Vec<AtomicUsize> {
    (0..count).map(|_| AtomicUsize::new(0)).collect()
}

fn catch(work: impl FnOnce()) -> std::thread::Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
}

#[test]
fn every_worker_runs_once_per_region() {
    for threads in [1, 2, 3, 8] {
        let pool = pool(threads);
        let seen = counters(threads);
        for _ in 0..500 {
            pool.run(&|worker| {
                seen[worker].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 500), "{threads} threads");
    }
}

#[test]
fn every_piece_runs_exactly_once() {
    for threads in [1, 2, 3, 5] {
        let pool = pool(threads);
        let context = Context::new(Isa::SCALAR, &pool);
        for pieces in [0, 1, 2, 3, 7, 64, 1000] {
            let seen = counters(pieces);
            for round in 1..=20 {
                context
                    .for_each(pieces, &|piece| {
                        seen[piece].fetch_add(1, Ordering::Relaxed);
                    })
                    .expect("not interrupted");
                assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == round));
            }
        }
    }
}

#[test]
fn pieces_of_a_slow_worker_are_taken_by_the_others() {
    let pool = pool(2);
    let others = AtomicUsize::new(0);
    let context = Context::new(Isa::SCALAR, &pool);
    let caller = std::thread::current().id();
    let start = std::time::Instant::now();
    context
        .for_each(100, &|_| {
            if std::thread::current().id() != caller {
                others.fetch_add(1, Ordering::Relaxed);
            }
            while std::thread::current().id() == caller
                && others.load(Ordering::Relaxed) < 60
                && start.elapsed() < Duration::from_secs(20)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        })
        .expect("not interrupted");
    assert!(others.load(Ordering::Relaxed) > 50, "the worker took more than its own half");
}

#[test]
fn regions_work_after_the_workers_went_to_sleep() {
    let pool = pool(3);
    let seen = counters(3);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(30));
        pool.run(&|worker| {
            // Longer than the caller spins, so that it has to be woken as well.
            std::thread::sleep(Duration::from_millis(10 * worker as u64));
            seen[worker].fetch_add(1, Ordering::Relaxed);
        });
    }
    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 3));
}

#[test]
fn callers_on_many_threads_take_turns() {
    let pool = pool(3);
    let inside = AtomicBool::new(false);
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    pool.run(&|worker| {
                        if worker == 0 {
                            assert!(!inside.swap(true, Ordering::SeqCst), "two regions at the same time");
                            inside.store(false, Ordering::SeqCst);
                        }
                        total.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(total.load(Ordering::Relaxed), 4 * 200 * 3);
}

#[test]
fn a_panic_anywhere_reaches_the_caller_and_the_pool_goes_on() {
    let pool = pool(3);
    let context = Context::new(Isa::SCALAR, &pool);
    for guilty in 0..3 {
        let outcome = catch(|| {
            pool.run(&|worker| assert!(worker != guilty, "worker {worker} fails"));
        });
        let payload = outcome.expect_err("the panic is carried over");
        let message = payload.downcast_ref::<String>().expect("a formatted message");
        assert!(message.contains(&format!("worker {guilty} fails")));
        for piece in [0, 50, 99] {
            let outcome = catch(|| {
                let _ = context.for_each(100, &|p| assert!(p != piece, "piece fails"));
            });
            assert!(outcome.is_err());
        }
        let done = AtomicUsize::new(0);
        pool.run(&|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 3);
    }
}

#[test]
fn a_region_inside_a_region_is_an_error_and_no_deadlock() {
    let pool = pool(2);
    let context = Context::new(Isa::SCALAR, &pool);
    let errors = AtomicUsize::new(0);
    context
        .for_each(8, &|_| {
            let inner = context.for_each(8, &|_| {});
            assert!(matches!(inner, Err(Error::Unsupported(_))));
            errors.fetch_add(1, Ordering::Relaxed);
            context.for_each(1, &|_| {}).expect("one piece runs in place");
        })
        .expect("not interrupted");
    assert_eq!(errors.load(Ordering::Relaxed), 8);
    assert!(catch(|| pool.run(&|_| pool.run(&|_| {}))).is_err());
    context.for_each(8, &|_| {}).expect("the pool goes on");
}

#[test]
fn an_interrupted_region_stops_soon() {
    for threads in [1, 2] {
        let pool = pool(threads);
        let done = AtomicUsize::new(0);
        let stop = || done.load(Ordering::Relaxed) >= 3;
        let context = Context { isa: Isa::SCALAR, pool: &pool, interrupted: Some(&stop), observer: None };
        let outcome = context.for_each(10_000, &|_| {
            std::thread::sleep(Duration::from_millis(2));
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert!(matches!(outcome, Err(Error::Cancelled)));
        assert!(done.load(Ordering::Relaxed) < 10_000);
        let context = Context { interrupted: None, ..context };
        context.for_each(10, &|_| {}).expect("a cancelled region leaves the pool usable");
    }
}

#[test]
fn thread_counts_out_of_range_are_errors() {
    assert!(matches!(Pool::new(0), Err(Error::Shape(_))));
    assert!(matches!(Pool::new(MAX_THREADS + 1), Err(Error::Shape(_))));
}

#[test]
fn the_default_is_at_least_one_thread_with_a_reason() {
    let threads = default_threads();
    assert!((1..=MAX_THREADS).contains(&threads.count));
    assert!(!threads.why.is_empty());
}

#[test]
fn read_bandwidth_is_positive() {
    let pool = pool(2);
    let context = Context::new(Isa::SCALAR, &pool);
    assert!(read_bandwidth(&context, 4 << 20, Duration::from_millis(5)).expect("measured") > 0.0);
    assert!(read_bandwidth(&context, 0, Duration::ZERO).is_err());
}

#[cfg(unix)]
#[test]
fn a_forked_child_makes_its_own_workers() {
    let pool = pool(3);
    let total = AtomicUsize::new(0);
    let work = |_| {
        total.fetch_add(1, Ordering::Relaxed);
    };
    pool.run(&work);
    // SAFETY: the child calls only the pool (whose locks it does not share with the parent's threads) and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        pool.run(&work);
        let status = i32::from(total.load(Ordering::Relaxed) != 6);
        drop(pool);
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(status) };
    }
    assert!(child > 0, "fork failed");
    let mut status = -1;
    for _ in 0..500 {
        // SAFETY: waits for our own child; `status` outlives the call.
        if unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == child {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if status == -1 {
        // SAFETY: ends our own child, which is stuck.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    assert_eq!(status, 0, "the child ran a region with new workers");
    pool.run(&work);
    assert_eq!(total.load(Ordering::Relaxed), 6, "the parent's workers are untouched");
}
