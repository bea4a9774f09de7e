//! Owns one fixed sample of everything that travels: what the golden files hold.

use fanfold_protocol::message::{FanOut, SpacePolicy};
use fanfold_protocol::{
    Call, Cursor, CursorScope, EdgePosition, EntryId, Frame, GraphId, LeaderHint, Mark, NodeId, Opcode,
    PartitionId, Request, RequestId, Response, SlotIndex, SpaceId, Stamp, Status, Token, UserId,
};

mod requests;
mod responses;

use requests::requests;
use responses::{refusals, responses};

const POSTS: SpaceId = SpaceId(1);
const FOLLOWS: GraphId = GraphId(1);
const ALICE: UserId = UserId(1001);
const BOB: UserId = UserId(1002);
const REQUEST: RequestId = RequestId(7);

/// Names and frames of all samples.
pub fn frames() -> Vec<(String, Frame)> {
    let mut frames: Vec<(String, Frame)> = Vec::new();
    for (name, request) in requests() {
        let call = Call { deadline_ms: Some(2_000), request };
        frames.push((format!("request_{name}"), call.to_frame(REQUEST)));
    }
    for (name, opcode, response) in responses() {
        frames.push((format!("response_{name}"), Frame::response(opcode.code(), REQUEST, &response)));
    }
    let ping = Call { deadline_ms: None, request: Request::Ping };
    let batch = [ping.to_frame(RequestId(8)), ping.to_frame(RequestId(9))];
    frames.push(("request_batch".to_owned(), Frame::batch(&batch)));
    let answers = [
        Frame::response(Opcode::Ping.code(), RequestId(9), &Response::Pong),
        Frame::refusal(Opcode::Write.code(), RequestId(8), &Status::Busy { delay_ms: 25 }),
    ];
    frames.push(("response_batch".to_owned(), Frame::batch(&answers)));
    let hint = LeaderHint { node: NodeId(3), address: "10.0.0.3:7117".to_owned() };
    let refused = Frame::refusal(Opcode::Write.code(), REQUEST, &Status::NotLeader { hint: Some(hint) });
    frames.push(("refusal_not_leader".to_owned(), refused));
    for (name, opcode, status) in refusals() {
        frames.push((format!("refusal_{name}"), Frame::refusal(opcode.code(), REQUEST, &status)));
    }
    let refused = Frame::connection_refusal(&Status::UnsupportedVersion { min: 1, max: 1 });
    frames.push(("refusal_unsupported_version".to_owned(), refused));
    frames
}

/// An entry id `seconds` after a fixed point in time.
pub fn entry_id(seconds: u64, owner: UserId) -> EntryId {
    let time = Stamp(820_000_000_000 + seconds * 1_000);
    EntryId::from_parts(time, 5, SlotIndex::of(owner)).expect("fits its bits")
}

/// The sample token.
pub fn token() -> Token {
    Token { partition: PartitionId(4), incarnation: 1, log_index: 90_210, journal_position: Some(77) }
}

/// The sample cursor of a feed.
pub fn feed_cursor() -> Cursor {
    Cursor {
        scope: CursorScope::Feed(POSTS),
        subject: BOB,
        below: entry_id(10, ALICE),
        as_of: 0,
        after: None,
    }
}

/// The sample cursor of a scan of followers.
pub fn edge_cursor() -> Cursor {
    let after = Some(EdgePosition { partition: PartitionId(2), user: BOB });
    Cursor { scope: CursorScope::Followers(FOLLOWS), subject: ALICE, below: EntryId(0), as_of: 0, after }
}

/// The sample mark.
pub fn mark() -> Mark {
    Mark {
        partition: PartitionId(4),
        incarnation: 1,
        row_position: 5_000_000_000,
        id_bound: entry_id(10, ALICE),
    }
}

fn policy() -> SpacePolicy {
    SpacePolicy {
        default_ttl_ms: Some(86_400_000),
        feed_cap: 800,
        horizon_ms: None,
        fan_out: FanOut::Auto,
        pull_threshold: 10_000,
        payload_bytes_max: 4_096,
        is_read_only: false,
    }
}
