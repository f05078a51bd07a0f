//! The same promises with real threads, for ThreadSanitizer.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::crew::Crew;
use super::sync::UnsafeCell;
use super::turn::Turn;

struct Guarded(Turn, UnsafeCell<usize>);

// SAFETY: the cell is touched by the holder of the turn only.
unsafe impl Sync for Guarded {}

#[test]
fn one_holder_at_a_time() {
    let guarded = Guarded(Turn::default(), UnsafeCell::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let Guarded(turn, count) = &guarded;
                    let _turn = turn.take();
                    // SAFETY: the turn is held.
                    count.with_mut(|count| unsafe { *count += 1 });
                }
            });
        }
    });
    // SAFETY: the other threads have ended.
    assert_eq!(guarded.1.with(|count| unsafe { *count }), 4000);
}

#[test]
fn every_worker_and_every_piece_runs_once() {
    for threads in [2, 3, 5] {
        let (crew, refused) = Crew::start(threads);
        assert!(refused.is_none());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for pieces in 2..100 {
                        let seen: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                        let count = |piece: usize| {
                            seen[piece].fetch_add(1, Ordering::Relaxed);
                        };
                        crew.share(pieces, None, &count).expect("not interrupted");
                        assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
                        crew.run_on_all(threads.min(pieces), &|worker| count(worker % pieces));
                    }
                });
            }
        });
    }
}
