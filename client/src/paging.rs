//! Owns what reads of feeds and timelines share: what every page is told, and how one follows another.

use std::sync::Arc;
use std::time::Duration;

use fanfold_protocol::message::{Consistency, Page};
use fanfold_protocol::{Cursor, Request, SlotIndex, SpaceId, Token, UserId};

use crate::consistency::Choice;
use crate::core::Core;
use crate::deadline::Deadline;
use crate::defaults;
use crate::error::Error;
use crate::patience::read_page;
use crate::router::Target;

/// What every page is told.
#[derive(Debug, Clone)]
pub(crate) struct Paging {
    core: Arc<Core>,
    space: Arc<str>,
    pub limit: u32,
    pub cursor: Option<Cursor>,
    pub at_least: Option<Token>,
    pub choice: Choice,
    pub hydrate: bool,
    pub deadline: Option<Duration>,
}

impl Paging {
    pub fn new(core: Arc<Core>, space: Arc<str>) -> Self {
        Self {
            core,
            space,
            limit: defaults::PAGE_LIMIT,
            cursor: None,
            at_least: None,
            choice: Choice::default(),
            hydrate: false,
            deadline: None,
        }
    }

    /// The same for the page at a cursor, behind one with a token: whichever replica answers has that one's entries too.
    pub fn at(&self, cursor: Option<Cursor>, token: Option<Token>) -> Self {
        let is_any_replica = self.choice.is_any_replica(self.at_least.is_some());
        let at_least = token.filter(|_| is_any_replica).or(self.at_least);
        Self { cursor, at_least, ..self.clone() }
    }

    /// When a page that is begun now has to be there.
    pub fn until(&self) -> Deadline {
        self.core.deadline(self.deadline)
    }

    /// Reads a page of what a user owns.
    pub async fn read(
        &self,
        home: UserId,
        deadline: Deadline,
        request: impl FnOnce(SpaceId, Consistency) -> Request,
    ) -> Result<Page, Error> {
        let space = self.core.space_id(&self.space, deadline).await?;
        let consistency = self.choice.consistency(self.at_least.is_some());
        let target = Target::of_read(SlotIndex::of(home), consistency != Consistency::Leader);
        read_page(&self.core, target, &request(space, consistency), self.hydrate, deadline).await
    }
}
