//! Owns the parts of messages to people that depend on what an error has.

use fanfold_storage::ids::PartitionId;

use crate::raft::{self, Damage};

/// For messages to people: whose a data directory is.
pub(super) fn whose(node: u64) -> String {
    if node == 0 {
        "the rest of a node that has not joined yet".to_owned()
    } else {
        format!("the rest of node {node}")
    }
}

/// For messages to people: what becomes of a node that has another one's log.
pub(super) fn own_log(node: u64) -> String {
    if node == 0 {
        "and start this node with an empty data directory".to_owned()
    } else {
        format!(
            "and node {node}'s own here; if that is lost, start with an empty data directory and `fanfold node replace {node}`"
        )
    }
}

/// For messages to people: what else can be done about something that is gone, than to put it back.
pub(super) fn to_do(partition: PartitionId, source: &raft::OpenError) -> String {
    if !source.is_loss() {
        return String::new();
    }
    format!(
        "; if what was there is gone: restore the partition (`fanfold backup restore --partition {partition}`), let it go on with what is left \
         (`fanfold partition salvage {partition} --data-dir DIR --dry-run` says what that loses), or, in a cluster, start an empty \
         data directory and `fanfold node replace` this node by it"
    )
}

/// For messages to people: what can be done about a catalog that no other replica can give back here.
pub(super) fn catalog_to_do(source: &raft::OpenError) -> &'static str {
    if source.is_loss() || source.damage().is_some() {
        "; restore the node from a backup (`fanfold backup restore`), or, where other nodes have the catalog, start an empty data \
         directory and `fanfold node replace` this node by it"
    } else {
        ""
    }
}

/// For messages to people: who holds the lock.
pub(super) fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// What is damaged, with the file and where in it; another node does not say.
pub(crate) fn because(damage: Option<&Damage>) -> String {
    damage.map_or_else(
        || "`fanfold verify` of the node that has it names file and offset".to_owned(),
        |damage| damage.what.clone(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::OpenError;
    use super::*;

    #[test]
    fn a_catalog_without_a_whole_snapshot_says_what_to_do_and_one_that_is_held_does_not() {
        let gone = raft::OpenError::NoSnapshot { dir: "d".into(), index: None, purged: 4, damage: None };
        let said = OpenError::Catalog(gone).to_string();
        assert!(said.contains("behind index 4") && said.contains("`fanfold backup restore`"), "{said}");
        let other = raft::OpenError::NotMember { replica: crate::raft::ReplicaId(7) };
        assert!(!OpenError::Catalog(other).to_string().contains("backup"));
    }
}
