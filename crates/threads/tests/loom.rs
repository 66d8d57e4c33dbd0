//! The worker pool and the shared slices in every order of their threads' steps:
//! `RUSTFLAGS="--cfg loom" cargo test -p dualgrain-threads --release --test loom --target-dir target/loom`.
//!
//! loom runs each model again and again, each time in another order, with every value that a load may see. It fails when
//! two threads touch a cell at once, when a cell is read before its write is published, and when all threads wait.
#![cfg(loom)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use dualgrain_threads::{Pool, SharedSlice, Stream};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};

/// More operations than are worth sharing.
const MANY: usize = usize::MAX;

/// Runs `model` in all orders in which a thread that could go on is interrupted at most `preemptions` times.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn cells(len: usize) -> Vec<UnsafeCell<usize>> {
    (0..len).map(|_| UnsafeCell::new(0)).collect()
}

fn add(cell: &UnsafeCell<usize>, more: usize) {
    // SAFETY: loom refuses the access where another thread has one that is not ordered with it.
    cell.with_mut(|value| unsafe { *value += more });
}

fn values(cells: &[UnsafeCell<usize>]) -> Vec<usize> {
    // SAFETY: as in `add`.
    let read = |cell: &UnsafeCell<usize>| cell.with(|value| unsafe { *value });
    cells.iter().map(read).collect()
}

/// A place where threads wait until `needed` of them have come.
struct Meeting {
    arrived: Mutex<usize>,
    all_here: Condvar,
    needed: usize,
}

impl Meeting {
    fn of(needed: usize) -> Self {
        Self {
            arrived: Mutex::new(0),
            all_here: Condvar::new(),
            needed,
        }
    }

    fn wait(&self) {
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        while *arrived < self.needed {
            arrived = self.all_here.wait(arrived).unwrap();
        }
        self.all_here.notify_all();
    }
}

#[test]
fn each_chunk_runs_once_and_what_it_wrote_is_seen_by_the_caller_and_by_the_next_job() {
    check(3, || {
        let (pool, mut cells) = (Pool::new(2), cells(4));
        // Another cut in the second job: a thread gets elements that another one wrote.
        for (chunk, more) in [(1, 1), (3, 10)] {
            pool.for_each_chunk(&mut cells, chunk, |_, cells| {
                cells.iter().for_each(|cell| add(cell, more));
            });
        }
        assert_eq!(values(&cells), [11; 4]);
    });
}

#[test]
fn two_workers_and_the_caller_share_a_job() {
    check(2, || {
        let (pool, mut cells) = (Pool::new(3), cells(3));
        pool.for_each_chunk(&mut cells, 1, |chunk, cells| add(&cells[0], chunk + 1));
        assert_eq!(values(&cells), [1, 2, 3]);
    });
}

#[test]
fn each_chunk_of_a_run_is_taken_once_by_its_thread_or_another() {
    check(3, || {
        let (pool, mut cells) = (Pool::new(2), cells(3));
        for num_chunks in [3, 2] {
            let shared = SharedSlice::new(&mut cells);
            pool.run_in_runs(MANY, num_chunks, Stream::default(), |chunk| {
                // SAFETY: each chunk runs once, and its range is its own.
                let cells = unsafe { shared.range(chunk..chunk + 1) };
                add(&cells[0], 1);
            });
        }
        assert_eq!(values(&cells), [2, 2, 1]);
    });
}

#[test]
fn a_worker_that_sleeps_or_is_about_to_is_woken_for_a_job() {
    check(3, || {
        let pool = Pool::new(2);
        for _ in 0..2 {
            // Neither chunk ends before the other has begun: the caller alone can not finish the job.
            let meeting = Meeting::of(2);
            pool.run(2, |_| meeting.wait());
        }
    });
}

#[test]
fn two_sleeping_workers_are_woken_for_a_job_of_three_chunks() {
    check(1, || {
        let pool = Pool::new(3);
        let meeting = Meeting::of(3);
        pool.run(3, |_| meeting.wait());
    });
}

#[test]
fn a_second_caller_and_a_nested_call_work_alone() {
    check(2, || {
        let pool = Arc::new(Pool::new(2));
        let job = |pool: &Pool| {
            let mut cells = cells(2);
            pool.for_each_chunk(&mut cells, 1, |_, cells| add(&cells[0], 1));
            assert_eq!(values(&cells), [1, 1]);
        };
        let second = Arc::clone(&pool);
        let second = loom::thread::spawn(move || job(&second));
        pool.run(2, |_| job(&pool));
        second.join().unwrap();
    });
}

#[test]
fn a_pool_that_is_dropped_ends_its_workers_wherever_they_are() {
    check(3, || drop(Pool::new(3)));
    check(3, || {
        let pool = Pool::new(2);
        pool.run(2, |_| {});
    });
}

#[test]
fn a_panic_reaches_the_caller_after_all_chunks_and_the_pool_survives() {
    check(2, || {
        let (pool, mut cells) = (Pool::new(2), cells(2));
        let failing = AssertUnwindSafe(|| {
            pool.for_each_chunk(&mut cells, 1, |chunk, cells| {
                add(&cells[0], 1);
                if chunk == 1 {
                    // Unwinds as a panic does, without its message for each order.
                    resume_unwind(Box::new("chunk 1 fails"));
                }
            });
        });
        let payload = catch_unwind(failing).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"chunk 1 fails"));
        pool.for_each_chunk(&mut cells, 1, |_, cells| add(&cells[0], 1));
        assert_eq!(values(&cells), [2, 2]);
    });
}

#[test]
fn a_panic_reaches_its_own_caller_and_no_other() {
    check(2, || {
        let pool = Arc::new(Pool::new(2));
        let other = Arc::clone(&pool);
        let other = loom::thread::spawn(move || other.run(2, |_| {}));
        let failing = AssertUnwindSafe(|| pool.run(2, |_| resume_unwind(Box::new("both fail"))));
        assert!(catch_unwind(failing).is_err());
        other.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn ranges_that_overlap_are_noticed() {
    check(2, || {
        let (pool, mut cells) = (Pool::new(2), cells(1));
        let shared = SharedSlice::new(&mut cells);
        pool.run(2, |_| {
            // SAFETY: none: both chunks take the same element, which is what the model has to find.
            let cells = unsafe { shared.range(0..1) };
            add(&cells[0], 1);
        });
    });
}
