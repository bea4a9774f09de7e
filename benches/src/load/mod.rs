//! Owns the load harness: what is measured, over which graph, and both sides that are measured.
//!
//! - Both sides get the same graph, the same fill and the same posts, all drawn from one seed.
//! - What is measured and how it is reported does not know the sides; a side is a [`target::Target`].

pub mod args;
pub mod bench;
pub mod disk;
pub mod fanfold;
pub mod fill;
pub mod graph;
pub mod grow;
pub mod plot;
pub mod ratio;
pub mod report;
pub mod run;
pub mod surroundings;
pub mod target;
pub mod timer;
pub mod usage;
