//! Owns who the node of a data directory is: what its identity says, what the catalog says, and what is drawn or asked when
//! neither says anything.
//!
//! - The catalog's log decides what the cluster is; the identity must agree with it, or is rebuilt from it.
//! - Nothing is formed in a directory that may belong to somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fanfold_storage::log::GroupId;

use super::host::groups_of;
use super::join::Peering;
use super::open::FIRST_NODE;
use super::opening::formation_of;
use super::{FIRST_REPLICA, held};
use crate::catalog::{CATALOG_GROUP, CatalogState};
use crate::error::OpenError;
use crate::identity::{DataDir, Identity, StoredIdentity};
use crate::map::Whereabouts;
use crate::options::{NodeOptions, PARTITIONS_DEFAULT, Start};
use crate::raft::Formation;

/// The replicas of this node: as they were written down, or those that a founding node has.
pub(super) fn replicas_of(dir: &DataDir, stored: Option<&StoredIdentity>) -> BTreeMap<u32, u64> {
    dir.load_replicas().unwrap_or_else(|| match stored {
        Some(stored) if stored.identity.node_id == FIRST_NODE => {
            groups_of(stored.partitions).map(|group| (group.0, FIRST_REPLICA)).collect()
        }
        Some(_) => BTreeMap::new(),
        // How many there are, the catalog says.
        None => BTreeMap::from([(CATALOG_GROUP.0, FIRST_REPLICA)]),
    })
}

/// The groups that the next start opens and does not form, by what is written down: each has a directory. One that came later
/// than the node has it as soon as its log has anything of it.
pub(crate) fn groups_here(dir: &DataDir, stored: &StoredIdentity) -> BTreeSet<GroupId> {
    let catalog = dir.load_catalog();
    let is_given_up = |group: u32, replica: u64| {
        catalog.as_ref().is_some_and(|catalog| catalog.is_given_up(group, replica))
    };
    let is_formed = |replica| formation_of(replica, stored.founded) == Formation::Existing;
    let replicas = replicas_of(dir, Some(stored)).into_iter();
    let here = replicas.filter(|(group, replica)| is_formed(*replica) && !is_given_up(*group, *replica));
    here.map(|(group, _)| GroupId(group)).collect()
}

/// Joins the cluster if that is what this node is to do, and was not done before.
pub(super) async fn join(
    dir: &Arc<DataDir>,
    stored: Option<StoredIdentity>,
    options: &NodeOptions,
    peering: Option<&Peering>,
    whereabouts: &Whereabouts,
) -> Result<Option<StoredIdentity>, OpenError> {
    let Some(waiting) = stored.filter(|stored| stored.identity.node_id == 0) else {
        if let (Some(stored), Some(peering), Start::Join { addresses }) = (&stored, peering, &options.start) {
            peering.check_cluster(addresses, stored, options).await?;
        }
        return Ok(stored);
    };
    let Start::Join { addresses } = &options.start else {
        // It was to join, and founds a cluster instead.
        let identity = Identity { cluster_id: rand::random(), node_id: FIRST_NODE };
        let partitions = options.partitions.unwrap_or(waiting.partitions);
        let stored = StoredIdentity { identity, partitions, ..waiting };
        dir.store(&stored)?;
        return Ok(Some(stored));
    };
    let peering = peering.ok_or(OpenError::NoPeerListen)?;
    let (joined, state) = peering.join(addresses, options, &waiting).await?;
    same_partitions(dir.path(), joined.partitions, options)?;
    // The replicas first: with an identity and without them it would pass for a node of old.
    dir.store_replicas(&BTreeMap::new())?;
    dir.store_catalog(&state)?;
    dir.store(&joined)?;
    tracing::info!(node = joined.identity.node_id, "this node has joined the cluster");
    whereabouts.view.offer(state.epoch, || Arc::new(state));
    Ok(Some(joined))
}

/// Draws and stores the identity of a new directory; checks that of an old one. None: it is to be rebuilt from the log.
pub(super) fn begin(
    dir: &DataDir,
    stored: Option<StoredIdentity>,
    options: &NodeOptions,
) -> Result<Option<StoredIdentity>, OpenError> {
    let fs = options.fs.as_ref();
    held::check_owner(dir, stored.as_ref(), fs)?;
    let Some(stored) = stored else {
        held::check_lone(dir, fs)?;
        return if dir.has_log(fs) { Ok(None) } else { draw(dir, options).map(Some) };
    };
    if stored.identity.node_id != 0 {
        same_partitions(dir.path(), stored.partitions, options)?;
    }
    held::check_log(dir, &stored, fs)?;
    Ok(Some(stored))
}

/// Draws and stores a new identity. One that is to join has neither cluster nor node yet.
fn draw(dir: &DataDir, options: &NodeOptions) -> Result<StoredIdentity, OpenError> {
    let identity = match options.start {
        Start::Found { .. } => Identity { cluster_id: rand::random(), node_id: FIRST_NODE },
        Start::Join { .. } => Identity { cluster_id: 0, node_id: 0 },
    };
    let partitions = options.partitions.unwrap_or(PARTITIONS_DEFAULT);
    let stored = StoredIdentity { identity, partitions, founded: false, directory_id: rand::random() };
    dir.store(&stored)?;
    Ok(stored)
}

/// Makes identity and catalog agree: the catalog's log decides, if there is one here.
pub(super) fn reconcile(
    dir: &DataDir,
    stored: Option<StoredIdentity>,
    catalog: Option<&CatalogState>,
    options: &NodeOptions,
) -> Result<StoredIdentity, OpenError> {
    let known = catalog.and_then(|catalog| Some((catalog.cluster_id?, catalog)));
    let Some((cluster_id, catalog)) = known else {
        return match stored {
            Some(stored) if stored.founded && catalog.is_some() && stored.identity.node_id == FIRST_NODE => {
                let Identity { cluster_id, node_id: node } = stored.identity;
                Err(OpenError::LogMissing { data_dir: dir.path().to_owned(), cluster_id, node })
            }
            Some(stored) => Ok(stored),
            // The first start was stopped before the cluster was founded, so nothing was ever answered.
            None => draw(dir, options),
        };
    };
    if let Some(stored) = stored {
        if stored.identity.cluster_id != cluster_id || stored.partitions != catalog.partitions {
            let (data_dir, identity) = (dir.path().to_owned(), stored.identity.cluster_id);
            return Err(OpenError::IdentityDiffers { data_dir, identity, log: cluster_id });
        }
        if stored.directory_id != 0 {
            return Ok(stored);
        }
        // Made before directories had ids, or restored: it is the directory of that node now.
        let known = catalog.nodes.get(&stored.identity.node_id).map_or(0, |node| node.directory_id);
        let directory_id = if known == 0 { rand::random() } else { known };
        let stored = StoredIdentity { directory_id, ..stored };
        dir.store(&stored)?;
        return Ok(stored);
    }
    if catalog.nodes.len() > 1 {
        return Err(held::unknown(dir));
    }
    same_partitions(dir.path(), catalog.partitions, options)?;
    let known = catalog.nodes.get(&FIRST_NODE).map_or(0, |node| node.directory_id);
    let directory_id = if known == 0 { rand::random() } else { known };
    let identity = Identity { cluster_id, node_id: FIRST_NODE };
    Ok(StoredIdentity { identity, partitions: catalog.partitions, founded: true, directory_id })
}

fn same_partitions(data_dir: &Path, found: u16, options: &NodeOptions) -> Result<(), OpenError> {
    match options.partitions {
        Some(asked) if asked != found => {
            Err(OpenError::PartitionsDiffer { data_dir: data_dir.to_owned(), found, asked })
        }
        _ => Ok(()),
    }
}
