//! What a run says about every linear.

pub mod html;
pub mod json;
