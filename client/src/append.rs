//! Owns the append of one entry.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_protocol::message::{
    AppendItem, AppendOutcome, Audience, EntryRef, WriteOp, WriteResult, Written,
};
use fanfold_protocol::{EntryId, Token, UserId};
use futures_util::future::BoxFuture;

use crate::core::Core;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::new_entry::NewEntry;

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The entry's id.
    pub id: EntryId,
    /// Whether an earlier append under the same key had made it.
    pub duplicate: bool,
    /// What later reads and waits refer to.
    pub token: Token,
}

/// An append that is sent when it is awaited.
#[derive(Debug, Clone)]
#[must_use = "an append is only sent when it is awaited"]
pub struct Append {
    core: Arc<Core>,
    space: Arc<str>,
    entry: NewEntry,
    deadline: Option<Duration>,
}

impl Append {
    pub(crate) fn new(core: Arc<Core>, space: Arc<str>, entry: NewEntry) -> Self {
        Self { core, space, entry, deadline: None }
    }

    /// How long the entry lives, in whole milliseconds, more than zero. Default: as the space says.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.with(|entry| entry.ttl(ttl))
    }

    /// The entry lives for ever, whatever the space says.
    pub fn never_expires(self) -> Self {
        self.with(NewEntry::never_expires)
    }

    /// An application key of at most 64 bytes, see [`NewEntry::key`].
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        self.with(|entry| entry.key(key))
    }

    /// Who wrote it. Default: the owner.
    pub fn author(self, author: UserId) -> Self {
        self.with(|entry| entry.author(author))
    }

    /// Who may see it. Default: everybody.
    pub fn audience(self, audience: Audience) -> Self {
        self.with(|entry| entry.audience(audience))
    }

    /// Another entry that it refers to: a reply, a repost.
    pub fn refer_to(self, reference: EntryRef) -> Self {
        self.with(|entry| entry.refer_to(reference))
    }

    /// How long this call may take, connecting and retrying included.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    fn with(mut self, change: impl FnOnce(NewEntry) -> NewEntry) -> Self {
        self.entry = change(self.entry);
        self
    }

    async fn send(self, deadline: Deadline) -> Result<Appended, Error> {
        let core = self.core;
        let item = self.entry.into_item(core.space_id(&self.space, deadline).await?)?;
        write_alone(&core, item, deadline).await
    }
}

impl IntoFuture for Append {
    type Output = Result<Appended, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let deadline = self.core.deadline(self.deadline);
        Box::pin(self.send(deadline))
    }
}

/// Appends one entry in a write of its own.
pub(crate) async fn write_alone(
    core: &Core,
    item: AppendItem,
    deadline: Deadline,
) -> Result<Appended, Error> {
    let written = core.write(item.owner, WriteOp::Append(vec![item]), deadline).await?;
    outcomes(written, 1)?.pop().unwrap_or_else(|| Err(Error::unexpected_write()))
}

/// The answers to the items of one append.
pub(crate) fn outcomes(written: Written, count: usize) -> Result<Vec<Result<Appended, Error>>, Error> {
    let token = written.token;
    match written.result {
        WriteResult::Appended(outcomes) if outcomes.len() == count => Ok(outcomes
            .into_iter()
            .map(|outcome| match outcome {
                AppendOutcome::Ok { id, duplicate } => Ok(Appended { id, duplicate, token }),
                AppendOutcome::Refused(status) => {
                    let may_have_applied = status.may_have_applied();
                    Err(Error::Refused { status, may_have_applied })
                }
            })
            .collect()),
        _ => Err(Error::unexpected_write()),
    }
}
