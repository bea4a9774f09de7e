//! Owns the Fanfold side: nodes in processes of their own, and a lean load generator for it.
//!
//! - The generator speaks the wire protocol over raw connections, one thread for all: it must cost as little as `redis-benchmark`
//!   does, because it shares the machine with the node. The client crate, with its tasks, retries and routing, is what
//!   applications use; it is not measured here.
//! - A connection has a socket to each node, and asks the leader of the partition that a request is for.
//! - Every connection opens its own session in every partition and tags every write with its sequence and the lowest
//!   unanswered one: exactly-once stays on.
//! - What waits for a connection goes out as one batch in one write; one read takes many answers.

mod answer;
mod connection;
mod error;
mod grow;
mod job;
mod line;
mod newcomer;
mod nodes;
mod oracle;
mod outbox;
mod page;
mod plans;
mod pump;
mod side;
mod stages;
mod watch;
mod windows;

pub use error::FanfoldError;
pub use page::PageError;
pub use side::{FanfoldSide, SideOptions};
