//! Owns the handle of a space: the start of every call on its timelines and feeds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_protocol::message::{
    Amend, EntryName, ExpiryChoice, Explain, Explanation, SetExpiry, WriteOp, WriteResult,
};
use fanfold_protocol::{EntryId, Field, Request, Response, Stamp, Token, UserId};

use crate::append::Append;
use crate::append_many::AppendMany;
use crate::call::Call;
use crate::core::{Core, Effect};
use crate::duration::ttl_ms;
use crate::entries::EntriesRead;
use crate::error::Error;
use crate::feed::FeedRead;
use crate::feeds::FeedsRead;
use crate::new_entry::NewEntry;
use crate::router::Target;
use crate::timeline::TimelineRead;

/// A space: a named family of timelines and feeds with one policy.
#[derive(Debug, Clone)]
pub struct Space {
    core: Arc<Core>,
    name: Arc<str>,
}

/// What came of an amend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amended {
    /// The entry's new version.
    pub version: u32,
    /// What later reads and waits refer to.
    pub token: Token,
}

/// What came of a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// Whether the entry was there before.
    pub existed: bool,
    /// What later reads and waits refer to.
    pub token: Token,
}

/// What came of a change of expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpirySet {
    /// When the entry expires; `None` is never.
    pub expiry: Option<Stamp>,
    /// What later reads and waits refer to.
    pub token: Token,
}

impl Space {
    pub(crate) fn new(core: Arc<Core>, name: Arc<str>) -> Self {
        Self { core, name }
    }

    /// The space's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Appends an entry to the owner's timeline; answered when it is durable, with its id. Fan-out goes on from there:
    /// to wait for it, give the token to [`Client::wait_delivered`](crate::Client::wait_delivered).
    pub fn append(&self, owner: UserId, payload: impl Into<Bytes>) -> Append {
        Append::new(self.core.clone(), self.name.clone(), NewEntry::new(owner, payload))
    }

    /// Appends many entries, of any owners, in few requests: one write per partition and 1,024 entries or 1 MiB.
    /// Entries of one owner get their ids in the order given, if they lie in one write.
    pub fn append_many(&self, entries: impl Into<Vec<NewEntry>>) -> AppendMany {
        AppendMany::new(self.core.clone(), self.name.clone(), entries.into())
    }

    /// Replaces an entry's payload if its version is the one expected; an entry starts at version 1.
    pub fn amend(
        &self,
        owner: UserId,
        id: EntryId,
        expected_version: u32,
        payload: impl Into<Bytes>,
    ) -> Call<Amended> {
        let (name, payload) = (self.name.clone(), payload.into());
        Call::new(self.core.clone(), move |core, deadline| async move {
            let entry = EntryName { space: core.space_id(&name, deadline).await?, owner, id };
            let op = WriteOp::Amend(Amend { entry, expected_version, payload });
            let written = core.write(owner, op, deadline).await?;
            match written.result {
                WriteResult::Amended { version } => Ok(Amended { version, token: written.token }),
                _ => Err(Error::unexpected_write()),
            }
        })
    }

    /// Deletes an entry of an owner. Deleting twice is accepted; deleting somebody else's entry is refused.
    pub fn delete(&self, owner: UserId, id: EntryId) -> Call<Deleted> {
        let name = self.name.clone();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let entry = EntryName { space: core.space_id(&name, deadline).await?, owner, id };
            let written = core.write(owner, WriteOp::Delete(entry), deadline).await?;
            match written.result {
                WriteResult::Deleted { existed } => Ok(Deleted { existed, token: written.token }),
                _ => Err(Error::unexpected_write()),
            }
        })
    }

    /// Makes an entry expire `ttl` from now (whole milliseconds, more than zero).
    pub fn set_expiry(&self, owner: UserId, id: EntryId, ttl: Duration) -> Call<ExpirySet> {
        self.expiry(owner, id, Some(ttl))
    }

    /// Makes an entry live for ever: a story becomes a highlight. Refused once the entry has expired.
    pub fn clear_expiry(&self, owner: UserId, id: EntryId) -> Call<ExpirySet> {
        self.expiry(owner, id, None)
    }

    /// Reads the feed of a reader, newest first.
    pub fn feed(&self, reader: UserId) -> FeedRead {
        FeedRead::new(self.core.clone(), self.name.clone(), reader)
    }

    /// Reads the first page of many readers' feeds at once.
    pub fn feeds(&self, readers: &[UserId]) -> FeedsRead {
        FeedsRead::new(self.core.clone(), self.name.clone(), readers.to_vec())
    }

    /// Reads the timeline of an owner, newest first.
    pub fn timeline(&self, owner: UserId) -> TimelineRead {
        TimelineRead::new(self.core.clone(), self.name.clone(), owner)
    }

    /// Reads entries by id, hydrated, in the order given; `None` stands where there is no such entry for the viewer.
    pub fn entries(&self, ids: &[EntryId]) -> EntriesRead {
        EntriesRead::new(self.core.clone(), self.name.clone(), ids.to_vec())
    }

    /// Says why an entry is, or is not, in a reader's feed.
    pub fn explain(&self, reader: UserId, entry: EntryId) -> Call<Explanation> {
        let name = self.name.clone();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let space = core.space_id(&name, deadline).await?;
            let request = Request::Explain(Explain { space, reader, entry });
            match core.ask(Target::User(reader), &request, Effect::None, deadline).await? {
                Response::Explanation(explanation) => Ok(explanation),
                _ => Err(Error::unexpected_read()),
            }
        })
    }

    fn expiry(&self, owner: UserId, id: EntryId, ttl: Option<Duration>) -> Call<ExpirySet> {
        let name = self.name.clone();
        Call::new(self.core.clone(), move |core, deadline| async move {
            let expiry = match ttl {
                Some(ttl) => ExpiryChoice::InMs(ttl_ms(Field::Expiry, ttl)?),
                None => ExpiryChoice::Clear,
            };
            let entry = EntryName { space: core.space_id(&name, deadline).await?, owner, id };
            let written =
                core.write(owner, WriteOp::SetExpiry(SetExpiry { entry, expiry }), deadline).await?;
            match written.result {
                WriteResult::ExpirySet { expiry } => Ok(ExpirySet { expiry, token: written.token }),
                _ => Err(Error::unexpected_write()),
            }
        })
    }
}
