//! Several nodes in one process, over loopback: forming, failover, and what an operator does.

#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod addresses;
mod alone;
mod directories;
mod disks;
mod failover;
mod forming;
mod memory;
mod missing;
mod operations;
mod outage;
mod repeats;
mod replicas;
mod support;
mod time;
mod upgrade;
