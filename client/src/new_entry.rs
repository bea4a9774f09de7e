//! Owns the entry that is to be appended.

use std::time::Duration;

use bytes::Bytes;
use fanfold_protocol::message::{AppendItem, Audience, EntryRef, TtlChoice};
use fanfold_protocol::{Field, SpaceId, UserId};

use crate::duration::ttl_ms;
use crate::error::Error;

/// An entry to be appended.
#[derive(Debug, Clone)]
#[must_use = "an entry is only made when it is appended"]
pub struct NewEntry {
    owner: UserId,
    author: Option<UserId>,
    audience: Audience,
    ttl: Ttl,
    key: Option<Bytes>,
    reference: Option<EntryRef>,
    payload: Bytes,
}

#[derive(Debug, Clone, Copy)]
enum Ttl {
    SpaceDefault,
    Never,
    Of(Duration),
}

impl NewEntry {
    /// A public entry without key or reference that lives as long as its space says.
    pub fn new(owner: UserId, payload: impl Into<Bytes>) -> Self {
        Self {
            owner,
            author: None,
            audience: Audience::Public,
            ttl: Ttl::SpaceDefault,
            key: None,
            reference: None,
            payload: payload.into(),
        }
    }

    /// How long it lives, in whole milliseconds, more than zero. Default: as the space says.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Ttl::Of(ttl);
        self
    }

    /// It lives for ever, whatever the space says.
    pub fn never_expires(mut self) -> Self {
        self.ttl = Ttl::Never;
        self
    }

    /// An application key of at most 64 bytes: within the key window (24 h) a second append of the same owner under
    /// it makes no second entry, whoever sends it.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Who wrote it. Default: the owner.
    pub fn author(mut self, author: UserId) -> Self {
        self.author = Some(author);
        self
    }

    /// Who may see it. Default: everybody.
    pub fn audience(mut self, audience: Audience) -> Self {
        self.audience = audience;
        self
    }

    /// Another entry that it refers to: a reply, a repost.
    pub fn refer_to(mut self, reference: EntryRef) -> Self {
        self.reference = Some(reference);
        self
    }

    pub(crate) fn into_item(self, space: SpaceId) -> Result<AppendItem, Error> {
        let ttl = match self.ttl {
            Ttl::SpaceDefault => TtlChoice::SpaceDefault,
            Ttl::Never => TtlChoice::Never,
            Ttl::Of(ttl) => TtlChoice::Ms(ttl_ms(Field::Ttl, ttl)?),
        };
        Ok(AppendItem {
            space,
            owner: self.owner,
            author: self.author,
            audience: self.audience,
            ttl,
            key: self.key,
            reference: self.reference,
            payload: self.payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_beyond_the_wire_is_refused_here() {
        let refused = NewEntry::new(UserId(1), "x").ttl(Duration::MAX).into_item(SpaceId(1));
        assert!(matches!(refused, Err(Error::BadDuration { field: Field::Ttl, .. })));
    }
}
