//! Owns the settings of Raft groups, and their passage to openraft.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use super::error::OpenError;

/// The settings of a node's groups. The defaults are for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftSettings {
    /// Between two heartbeats of a leader.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a time between this …
    pub election_min_ms: u64,
    /// … and this starts an election.
    pub election_max_ms: u64,
    /// Raft entries in one message to a follower.
    pub message_entries_max: u64,
    /// How long opening a group waits for it to recover.
    pub recovery_timeout_ms: u64,
    /// How long a follower's answer to entries is waited for: its disk may stall, which says nothing of its leader.
    pub append_timeout_ms: u64,
    /// How long one message of a snapshot's transfer is waited for. The transfer as a whole takes as long as it takes.
    pub snapshot_message_ms: u64,
    /// How many bytes of log are kept for a follower that is behind; beyond, it is sent a snapshot.
    pub lagging_log_bytes_max: u64,
    /// How long a change of the members is waited for.
    pub change_timeout_ms: u64,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 250,
            election_min_ms: 1_000,
            election_max_ms: 1_500,
            message_entries_max: 512,
            recovery_timeout_ms: 60_000,
            append_timeout_ms: 5_000,
            snapshot_message_ms: 10_000,
            lagging_log_bytes_max: 128 << 20,
            change_timeout_ms: 10_000,
        }
    }
}

impl RaftSettings {
    /// openraft's configuration.
    pub(super) fn config(&self) -> Result<Arc<Config>, OpenError> {
        let config = Config {
            cluster_name: "fanfold".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            install_snapshot_timeout: self.snapshot_message_ms,
            max_payload_entries: self.message_entries_max,
            // Snapshots and purges are ordered by the node, which knows what is on disk.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: 1 << 60,
            // A leader that comes back must be elected: its machine has lost what was applied but not noted.
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            allow_log_reversion: Some(false),
            ..Config::default()
        };
        let config = config.validate().map_err(|_| OpenError::Settings {
            heartbeat_ms: self.heartbeat_ms,
            election_min_ms: self.election_min_ms,
            election_max_ms: self.election_max_ms,
        })?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_never_purge_by_themselves() {
        let config = RaftSettings::default().config().unwrap();
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        assert_eq!(config.max_in_snapshot_log_to_keep, u64::MAX);
        assert_eq!(config.enable_leader_restore, Some(false));
    }

    #[test]
    fn elections_faster_than_heartbeats_are_refused() {
        let settings = RaftSettings { election_min_ms: 100, ..RaftSettings::default() };
        assert!(matches!(settings.config(), Err(OpenError::Settings { election_min_ms: 100, .. })));
    }
}
