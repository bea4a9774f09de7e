//! Owns the sending ends of the streams: a partition's leader brings the events of its journal to their destinations.
//!
//! - Per destination a few messages follow each other without waiting for answers, each naming its predecessor; after one
//!   that failed, the others are waited for and the stream goes on from the watermark.
//! - That every event is applied once, in order, is the state machine's affair (R8); a message may be repeated, and
//!   where a stream stands is asked after every start.
//! - A destination that does not answer is tried again with growing delays and never holds up the others; if the
//!   journal passes its limit meanwhile, it is dropped, and its stream begins anew when it answers again (R10, R11).
//! - The journal is trimmed in batches, by entries of the partition's log.

mod destination;
mod task;
mod transport;

pub(crate) use task::{Dispatcher, DispatcherSettings};
pub(crate) use transport::{ClusterStreams, take_in};
pub use transport::{StreamError, StreamTransport};
