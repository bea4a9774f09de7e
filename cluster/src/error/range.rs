//! Owns the names of the numbers that have ranges.

/// A number that was outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeField {
    /// The limit of a page.
    Limit,
    /// The number of ids asked for.
    Ids,
    /// The number of readers asked for.
    Readers,
    /// A policy's default TTL, in milliseconds.
    DefaultTtlMs,
    /// A policy's feed cap.
    FeedCap,
    /// A policy's horizon, in milliseconds.
    HorizonMs,
    /// A policy's threshold between push and pull.
    PullThreshold,
    /// A policy's payload limit, in bytes.
    PayloadBytesMax,
    /// The bytes of the name of a space or graph.
    NameBytes,
}
