//! Owns the sockets to a node that joined while the load generator ran.

use std::net::{SocketAddr, TcpStream};

use super::connection::dial;
use super::error::FanfoldError;

/// A node that joined, with a socket to it for each connection.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) address: SocketAddr,
    pub(super) streams: Vec<TcpStream>,
}

impl Newcomer {
    /// Connects to a node, on another thread than the load generator's.
    pub(super) fn dial(address: SocketAddr, connections: usize) -> Result<Self, FanfoldError> {
        let streams = (0..connections).map(|_| dial(address)).collect::<Result<_, _>>()?;
        Ok(Self { address, streams })
    }
}
