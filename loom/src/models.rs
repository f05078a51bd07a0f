//! What the crew and the turn promise, in every order of events that Loom finds: no two holders, every worker and every
//! piece exactly once, no access to the work of a region that is over, and an end for everybody who waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::crew::Crew;
use super::sync::{AtomicUsize, UnsafeCell};
use super::turn::Turn;

/// Runs a model; more changes of the running thread than `preemptions` at places where nobody waits are left out.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn crew(threads: usize) -> Crew {
    let (crew, refused) = Crew::start(threads);
    assert!(refused.is_none());
    crew
}

#[test]
fn one_holder_at_a_time_and_everybody_has_a_turn() {
    check(3, || {
        let shared = Arc::new((Turn::default(), UnsafeCell::new(0)));
        let step = |shared: &(Turn, UnsafeCell<i32>)| {
            let _turn = shared.0.take();
            // SAFETY: the turn is held; Loom finds it if another thread is in here too.
            shared.1.with_mut(|count| unsafe { *count += 1 });
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || step(&shared))
            })
            .collect();
        step(&shared);
        for thread in threads {
            thread.join().expect("no panic");
        }
        // SAFETY: the other threads have ended.
        assert_eq!(shared.1.with(|count| unsafe { *count }), 3);
    });
}

#[test]
fn a_crew_without_work_ends() {
    check(3, || drop(crew(3)));
}

#[test]
fn every_worker_runs_once_in_each_region() {
    check(2, || {
        let crew = crew(2);
        for _ in 0..2 {
            let seen = [AtomicUsize::new(0), AtomicUsize::new(0)];
            crew.run_on_all(2, &|worker| {
                seen[worker].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    });
}

#[test]
fn every_piece_runs_once_and_late_workers_are_not_waited_for() {
    check(2, || {
        let crew = crew(2);
        for _ in 0..2 {
            let seen: Vec<_> = (0..2).map(|_| AtomicUsize::new(0)).collect();
            crew.share(2, None, &|piece| {
                seen[piece].fetch_add(1, Ordering::Relaxed);
            })
            .expect("not interrupted");
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    });
}

/// A crew, and what only worker 0 of a region touches.
struct Guarded(Crew, UnsafeCell<i32>);

// SAFETY: regions take turns; Loom finds it if two touch the cell.
unsafe impl Sync for Guarded {}
// SAFETY: as above.
unsafe impl Send for Guarded {}

impl Guarded {
    fn region(&self) {
        self.0.run_on_all(2, &|worker| {
            if worker == 0 {
                // SAFETY: the turn is held while the region is open.
                self.1.with_mut(|count| unsafe { *count += 1 });
            }
        });
    }
}

#[test]
fn callers_on_two_threads_take_turns() {
    check(1, || {
        let shared = Arc::new(Guarded(crew(2), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || other.region());
        shared.region();
        thread.join().expect("no panic");
        // SAFETY: the other thread has ended.
        assert_eq!(shared.1.with(|count| unsafe { *count }), 2);
    });
}
