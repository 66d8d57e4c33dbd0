//! Checks products on a card before they are timed: whole products by Freivalds' check, small ones by the plain loop too.

mod checker;
mod floats;
mod integers;

#[cfg(feature = "cuda")]
pub(crate) use checker::{Checker, verified_by};
#[cfg(feature = "cuda")]
pub(crate) use floats::{FloatBuffers, FloatReference};
#[cfg(feature = "cuda")]
pub(crate) use integers::IntegerReference;
