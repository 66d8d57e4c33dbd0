//! Persistent threads that share the chunks of one job at a time.
//!
//! A decode step is some hundred operations of 10..500 us each, so starting one must cost about a microsecond: workers
//! spin briefly for the next job before they sleep, chunks are claimed by one atomic increment, nothing is
//! allocated, and the caller works too. A job is open while chunks remain; only workers that enter while it is open are
//! waited for, so a worker that wakes up late never delays anyone.
//!
//! Jobs that stream memory are claimed in runs: each thread has neighbouring chunks of its own and takes others' only when
//! they are done. So it is known which thread will read what, and one that waits fetches the beginning of its run of the
//! job that comes next (`prefetch.rs`).
//!
//! `state` holds everything that must change together: the job number, whether it is open, and how many workers are
//! inside. The job itself lies in a cell that is written only when the job is closed and nobody is inside.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;

use crate::prefetch::{Ahead, Cursor, Stream};
use crate::runs::{Run, run_of};
use crate::shared_slice::SharedSlice;
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, UnsafeCell};
use crate::sync::{Builder, JoinHandle, park, spin_loop, yield_now};

/// Spins before a worker sleeps: about 250 us, so that it is awake for the next token (50 us: decode 2 % slower, unsteady).
#[cfg(not(loom))]
const SPINS_BEFORE_SLEEP: usize = 5_000;
/// A model runs every order of the threads' steps, so one look for work stands for any number of them.
#[cfg(loom)]
const SPINS_BEFORE_SLEEP: usize = 1;
/// About 10 us of one thread.
const MIN_SHARED_OPERATIONS: usize = 1 << 17;
/// Spins before a waiting caller offers its core to the workers it waits for.
const SPINS_BEFORE_YIELD: usize = 200;

/// Workers inside the open job: the low bits of `state`.
const INSIDE: u64 = (1 << 20) - 1;
const OPEN: u64 = 1 << 20;
const JOB: u64 = 1 << 21;

/// A fixed set of threads; see the file's head.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a job runs. Whoever finds it taken (a nested call, a second caller) works alone.
    submit: Mutex<()>,
}

struct Shared {
    /// Only changed by read-modify-writes: an acquire of any value sees what all changes before it released.
    state: AtomicU64,
    next_chunk: AtomicUsize,
    /// Chunks left of each thread's run; the caller's is the first.
    runs: Box<[Run]>,
    /// What the job after this one will read.
    ahead: Ahead,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Panic>>,
    /// Of each worker: whether it has to be woken for a job.
    asleep: Box<[AtomicBool]>,
    quit: AtomicBool,
}

/// What a chunk panicked with.
type Panic = Box<dyn Any + Send>;

#[derive(Clone, Copy)]
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    num_chunks: usize,
    in_runs: bool,
}

// SAFETY: `job` is written by the one caller that holds `submit` while the job is closed and nobody is inside, and read
// by workers only between entering an open job and leaving it; `state` orders the two. The closure behind `run` is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only used while the caller keeps the closure alive.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool in which the caller and `num_threads - 1` workers share the work.
    pub fn new(num_threads: usize) -> Self {
        let num_workers = num_threads.max(1) - 1;
        let shared = Arc::new(Shared::new(num_workers));
        let spawn = |worker_idx| {
            let shared = Arc::clone(&shared);
            let name = format!("dualgrain-{worker_idx}");
            Builder::new().name(name).spawn(move || shared.work(worker_idx))
        };
        // A machine that refuses threads still computes: the caller alone is enough.
        let workers = (0..num_workers)
            .map_while(|worker_idx| spawn(worker_idx).ok())
            .collect();
        Self {
            shared,
            workers,
            submit: Mutex::new(()),
        }
    }

    /// Threads that share a job, the caller included.
    pub fn num_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// As [`Self::run`], but on the calling thread alone when all chunks together are only `operations` simple
    /// operations: waking others costs some microseconds.
    pub fn run_if_worth(&self, operations: usize, num_chunks: usize, f: impl Fn(usize) + Sync) {
        if operations < MIN_SHARED_OPERATIONS {
            (0..num_chunks).for_each(f);
        } else {
            self.run(num_chunks, f);
        }
    }

    /// As [`Self::run_if_worth`], each thread a run of neighbouring chunks. Threads that wait, now or after the job, fetch
    /// the beginning of `next`.
    pub fn run_in_runs(&self, operations: usize, num_chunks: usize, next: Stream, f: impl Fn(usize) + Sync) {
        self.shared.ahead.set(next);
        if operations < MIN_SHARED_OPERATIONS {
            (0..num_chunks).for_each(f);
        } else {
            self.share(num_chunks, true, f);
        }
    }

    /// Runs `f(0), ..., f(num_chunks - 1)`, each once, in any order and on any thread; returns when all are done.
    ///
    /// # Panics
    /// When a chunk panics, with its payload, after the others are done.
    pub fn run(&self, num_chunks: usize, f: impl Fn(usize) + Sync) {
        self.share(num_chunks, false, f);
    }

    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and runs `f(chunk_idx, chunk)`.
    ///
    /// # Panics
    /// As [`Self::run`].
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let (len, chunk) = (data.len(), chunk.max(1));
        let shared = SharedSlice::new(data);
        self.run(len.div_ceil(chunk), |chunk_idx| {
            let start = chunk_idx * chunk;
            // SAFETY: chunk ranges are disjoint and each index runs once.
            f(chunk_idx, unsafe {
                shared.range(start..(start + chunk).min(len))
            });
        });
    }

    fn share(&self, num_chunks: usize, in_runs: bool, f: impl Fn(usize) + Sync) {
        if num_chunks <= 1 || self.workers.is_empty() {
            return (0..num_chunks).for_each(f);
        }
        // It is never poisoned: it is free again before a chunk's panic goes on.
        let Ok(submitting) = self.submit.try_lock() else {
            return (0..num_chunks).for_each(f);
        };
        let panic = self.run_job(num_chunks, in_runs, &f);
        drop(submitting);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Shares the chunks with the workers and returns when all are done, with the first panic of one. The caller holds
    /// `submit`.
    fn run_job(&self, num_chunks: usize, in_runs: bool, run: &(dyn Fn(usize) + Sync)) -> Option<Panic> {
        // SAFETY: only the lifetime changes. `close` below returns when no worker is inside and none can enter, so the
        // pointer is not used after the closure is gone; nothing between here and there unwinds.
        let run: *const (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(run) };
        self.shared.open(Job {
            run,
            num_chunks,
            in_runs,
        });
        self.wake(num_chunks - 1);
        self.shared.claim_chunks(0);
        self.shared.close();
        self.shared.take_panic()
    }

    /// Wakes at most `limit` sleeping workers.
    fn wake(&self, limit: usize) {
        let workers = self.shared.asleep.iter().zip(&self.workers);
        let asleep = workers.filter(|(asleep, _)| asleep.load(Ordering::Relaxed));
        asleep
            .take(limit)
            .for_each(|(_, worker)| worker.thread().unpark());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, Ordering::Relaxed);
        // Whoever parks from here on returns at once and sees `quit`: unparking is remembered, and publishes the store.
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        for worker in self.workers.drain(..) {
            // A worker never unwinds: panics of chunks are caught where they happen.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn new(num_workers: usize) -> Self {
        let idle: &(dyn Fn(usize) + Sync) = &|_| {};
        Self {
            state: AtomicU64::new(0),
            next_chunk: AtomicUsize::new(0),
            job: UnsafeCell::new(Job {
                run: idle,
                num_chunks: 0,
                in_runs: false,
            }),
            runs: (0..=num_workers).map(|_| Run::empty()).collect(),
            ahead: Ahead::default(),
            panic: Mutex::new(None),
            asleep: (0..num_workers).map(|_| AtomicBool::new(false)).collect(),
            quit: AtomicBool::new(false),
        }
    }

    /// Publishes a job. The caller holds `submit`, so the last job is closed and left.
    fn open(&self, job: Job) {
        self.next_chunk.store(0, Ordering::Relaxed);
        for (thread, run) in self.runs.iter().enumerate().filter(|_| job.in_runs) {
            run.set(run_of(thread, self.runs.len(), job.num_chunks));
        }
        // SAFETY: the job is closed and nobody is inside (see `close`), so nobody reads the cell.
        self.job.with_mut(|cell| unsafe { *cell = job });
        let number = (self.state.load(Ordering::Relaxed) & !(JOB - 1)).wrapping_add(JOB);
        // Releases the job to who enters; acquires the flags of who looked before and went to sleep (see `sleep`).
        self.state.swap(number | OPEN, Ordering::AcqRel);
    }

    /// Lets nobody enter any more and waits until all who did have left.
    fn close(&self) {
        // Orders nothing by itself: whoever leaves releases what it did, and the loads below acquire that.
        self.state.fetch_and(!OPEN, Ordering::Relaxed);
        let (mut spins, mut cursor) = (0, Cursor::default());
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            if self.ahead.fetch(0, self.runs.len(), &mut cursor) {
                continue;
            }
            spins += 1;
            if spins > SPINS_BEFORE_YIELD {
                yield_now();
            } else {
                spin_loop();
            }
        }
    }

    fn claim_chunks(&self, thread: usize) {
        // SAFETY: the caller of this function is the submitter or inside the open job, so the cell is not written.
        let job = self.job.with(|cell| unsafe { *cell });
        while let Some(chunk) = self.claim(&job, thread) {
            // SAFETY: the submitter keeps the closure alive until everyone inside has left.
            let run = AssertUnwindSafe(|| unsafe { (*job.run)(chunk) });
            if let Err(payload) = catch_unwind(run) {
                self.panic
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(payload);
            }
        }
    }

    fn claim(&self, job: &Job, thread: usize) -> Option<usize> {
        if !job.in_runs {
            let chunk = self.next_chunk.fetch_add(1, Ordering::Relaxed);
            return (chunk < job.num_chunks).then_some(chunk);
        }
        let others = (1..self.runs.len()).map(|step| (thread + step) % self.runs.len());
        let own = self.runs[thread].take(false);
        own.or_else(|| others.into_iter().find_map(|other| self.runs[other].take(true)))
    }

    fn take_panic(&self) -> Option<Panic> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn work(&self, worker_idx: usize) {
        let (mut done, thread) = (0, worker_idx + 1);
        let mut cursor = Cursor::default();
        while let Some(number) = self.next_job(done, thread, &mut cursor) {
            done = number;
            self.claim_chunks(thread);
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for an open job other than `done`, enters it and returns its number; `None` when the pool ends.
    fn next_job(&self, done: u64, thread: usize, cursor: &mut Cursor) -> Option<u64> {
        let mut spins = 0;
        loop {
            if let Some(number) = self.try_enter(done) {
                return Some(number);
            }
            if self.quit.load(Ordering::Relaxed) {
                return None;
            }
            if self.ahead.fetch(thread, self.runs.len(), cursor) {
                continue;
            }
            spins += 1;
            if spins < SPINS_BEFORE_SLEEP {
                spin_loop();
                continue;
            }
            self.sleep(done, thread - 1);
            spins = 0;
        }
    }

    /// Sleeps until a job other than `done` is opened or the pool ends; may return earlier.
    fn sleep(&self, done: u64, worker_idx: usize) {
        let asleep = &self.asleep[worker_idx];
        asleep.store(true, Ordering::Relaxed);
        // Looked at once more after the flag is up, or a job opened in between would find nobody to wake. This look and
        // `open` both modify `state`, so one is first: either this look sees the job or whoever opened it sees the flag.
        if new_job(self.state.fetch_or(0, Ordering::AcqRel), done).is_none() {
            park();
        }
        asleep.store(false, Ordering::Relaxed);
    }

    fn try_enter(&self, done: u64) -> Option<u64> {
        let state = self.state.load(Ordering::Relaxed);
        let number = new_job(state, done)?;
        self.state
            .compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| number)
    }
}

/// The number of the job that is open, unless it is `done`.
fn new_job(state: u64, done: u64) -> Option<u64> {
    let number = state & !(JOB - 1);
    (state & OPEN != 0 && number != done).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_runs_exactly_once_over_many_jobs() {
        let pool = Pool::new(4);
        let counts: Vec<AtomicUsize> = (0..97).map(|_| AtomicUsize::new(0)).collect();
        for round in 0..3_000 {
            let num_chunks = round % 98;
            pool.run(num_chunks, |chunk| {
                counts[chunk].fetch_add(1, Ordering::Relaxed);
            });
        }
        for (chunk, count) in counts.iter().enumerate() {
            let expected = (0..3_000).filter(|round| round % 98 > chunk).count();
            assert_eq!(count.load(Ordering::Relaxed), expected, "chunk {chunk}");
        }
    }

    #[test]
    fn every_chunk_of_a_run_is_taken_once_by_its_thread_or_another() {
        let pool = Pool::new(3);
        for round in 0..2_000 {
            let num_chunks = round % 41;
            let counts: Vec<AtomicUsize> = (0..num_chunks).map(|_| AtomicUsize::new(0)).collect();
            pool.run_in_runs(usize::MAX, num_chunks, Stream::default(), |chunk| {
                // One run takes longer than the others, so that threads take from each other.
                (0..if chunk < num_chunks / 3 { 300 } else { 0 }).for_each(|_| std::hint::spin_loop());
                counts[chunk].fetch_add(1, Ordering::Relaxed);
            });
            assert!(
                counts.into_iter().all(|count| count.into_inner() == 1),
                "{num_chunks} chunks"
            );
        }
    }

    #[test]
    fn workers_that_went_to_sleep_wake_up_again() {
        let pool = Pool::new(3);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(2));
            let sum = AtomicUsize::new(0);
            pool.run(100, |chunk| {
                sum.fetch_add(chunk, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4_950);
        }
    }

    #[test]
    fn panic_of_a_chunk_reaches_the_caller_after_all_chunks_ran_and_the_pool_survives() {
        let pool = Pool::new(4);
        let ran = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, |chunk| {
                ran.fetch_add(1, Ordering::Relaxed);
                assert_ne!(chunk, 33, "chunk 33 fails");
            })
        }));
        let payload = result.unwrap_err();
        assert!(
            payload
                .downcast_ref::<String>()
                .unwrap()
                .contains("chunk 33 fails")
        );
        assert_eq!(ran.load(Ordering::Relaxed), 64);
        // It survives with all its threads: each waits here until all four have come.
        let (arrived, gave_up) = (AtomicUsize::new(0), AtomicBool::new(false));
        let started = std::time::Instant::now();
        pool.run(4, |_| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 4 && !gave_up.load(Ordering::SeqCst) {
                gave_up.fetch_or(started.elapsed().as_secs() >= 20, Ordering::SeqCst);
                std::thread::yield_now();
            }
        });
        assert!(!gave_up.into_inner(), "four chunks did not run side by side");
    }

    #[test]
    fn nested_and_concurrent_jobs_finish() {
        let pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        let nest = || {
            for _ in 0..50 {
                pool.run(5, |_| {
                    pool.run(7, |_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    })
                });
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(nest)));
        assert_eq!(count.into_inner(), 4 * 50 * 35);
    }
}
