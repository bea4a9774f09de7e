//! Owns the Redis side of the harness: Redis at its best, filled with the same graph and posts as the other side.
//!
//! - Redis is the system's package, started by the harness on a free loopback port, with its usual settings for this use.
//! - Each of the usual ways is measured, the best one counts, and durability modes are never compared crosswise.
//! - The client is one thread with non-blocking sockets; its ceiling is compared with redis-benchmark's in the same run.
//! - Feeds are compared with the oracle after every measurement.

pub mod ceiling;
pub mod control;
pub mod encode;
pub mod error;
pub mod filling;
pub mod keys;
pub mod mixed;
pub mod oracle;
pub mod pages;
pub mod plan;
pub mod posting;
pub mod process;
pub mod pump;
mod read_runs;
pub mod reading;
pub mod resp;
pub mod socket;
pub mod target;
