//! Owns the limits of a partition.

use crate::codec::encoded_struct;

/// The limits of a partition. They come through its log, so that every replica has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Owners one user may follow in a graph.
    pub followees_max: u32,
    /// Users one user may mute, and as many it may block.
    pub mutes_max: u32,
    /// Local users of a partition.
    pub users_max: u32,
    /// Open sessions of a partition.
    pub sessions_max: u32,
    /// Requests of one session whose results are kept.
    pub session_requests_max: u32,
    /// A session unused for this long is forgotten, in milliseconds.
    pub session_life_ms: u64,
    /// How long an application key is remembered, in milliseconds.
    pub key_window_ms: u64,
    /// Rows of the delivered table; older ones are read from the timelines. At most 2^31.
    pub window_rows: u32,
    /// Followers served by one slice of a large fan-out.
    pub slice_followers: u32,
    /// Up to so many local followers a backfill is stored in their feeds; beyond, they read it from the chain.
    pub backfill_followers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            followees_max: 100_000,
            mutes_max: 100_000,
            users_max: 1 << 28,
            sessions_max: 65_536,
            session_requests_max: 4_096,
            session_life_ms: 24 * 3_600 * 1_000,
            key_window_ms: 24 * 3_600 * 1_000,
            window_rows: 1 << 22,
            slice_followers: 16_384,
            backfill_followers: 64,
        }
    }
}

encoded_struct!(Limits {
    followees_max,
    mutes_max,
    users_max,
    sessions_max,
    session_requests_max,
    session_life_ms,
    key_window_ms,
    window_rows,
    slice_followers,
    backfill_followers,
});
