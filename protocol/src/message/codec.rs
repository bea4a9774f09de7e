//! Owns the choice of layout by opcode: which request and which answer an opcode stands for.

use crate::error::BodyError;
use crate::field::Field;
use crate::ids::SessionId;
use crate::message::page::Depth;
use crate::message::read::{READ_ENTRIES_MAX, READ_FEEDS_MAX};
use crate::message::{
    AlterSpace, ChangeCluster, CloseSession, ClusterChanged, ClusterView, Counts, CreateSpace, EdgePage,
    EntryView, Explain, Explanation, GetCounts, GetHot, HotList, InitCluster, JobStatus, Map, NodeStatus,
    OpenSession, PAUSED_MAX, Page, PauseFanOut, ReadEntries, ReadFeed, ReadFeeds, ReadTimeline, Request,
    Response, ScanEdges, SpaceInfo, StartJob, WaitDelivered, Write, Written,
};
use crate::opcode::Opcode;
use crate::status::{NAMES_MAX, Status};
use crate::wire::{Reader, Writer};

impl Request {
    /// The opcode of the request, and of its answer.
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Ping => Opcode::Ping,
            Self::GetMap => Opcode::GetMap,
            Self::ListSpaces => Opcode::ListSpaces,
            Self::CreateSpace(_) => Opcode::CreateSpace,
            Self::AlterSpace(_) => Opcode::AlterSpace,
            Self::OpenSession(_) => Opcode::OpenSession,
            Self::CloseSession(_) => Opcode::CloseSession,
            Self::Write(_) => Opcode::Write,
            Self::WaitDelivered(_) => Opcode::WaitDelivered,
            Self::ReadTimeline(_) => Opcode::ReadTimeline,
            Self::ReadEntries(_) => Opcode::ReadEntries,
            Self::ReadFeed(_) => Opcode::ReadFeed,
            Self::ReadFeeds(_) => Opcode::ReadFeeds,
            Self::GetCounts(_) => Opcode::GetCounts,
            Self::ScanFollowees(_) => Opcode::ScanFollowees,
            Self::ScanFollowers(_) => Opcode::ScanFollowers,
            Self::Explain(_) => Opcode::Explain,
            Self::GetStatus => Opcode::GetStatus,
            Self::WaitDrained => Opcode::WaitDrained,
            Self::AcceptClock => Opcode::AcceptClock,
            Self::StartJob(_) => Opcode::StartJob,
            Self::GetJob(_) => Opcode::GetJob,
            Self::CancelJob(_) => Opcode::CancelJob,
            Self::GetCluster => Opcode::GetCluster,
            Self::ChangeCluster(_) => Opcode::ChangeCluster,
            Self::InitCluster(_) => Opcode::InitCluster,
            Self::GetHot(_) => Opcode::GetHot,
            Self::PauseFanOut(_) => Opcode::PauseFanOut,
            Self::ListPaused => Opcode::ListPaused,
        }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Ping
            | Self::GetMap
            | Self::ListSpaces
            | Self::GetStatus
            | Self::WaitDrained
            | Self::AcceptClock
            | Self::GetCluster
            | Self::ListPaused => {}
            Self::CreateSpace(request) => request.encode(w),
            Self::AlterSpace(request) => request.encode(w),
            Self::OpenSession(request) => request.encode(w),
            Self::CloseSession(request) => request.encode(w),
            Self::Write(request) => request.encode(w),
            Self::WaitDelivered(request) => request.encode(w),
            Self::ReadTimeline(request) => request.encode(w),
            Self::ReadEntries(request) => request.encode(w),
            Self::ReadFeed(request) => request.encode(w),
            Self::ReadFeeds(request) => request.encode(w),
            Self::GetCounts(request) => request.encode(w),
            Self::ScanFollowees(request) | Self::ScanFollowers(request) => request.encode(w),
            Self::Explain(request) => request.encode(w),
            Self::StartJob(request) => request.encode(w),
            Self::GetJob(job) | Self::CancelJob(job) => w.number(*job),
            Self::ChangeCluster(request) => request.encode(w),
            Self::InitCluster(request) => request.encode(w),
            Self::GetHot(request) => request.encode(w),
            Self::PauseFanOut(request) => request.encode(w),
        }
    }

    pub(crate) fn decode(opcode: Opcode, r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match opcode {
            Opcode::Ping => Self::Ping,
            Opcode::Batch => return Err(BodyError::Malformed { field: Field::Body }),
            Opcode::GetMap => Self::GetMap,
            Opcode::ListSpaces => Self::ListSpaces,
            Opcode::CreateSpace => Self::CreateSpace(CreateSpace::decode(r)?),
            Opcode::AlterSpace => Self::AlterSpace(AlterSpace::decode(r)?),
            Opcode::OpenSession => Self::OpenSession(OpenSession::decode(r)?),
            Opcode::CloseSession => Self::CloseSession(CloseSession::decode(r)?),
            Opcode::Write => Self::Write(Write::decode(r)?),
            Opcode::WaitDelivered => Self::WaitDelivered(WaitDelivered::decode(r)?),
            Opcode::ReadTimeline => Self::ReadTimeline(ReadTimeline::decode(r)?),
            Opcode::ReadEntries => Self::ReadEntries(ReadEntries::decode(r)?),
            Opcode::ReadFeed => Self::ReadFeed(ReadFeed::decode(r)?),
            Opcode::ReadFeeds => Self::ReadFeeds(ReadFeeds::decode(r)?),
            Opcode::GetCounts => Self::GetCounts(GetCounts::decode(r)?),
            Opcode::ScanFollowees => Self::ScanFollowees(ScanEdges::decode(r)?),
            Opcode::ScanFollowers => Self::ScanFollowers(ScanEdges::decode(r)?),
            Opcode::Explain => Self::Explain(Explain::decode(r)?),
            Opcode::GetStatus => Self::GetStatus,
            Opcode::WaitDrained => Self::WaitDrained,
            Opcode::AcceptClock => Self::AcceptClock,
            Opcode::StartJob => Self::StartJob(StartJob::decode(r)?),
            Opcode::GetJob => Self::GetJob(r.number(Field::Job)?),
            Opcode::CancelJob => Self::CancelJob(r.number(Field::Job)?),
            Opcode::GetCluster => Self::GetCluster,
            Opcode::ChangeCluster => Self::ChangeCluster(ChangeCluster::decode(r)?),
            Opcode::InitCluster => Self::InitCluster(InitCluster::decode(r)?),
            Opcode::GetHot => Self::GetHot(GetHot::decode(r)?),
            Opcode::PauseFanOut => Self::PauseFanOut(PauseFanOut::decode(r)?),
            Opcode::ListPaused => Self::ListPaused,
        })
    }
}

impl Response {
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Pong | Self::Done => {}
            Self::Map(map) => map.encode(w),
            Self::Spaces(spaces) => {
                w.count(spaces.len());
                for space in spaces {
                    space.encode(w);
                }
            }
            Self::Space(space) => space.encode(w),
            Self::SessionOpened(session) => w.number(session.0),
            Self::Written(written) => written.encode(w),
            Self::Page(page) => page.encode(w),
            Self::Entries(entries) => encode_entries(w, entries),
            Self::Pages(pages) => encode_pages(w, pages),
            Self::Counts(counts) => counts.encode(w),
            Self::Edges(page) => page.encode(w),
            Self::Explanation(explanation) => explanation.encode(w),
            Self::NodeStatus(status) => status.encode(w),
            Self::Job(status) => status.encode(w),
            Self::Cluster(view) => view.encode(w),
            Self::ClusterChanged(changed) => changed.encode(w),
            Self::Hot(list) => list.encode(w),
            Self::Paused(owners) => w.users(owners),
        }
    }

    pub(crate) fn decode(opcode: Opcode, r: &mut Reader) -> Result<Self, BodyError> {
        Ok(match opcode {
            Opcode::Ping => Self::Pong,
            Opcode::Batch => return Err(BodyError::Malformed { field: Field::Body }),
            Opcode::CloseSession
            | Opcode::WaitDelivered
            | Opcode::WaitDrained
            | Opcode::AcceptClock
            | Opcode::InitCluster
            | Opcode::PauseFanOut => Self::Done,
            Opcode::GetMap => Self::Map(Map::decode(r)?),
            Opcode::ListSpaces => Self::Spaces(decode_spaces(r)?),
            Opcode::CreateSpace | Opcode::AlterSpace => Self::Space(SpaceInfo::decode(r)?),
            Opcode::OpenSession => Self::SessionOpened(SessionId(r.number(Field::Session)?)),
            Opcode::Write => Self::Written(Written::decode(r)?),
            Opcode::ReadTimeline | Opcode::ReadFeed => Self::Page(Page::decode(r)?),
            Opcode::ReadEntries => Self::Entries(decode_entries(r)?),
            Opcode::ReadFeeds => Self::Pages(decode_pages(r)?),
            Opcode::GetCounts => Self::Counts(Counts::decode(r)?),
            Opcode::ScanFollowees | Opcode::ScanFollowers => Self::Edges(EdgePage::decode(r)?),
            Opcode::Explain => Self::Explanation(Explanation::decode(r)?),
            Opcode::GetStatus => Self::NodeStatus(NodeStatus::decode(r)?),
            Opcode::StartJob | Opcode::GetJob | Opcode::CancelJob => Self::Job(JobStatus::decode(r)?),
            Opcode::GetCluster => Self::Cluster(ClusterView::decode(r)?),
            Opcode::ChangeCluster => Self::ClusterChanged(ClusterChanged::decode(r)?),
            Opcode::GetHot => Self::Hot(HotList::decode(r)?),
            Opcode::ListPaused => Self::Paused(r.users(Field::Owners, PAUSED_MAX)?),
        })
    }
}

fn decode_spaces(r: &mut Reader) -> Result<Vec<SpaceInfo>, BodyError> {
    let count = r.count(Field::Space, SpaceInfo::BYTES_MIN, NAMES_MAX)?;
    r.items(count, SpaceInfo::decode)
}

fn encode_entries(w: &mut Writer, entries: &[Option<EntryView>]) {
    w.count(entries.len());
    for entry in entries {
        w.boolean(entry.is_some());
        if let Some(entry) = entry {
            entry.encode(w, None, Depth::Outer);
        }
    }
}

fn decode_entries(r: &mut Reader) -> Result<Vec<Option<EntryView>>, BodyError> {
    let count = r.count(Field::Entries, 1, READ_ENTRIES_MAX)?;
    r.items(count, |r| {
        let exists = r.boolean(Field::Entries)?;
        if exists { EntryView::decode(r, None, Depth::Outer).map(Some) } else { Ok(None) }
    })
}

fn encode_pages(w: &mut Writer, pages: &[Result<Page, Status>]) {
    w.count(pages.len());
    for page in pages {
        w.boolean(page.is_ok());
        match page {
            Ok(page) => page.encode(w),
            Err(status) => status.encode(w),
        }
    }
}

fn decode_pages(r: &mut Reader) -> Result<Vec<Result<Page, Status>>, BodyError> {
    let count = r.count(Field::Readers, 2, READ_FEEDS_MAX)?;
    r.items(count, |r| {
        let shown = r.boolean(Field::Readers)?;
        if shown { Page::decode(r).map(Ok) } else { Status::decode(r).map(Err) }
    })
}
