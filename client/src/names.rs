//! Owns the names of spaces and graphs and the ids behind them, fetched on first use.
//!
//! Invariant: ids never change and never vanish, so a name once known needs no second look; an unknown one is looked
//! up anew before it is an error.

use fanfold_protocol::message::SpaceInfo;
use fanfold_protocol::{GraphId, SpaceId};

use crate::error::Error;

/// The spaces that existed when the list was fetched.
#[derive(Debug)]
pub(crate) struct Names {
    spaces: Vec<SpaceInfo>,
}

impl Names {
    pub fn new(spaces: Vec<SpaceInfo>) -> Self {
        Self { spaces }
    }

    pub fn space(&self, name: &str) -> Result<SpaceId, Error> {
        let found = self.spaces.iter().find(|space| space.name == name);
        found.map(|space| space.id).ok_or_else(|| Error::UnknownSpace {
            name: name.to_owned(),
            known: self.spaces.iter().map(|space| space.name.clone()).collect(),
        })
    }

    pub fn graph(&self, name: &str) -> Result<GraphId, Error> {
        let found = self.spaces.iter().find(|space| space.graph_name == name);
        found.map(|space| space.graph).ok_or_else(|| {
            let mut known: Vec<String> = self.spaces.iter().map(|space| space.graph_name.clone()).collect();
            known.sort_unstable();
            known.dedup();
            Error::UnknownGraph { name: name.to_owned(), known }
        })
    }
}
