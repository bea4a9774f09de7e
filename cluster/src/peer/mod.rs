//! Owns the network between nodes: its connections, its messages, and which nodes are alive.
//!
//! - For each ordered pair of nodes there is one connection for data and one for snapshots, dialled by the side that
//!   asks; answers come back on it. Nothing is served before both said who they are.
//! - Everything is bounded: frames, unanswered requests by group and connection, connections, and every wait.
//! - A message is sent at most once. Repeated, reordered and stale ones have no effect: numbers without a gap end a
//!   connection on which something is repeated, an answer counts once and only on the connection of its request, and
//!   what Raft and the streams carry names its term or its predecessor.
//! - What a peer sends never panics, and a peer that does not keep to the protocol is cut with a typed reason.
//!
//! Format: `PEER.md`.

mod call;
mod error;
mod frame;
#[cfg(test)]
mod golden;
mod gone;
mod handler;
mod hello;
mod identity;
mod link;
mod listener;
mod network;
mod options;
mod outbox;
mod ping;
mod proxy;
mod refusal;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use call::{JoinAnswer, JoinRequest, PeerAnswer, PeerCall};
pub use error::{Cut, DialError, PeerError};
pub use frame::FrameError;
pub use handler::PeerHandler;
pub use hello::{Hello, HelloError, HelloRefusal};
pub use identity::{Addresses, PeerIdentity};
pub use listener::PeerListener;
pub use network::PeerNetwork;
pub use options::PeerOptions;
pub use ping::Ping;
pub use proxy::{PeerProxy, Toward};
pub use refusal::PeerRefusal;
pub use socket::{Acceptor, Reading, Socket, Sockets, Writing, use_sockets_on_this_thread};
