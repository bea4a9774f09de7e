//! Owns what reads of feeds begin with: the reader, and the first run of its feed. Those of many feeds are looked up together, step
//! by step, so that their waits for memory overlap.
//!
//! - Each step touches what the one before asked for: index, user and head, newest cell, rows.

use super::Partition;
use super::delivered::Delivered;
use super::feed::Walk;
use super::read::FeedQuery;
use super::users::UserIndex;
use super::viewpoint::{LastScope, Viewpoint};
use crate::command::Refusal;
use crate::ids::{EntryId, RowPosition};

/// Rows of a run that are asked for ahead, at most: those of a usual page.
pub(super) const ROWS_AHEAD: usize = 32;

/// The runs of a feed that are still to be merged.
pub(super) struct Runs<'a> {
    walk: Option<Walk<'a>>,
    /// No reference behind the last run has a larger id.
    pub(super) older: EntryId,
}

impl<'a> Runs<'a> {
    fn new(walk: Option<Walk<'a>>) -> Self {
        Self { walk, older: EntryId::ZERO }
    }

    /// Whether there may be another run.
    pub(super) fn is_left(&self) -> bool {
        self.walk.is_some()
    }

    /// Replaces what `positions` holds by those of the next run, the largest first, and asks for the rows of the first `ahead`.
    pub(super) fn take(&mut self, table: &Delivered, ahead: usize, positions: &mut Vec<RowPosition>) {
        positions.clear();
        let older = self.walk.as_mut().and_then(|walk| walk.next_run(positions));
        self.older = older.unwrap_or_default();
        if older.is_none() {
            self.walk = None;
        }
        // Slices and backfills store what arrived earlier.
        if !positions.is_sorted_by(|newer, older| newer >= older) {
            positions.sort_unstable_by(|a, b| b.cmp(a));
        }
        positions.iter().take(ahead).for_each(|position| table.prefetch(*position));
    }

    /// Leaves the rest.
    pub(super) fn end(&mut self) {
        self.walk = None;
    }
}

/// What preparing needs memory for that is used again.
#[derive(Default)]
pub(super) struct FirstRuns {
    /// Where the readers are, most likely.
    users: Vec<Option<UserIndex>>,
    /// The positions of the first run of each read, by its place.
    pub(super) positions: Vec<Vec<RowPosition>>,
}

/// A read that can begin; the positions of its first run lie in [`FirstRuns`].
pub(super) struct Prepared<'a> {
    pub(super) view: Viewpoint<'a>,
    pub(super) runs: Runs<'a>,
}

impl Partition {
    /// Prepares reads, in the order asked, with the positions of the first run of each.
    pub(super) fn prepare<'a>(
        &'a self,
        queries: &[FeedQuery],
        scope: &mut LastScope<'a>,
        FirstRuns { users, positions }: &mut FirstRuns,
        prepared: &mut Vec<Result<Prepared<'a>, Refusal>>,
    ) {
        queries.iter().for_each(|query| self.users.prefetch_index(query.reader));
        users.clear();
        users.extend(queries.iter().map(|query| {
            let user = self.users.prefetch_user(query.reader);
            if let Some((feeds, user)) = scope.of(query.space).and_then(|scope| scope.feeds).zip(user) {
                feeds.prefetch_head(user.0);
            }
            user
        }));
        prepared.clear();
        prepared.extend(queries.iter().zip(users).map(|(query, likely)| {
            self.check_home(query.reader)?;
            let scope = scope.of(query.space).ok_or(Refusal::UnknownSpace)?;
            let index = self.users.find_at(query.reader, *likely);
            let view = Viewpoint::new(self, scope, query.reader, index);
            if let Some(user) = view.user.filter(|_| view.has_special) {
                user.prefetch_owners(&self.special, scope.graph);
            }
            let walk = view.index.and_then(|index| Some(scope.feeds?.walk(index.0)));
            walk.iter().for_each(Walk::prefetch);
            Ok(Prepared { view, runs: Runs::new(walk) })
        }));
        positions.resize_with(positions.len().max(queries.len()), Vec::new);
        let mut with_own = Vec::new();
        for ((query, prepared), positions) in queries.iter().zip(prepared).zip(positions) {
            let Ok(Prepared { view, runs }) = prepared else { continue };
            let ahead = query.limit.min(ROWS_AHEAD);
            runs.take(&self.delivered, ahead, positions);
            let oldest = positions.get(..ahead).unwrap_or(positions).last();
            let top = oldest.map_or(EntryId::ZERO, |oldest| self.delivered.top(*oldest));
            if view.user.is_some_and(|user| user.own.get(query.space) > top) {
                with_own.push((query.space, query.reader));
            }
        }
        // An own entry is in few pages.
        if !with_own.is_empty() {
            self.timelines.look_ahead_of_newest(&with_own);
        }
    }
}
