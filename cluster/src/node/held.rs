//! Owns what a data directory must not be opened with: a part missing that other nodes count on.
//!
//! - A replica whose log is gone has forgotten its votes and what it acknowledged: it must never take part again.
//! - Nor may one with the log of another node: it would go by that one's votes.
//! - Without an identity only the node that founded a cluster and is alone in it can be told from its log. Nothing is
//!   formed in the directory of any other.

use std::collections::BTreeMap;
use std::io;

use fanfold_storage::fs::FileSystem;
use fanfold_storage::log::{GroupId, Recovered};

use super::FIRST_REPLICA;
use super::host::{Host, groups_of};
use super::open::FIRST_NODE;
use crate::catalog::CATALOG_GROUP;
use crate::error::OpenError;
use crate::identity::{DataDir, Identity, StoredIdentity};
use crate::options::PARTITIONS_MAX;
use crate::owner;
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
    let is_first = stored.identity.node_id == FIRST_NODE;
    let is_written = || dir.load_replicas().is_some_and(|replicas| !replicas.is_empty());
    if is_first || is_written() || !held(dir, fs).is_empty() {
        let Identity { cluster_id, node_id: node } = stored.identity;
        return Err(OpenError::LogMissing { data_dir: dir.path().to_owned(), cluster_id, node });
    }
    Ok(())
}

/// Refuses the log of another node, before anything of it is changed. `stored` is who the directory says that this one is.
pub(super) fn check_owner(
    dir: &DataDir,
    stored: Option<&StoredIdentity>,
    fs: &dyn FileSystem,
) -> Result<(), OpenError> {
    let (data_dir, own) = (dir.path().to_owned(), stored.map(|stored| stored.identity));
    let found = match owner::read(fs, &dir.log()) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(OpenError::LogNote { path: owner::path(&dir.log()) });
        }
        Err(source) => return Err(OpenError::Io { path: owner::path(&dir.log()), source }),
        Ok(found) => found,
    };
    match (own, found) {
        // The log tells who the founding node is; who any other one is, nothing does any more.
        (None, Some(log)) if log.node_id != FIRST_NODE => Err(unknown(dir)),
        // It has none before it has joined.
        (Some(Identity { node_id: 0, .. }), Some(log)) => {
            Err(OpenError::LogOfAnother { data_dir, node: 0, log: log.node_id })
        }
        (Some(Identity { node_id: 0, .. }), None) if dir.has_log(fs) => {
            Err(OpenError::NotADataDirectory { data_dir, foreign: dir.log() })
        }
        (Some(own), Some(log)) if log.cluster_id != own.cluster_id => {
            Err(OpenError::IdentityDiffers { data_dir, identity: own.cluster_id, log: log.cluster_id })
        }
        (Some(own), Some(log)) if log != own => {
            Err(OpenError::LogOfAnother { data_dir, node: own.node_id, log: log.node_id })
        }
        _ => Ok(()),
    }
}

/// Notes in the log whose it is, unless that stands there. It is a guard, and a node goes on without it: on a full disk.
pub(super) async fn note_owner(host: &Host, identity: Identity) {
    let (fs, log_dir) = (host.opening.options.fs.clone(), host.dir.log());
    let noted = crate::blocking::blocking(move || match owner::read(&*fs, &log_dir) {
        Ok(Some(known)) if known == identity => Ok(()),
        _ => owner::write(&*fs, &log_dir, identity),
    });
    if let Ok(Err(error)) = noted.await {
        tracing::warn!(%error, "whose the log is was not noted in its directory; the next start tries again");
    }
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
