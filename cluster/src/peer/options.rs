//! Owns the settings of the network between nodes. Every queue and every wait of it has its limit here.

use std::time::Duration;

/// The settings of the network between nodes. The defaults are for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOptions {
    /// Between two pings of every other node.
    pub ping_ms: u64,
    /// A node that was not heard for so long is not alive, and a connection without a word for so long is cut.
    pub silent_ms: u64,
    /// Connecting and both hellos.
    pub dial_ms: u64,
    /// A write, or a frame that has begun, that does not get on for so long ends the connection.
    pub stall_ms: u64,
    /// A frame that has begun must be whole after so long.
    pub frame_ms: u64,
    /// The first wait after a failed attempt to connect; it doubles with each further one …
    pub backoff_min_ms: u64,
    /// … up to this.
    pub backoff_max_ms: u64,
    /// Bytes of unanswered requests of one group to one node: its credit. One larger request passes alone.
    pub group_bytes_max: usize,
    /// Bytes of unanswered requests on one connection; a peer that sends more is cut.
    pub connection_bytes_max: usize,
    /// Unanswered requests on one connection; a peer that sends more is cut.
    pub connection_requests_max: usize,
    /// The largest frame.
    pub frame_bytes_max: usize,
    /// Connections that are served at a time.
    pub connections_max: usize,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            ping_ms: 250,
            silent_ms: 3_000,
            dial_ms: 2_000,
            stall_ms: 5_000,
            frame_ms: 30_000,
            backoff_min_ms: 50,
            backoff_max_ms: 2_000,
            group_bytes_max: 8 << 20,
            connection_bytes_max: 64 << 20,
            connection_requests_max: 8_192,
            frame_bytes_max: 32 << 20,
            connections_max: 512,
        }
    }
}

impl PeerOptions {
    pub(super) fn silent(&self) -> Duration {
        Duration::from_millis(self.silent_ms)
    }

    pub(super) fn dial(&self) -> Duration {
        Duration::from_millis(self.dial_ms)
    }

    pub(super) fn stall(&self) -> Duration {
        Duration::from_millis(self.stall_ms)
    }

    pub(super) fn frame(&self) -> Duration {
        Duration::from_millis(self.frame_ms)
    }

    /// How long the next attempt waits after so many failures.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let ms = self.backoff_min_ms.saturating_mul(1 << failures.saturating_sub(1).min(16));
        Duration::from_millis(ms.min(self.backoff_max_ms))
    }
}
