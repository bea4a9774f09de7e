//! Owns the append of many entries: which writes they are cut into, and how the answers find their places.
//!
//! Invariants:
//! - The answers stand in the order of the entries, whatever partitions they went to.
//! - One write holds entries of one partition only, at most `APPEND_ITEMS_MAX` of them and `APPEND_BYTES_MAX` of
//!   payload (but always one).

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{AppendItem, WriteOp};
use fanfold_protocol::{Field, PartitionId, Status, UserId};
use futures_util::future::{BoxFuture, join_all};

use crate::append::{Appended, outcomes, write_alone};
use crate::core::Core;
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::new_entry::NewEntry;

/// An append of many entries that is sent when it is awaited; its answers stand in the order of the entries.
#[derive(Debug, Clone)]
#[must_use = "an append is only sent when it is awaited"]
pub struct AppendMany {
    core: Arc<Core>,
    space: Arc<str>,
    entries: Vec<NewEntry>,
    deadline: Option<Duration>,
}

impl AppendMany {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, entries: Vec<NewEntry>) -> Self {
        Self { core, space, entries, deadline: None }
    }

    /// How long this call may take, connecting and retrying included.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    async fn send(self, deadline: Deadline) -> Result<Vec<Result<Appended, Error>>, Error> {
        let core = self.core;
        let space = core.space_id(&self.space, deadline).await?;
        let partitions = core.map(deadline).await?.partitions();
        let items: Result<Vec<_>, _> = self.entries.into_iter().map(|entry| entry.into_item(space)).collect();
        let items = items?;
        let mut answers: Vec<Option<Result<Appended, Error>>> = items.iter().map(|_| None).collect();
        let writes = chunks(items, partitions).into_iter().map(|chunk| write_chunk(&core, chunk, deadline));
        for (place, answer) in join_all(writes).await.into_iter().flatten() {
            answers[place] = Some(answer);
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(Error::unexpected_write())))
            .collect())
    }
}

impl IntoFuture for AppendMany {
    type Output = Result<Vec<Result<Appended, Error>>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.send(deadline))
    }
}

/// The items of one write and where their answers belong.
struct Chunk {
    owner: UserId,
    items: Vec<AppendItem>,
    places: Vec<usize>,
    bytes: usize,
}

/// Cuts items into writes: by partition, each in the order given, within the limits of one write.
fn chunks(items: Vec<AppendItem>, partitions: u16) -> Vec<Chunk> {
    let mut full = Vec::new();
    let mut open: Vec<Option<Chunk>> = (0..partitions).map(|_| None).collect();
    for (place, item) in items.into_iter().enumerate() {
        let partition = PartitionId::of_user(item.owner, partitions);
        let bytes = item.payload.len();
        let slot = &mut open[usize::from(partition.0)];
        let fits = slot.as_ref().is_none_or(|chunk| {
            chunk.items.len() < defaults::APPEND_ITEMS_MAX
                && chunk.bytes + bytes <= defaults::APPEND_BYTES_MAX
        });
        if !fits {
            full.extend(slot.take());
        }
        let chunk = slot.get_or_insert_with(|| Chunk {
            owner: item.owner,
            items: Vec::new(),
            places: Vec::new(),
            bytes: 0,
        });
        chunk.bytes += bytes;
        chunk.places.push(place);
        chunk.items.push(item);
    }
    full.extend(open.into_iter().flatten());
    full
}

/// Appends the items of one write; each answer comes with the place of its item.
async fn write_chunk(core: &Core, chunk: Chunk, deadline: Deadline) -> Vec<(usize, Result<Appended, Error>)> {
    let count = chunk.items.len();
    let written = core.write(chunk.owner, WriteOp::Append(chunk.items.clone()), deadline).await;
    let answers = match written.and_then(|written| outcomes(written, count)) {
        Ok(answers) => answers,
        Err(error) if count > 1 && concerns_one_item(&error) => {
            // The server refused the whole write for an item that no space accepts; the others are sound.
            let alone = chunk.items.into_iter().map(|item| write_alone(core, item, deadline));
            join_all(alone).await
        }
        Err(error) => vec![Err(error); count],
    };
    chunk.places.into_iter().zip(answers).collect()
}

/// Whether a write was refused, without effect, for what one of its items holds.
fn concerns_one_item(error: &Error) -> bool {
    let Error::Refused { status, may_have_applied: false } = error else { return false };
    let (Status::TooLarge { field, .. } | Status::OutOfRange { field, .. }) = status else { return false };
    matches!(field, Field::Key | Field::Payload | Field::Ttl)
}

#[cfg(test)]
mod tests {
    use fanfold_protocol::SpaceId;

    use super::*;

    fn items(owners: impl IntoIterator<Item = u64>, bytes: usize) -> Vec<AppendItem> {
        let entry = |owner| NewEntry::new(UserId(owner), vec![0; bytes]).into_item(SpaceId(1));
        owners.into_iter().map(entry).collect::<Result<_, _>>().expect("no TTL")
    }

    #[test]
    fn chunks_hold_one_partition_each_and_keep_the_order() {
        let all = items(0..500, 1);
        let owners: Vec<UserId> = all.iter().map(|item| item.owner).collect();
        let chunks = chunks(all, 4);
        assert_eq!(chunks.len(), 4);
        for chunk in &chunks {
            let home = |item: &AppendItem| PartitionId::of_user(item.owner, 4);
            assert!(chunk.items.iter().all(|item| home(item) == home(&chunk.items[0])));
            assert!(chunk.places.is_sorted());
            assert!(chunk.places.iter().zip(&chunk.items).all(|(place, item)| owners[*place] == item.owner));
        }
        assert_eq!(chunks.iter().map(|chunk| chunk.items.len()).sum::<usize>(), 500);
    }

    #[test]
    fn chunks_keep_the_limits_of_one_write() {
        let by_count: Vec<usize> =
            chunks(items(vec![7; 2_500], 1), 1).iter().map(|chunk| chunk.items.len()).collect();
        assert_eq!(by_count, [1_024, 1_024, 452]);
        let half = defaults::APPEND_BYTES_MAX / 2;
        let by_bytes: Vec<usize> =
            chunks(items([7; 5], half), 1).iter().map(|chunk| chunk.items.len()).collect();
        assert_eq!(by_bytes, [2, 2, 1]);
    }
}
