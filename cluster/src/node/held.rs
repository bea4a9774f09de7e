//! Owns what a data directory must not be opened with: a part missing that other nodes count on.
//!
//! - A replica whose log is gone has forgotten its votes and what it acknowledged: it must never take part again.
//! - Without an identity only the node that founded a cluster and is alone in it can be told from its log. Nothing is
//!   formed in the directory of any other.

use std::collections::BTreeMap;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{GroupId, Recovered};

use super::FIRST_REPLICA;
use super::host::groups_of;
use crate::catalog::CATALOG_GROUP;
use crate::error::OpenError;
use crate::identity::{DataDir, StoredIdentity};
use crate::options::PARTITIONS_MAX;
use crate::raft::{ReplicaId, noted_replicas};

/// Refuses a node that has replicas and no log.
pub(super) fn check_log(
    dir: &DataDir,
    stored: &StoredIdentity,
    fs: &dyn FileSystem,
) -> Result<(), OpenError> {
    // A node that has joined makes its log only then.
    if !stored.founded || dir.has_log(fs) {
        return Ok(());
    }
    let is_first = stored.identity.node_id == super::open::FIRST_NODE;
    let is_written = || dir.load_replicas().is_some_and(|replicas| !replicas.is_empty());
    if is_first || is_written() || !held(dir, fs).is_empty() {
        let (data_dir, cluster_id) = (dir.path().to_owned(), stored.identity.cluster_id);
        return Err(OpenError::LogMissing { data_dir, cluster_id });
    }
    Ok(())
}

/// Refuses a directory without an identity that holds other replicas than those of a founding node.
pub(super) fn check_lone(dir: &DataDir, fs: &dyn FileSystem) -> Result<(), OpenError> {
    let held = held(dir, fs);
    let is_other = |replica: &Option<ReplicaId>| replica.is_some_and(|replica| replica.0 != FIRST_REPLICA);
    let is_lone = held.is_empty() || (dir.has_log(fs) && held.contains_key(&CATALOG_GROUP));
    if is_lone && !held.values().any(is_other) { Ok(()) } else { Err(unknown(dir)) }
}

/// Like [`check_lone`], by the groups that the log has.
pub(super) fn check_lone_log(dir: &DataDir, recovered: &Recovered) -> Result<(), OpenError> {
    let groups = &recovered.groups;
    if groups.is_empty() || groups.contains(&CATALOG_GROUP) { Ok(()) } else { Err(unknown(dir)) }
}

/// Who the node is cannot be told: the identity is there and was not read, for want of room, or it is gone.
pub(super) fn unknown(dir: &DataDir) -> OpenError {
    let data_dir = dir.path().to_owned();
    if dir.has_identity() { OpenError::NoRoom { data_dir } } else { OpenError::IdentityLost { data_dir } }
}

fn held(dir: &DataDir, fs: &dyn FileSystem) -> BTreeMap<GroupId, Option<ReplicaId>> {
    noted_replicas(fs, dir.path(), groups_of(PARTITIONS_MAX))
}

#[cfg(test)]
mod tests {
    use fanfold_storage::fs::RealFs;

    use super::*;

    fn noted(dir: &DataDir, group: u32, replica: u64) {
        crate::raft::testing::write_note(&RealFs, dir.path(), GroupId(group), ReplicaId(replica));
    }

    #[test]
    fn only_a_founding_node_is_told_from_what_it_holds() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(temp.path()).unwrap();
        std::fs::create_dir(dir.log()).unwrap();
        check_lone(&dir, &RealFs).unwrap();
        std::fs::write(dir.log().join("0000000000000001.log"), "").unwrap();
        noted(&dir, 0, FIRST_REPLICA);
        noted(&dir, 3, FIRST_REPLICA);
        check_lone(&dir, &RealFs).unwrap();
        noted(&dir, 3, 7);
        assert!(matches!(check_lone(&dir, &RealFs), Err(OpenError::IdentityLost { .. })));
        noted(&dir, 3, FIRST_REPLICA);
        std::fs::remove_dir_all(temp.path().join("groups/0000")).unwrap();
        assert!(matches!(check_lone(&dir, &RealFs), Err(OpenError::IdentityLost { .. })));
        std::fs::create_dir(dir.identity()).unwrap();
        assert!(matches!(check_lone(&dir, &RealFs), Err(OpenError::NoRoom { .. })));
    }
}
