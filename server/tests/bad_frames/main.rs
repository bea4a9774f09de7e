//! What comes over a client's connection that should not: every kind is refused by name or held up, and nothing of
//! it is applied.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod flood;
mod limits;
mod peer;
mod slow;
mod stream;
