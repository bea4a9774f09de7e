//! Owns the making of a sole voter out of what one replica has, when its group has lost its majority for good.
//!
//! - What the lost majority had acknowledged and this replica never got is lost; what this replica has and nobody had
//!   committed counts from then on. Nobody else of the old group may ever run again.
//! - The new membership is an entry behind all others, under a new replica id, of a term above all that the lost majority
//!   can have led in: whoever heard of one of those counts the new leader as the later.
//!   Stopped at any point, it can be done again.

use std::collections::{BTreeMap, BTreeSet};

use fanfold_storage::log::Record;

use super::codec::{LogIdBytes, VoteBytes, encode, encode_entry};
use super::error::OpenError;
use super::files::GroupDirectory;
use super::group::GroupSpec;
use super::log_store::{LogStore, LogStoreError};
use super::note::Note;
use super::types::{Entry, LeaderId, LogId, Membership, Payload, SnapshotMeta, Vote};

/// More terms than the group can have had that this replica never heard of.
const TERM_LEAP: u64 = 1 << 20;

/// Whether this replica was recovered already, or is to be; an error if there is nothing to recover from.
pub(super) fn is_due(spec: &GroupSpec, directory: &GroupDirectory) -> Result<bool, OpenError> {
    let replica = spec.replica;
    match Note::read(&*directory.fs, &directory.dir, spec.group)? {
        Some(Note { is_retired: true, .. }) => Err(OpenError::Retired { replica }),
        Some(note) => Ok(note.replica != replica),
        None => Ok(true),
    }
}

/// Writes the new membership behind everything that the log and the newest snapshot have.
pub(super) async fn append_membership(
    store: &LogStore,
    spec: &GroupSpec,
    newest: Option<&SnapshotMeta>,
) -> Result<(), OpenError> {
    let (last, vote) = store.ends()?;
    let included = newest.and_then(|meta| meta.last_log_id);
    let Some(before) = last.max(included) else { return Err(OpenError::Empty { replica: spec.replica }) };
    let term = before.leader_id.term.max(vote.map_or(0, |vote| vote.leader_id.term)) + TERM_LEAP;
    let (vote, entry) = sole_voter(spec, term, before.index + 1)?;
    let group = spec.group;
    let encoded = || {
        let mut records = vec![Record::Vote { group, data: encode(&VoteBytes::from(&vote))? }];
        if last < included {
            // The snapshot was put in place, and the log not yet purged behind it.
            let data = encode(&LogIdBytes::from(&before))?;
            records.push(Record::Purge { group, index: before.index, data });
        }
        records.push(Record::Append { group, index: entry.log_id.index, data: encode_entry(&entry)? });
        Ok::<_, LogStoreError>(records)
    };
    store.write(encoded()?).await?;
    tracing::warn!(
        group = group.0,
        replica = spec.replica.0,
        index = entry.log_id.index,
        "the group goes on with this replica alone; what only the others had is lost"
    );
    Ok(())
}

/// Writes the first entry of a group that nothing is left of.
pub(super) async fn begin(store: &LogStore, spec: &GroupSpec, term: u64) -> Result<(), OpenError> {
    let (vote, entry) = sole_voter(spec, term, 0)?;
    let group = spec.group;
    let encoded = || {
        let append = Record::Append { group, index: entry.log_id.index, data: encode_entry(&entry)? };
        Ok::<_, LogStoreError>(vec![Record::Vote { group, data: encode(&VoteBytes::from(&vote))? }, append])
    };
    store.write(encoded()?).await?;
    tracing::warn!(group = group.0, replica = spec.replica.0, "the group begins with nothing");
    Ok(())
}

/// The vote of a replica and the entry that makes it the sole voter.
fn sole_voter(spec: &GroupSpec, term: u64, index: u64) -> Result<(Vote, Entry), OpenError> {
    let leader_id = LeaderId { term, node_id: spec.replica };
    let address = spec.members.get(&spec.replica).cloned().unwrap_or_default();
    let voters = vec![BTreeSet::from([spec.replica])];
    let membership = Membership::new(voters, BTreeMap::from([(spec.replica, address)]));
    let membership = membership.map_err(|_| OpenError::NotMember { replica: spec.replica })?;
    let entry = Entry { log_id: LogId::new(leader_id, index), payload: Payload::Membership(membership) };
    Ok((Vote { leader_id, committed: false }, entry))
}
