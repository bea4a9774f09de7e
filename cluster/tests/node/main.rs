//! A node from end to end, in one process: writes, fan-out, reads, restarts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod away;
mod damage;
mod disk;
mod fan_out;
mod heal;
mod lifecycle;
mod memory;
mod reads;
mod stories;
mod streams;
mod support;
mod writes;
