//! A graph replayed without a pause, with a clock at the end of every replay: what a card does while its power settles and its
//! energy counter is watched.

use crate::driver::{Event, Gpu, Graph};
use crate::error::CudaError;

/// Replays under way, and those that have passed.
pub struct Steady<'a> {
    gpu: &'a Gpu,
    graph: &'a Graph<'a>,
    /// The end of each replay; the first is where the first begins.
    ends: Vec<Event>,
    passed: usize,
}

impl<'a> Steady<'a> {
    /// Nothing runs yet.
    ///
    /// # Errors
    /// A call that failed.
    pub fn new(gpu: &'a Gpu, graph: &'a Graph<'a>) -> Result<Self, CudaError> {
        let first = Event::new(gpu)?;
        first.record()?;
        Ok(Self {
            gpu,
            graph,
            ends: vec![first],
            passed: 1,
        })
    }

    /// Sees what has passed and launches until `in_flight` replays are under way.
    ///
    /// # Errors
    /// A call, or an earlier kernel, that failed.
    pub fn keep(&mut self, in_flight: usize) -> Result<(), CudaError> {
        while self.passed < self.ends.len() && self.ends[self.passed].has_passed()? {
            self.passed += 1;
        }
        for _ in self.ends.len() - self.passed..in_flight {
            self.launch()?;
        }
        Ok(())
    }

    /// Launches one replay.
    ///
    /// # Errors
    /// A call that failed.
    pub fn launch(&mut self) -> Result<(), CudaError> {
        self.graph.launch()?;
        let end = Event::new(self.gpu)?;
        end.record()?;
        self.ends.push(end);
        Ok(())
    }

    /// Replays that have ended, as far as [`Steady::keep`] saw.
    pub fn num_passed(&self) -> usize {
        self.passed - 1
    }

    /// Waits for all replays and tells the seconds of each.
    ///
    /// # Errors
    /// A call, or an earlier kernel, that failed.
    pub fn finish(self) -> Result<Vec<f64>, CudaError> {
        self.ends
            .windows(2)
            .map(|pair| match pair {
                [start, end] => end.since_s(start),
                _ => Ok(0.0),
            })
            .collect()
    }
}
