//! Owns the three usual ways to write a post into its followers' feeds, as commands.
//!
//! | way | commands of a post |
//! | --- | --- |
//! | RPUSH | SET of the payload, RPUSH for each follower, LTRIM after one in 32 at random; all pipelined |
//! | Lua | SET of the payload, EVALSHA with up to 256 feeds' keys each; the script pushes, and trims where the slack is used up |
//! | function | one FCALL with the payload; the function reads the followers from a list in Redis and does the rest |

use super::keys::{self, List};
use super::plan::Plan;
use super::resp;
use crate::load::graph::Draws;

/// Keys sent with one call of the script.
const KEYS_PER_CALL: usize = 256;
/// Followers encoded between two looks at the backlog.
const PUSHES_PER_STEP: usize = 256;

/// How a post is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FanoutWay {
    /// Pushes pipelined by the client.
    Rpush,
    /// A script with the keys sent.
    Lua,
    /// A function whose follower lists live in Redis.
    Function,
}

impl FanoutWay {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rpush, Self::Lua, Self::Function];

    /// Its name in reports.
    pub fn name(self, instances: usize) -> &'static str {
        match (self, instances) {
            (Self::Rpush, 1) => "RPUSH pipelined",
            (Self::Rpush, _) => "RPUSH pipelined, 2 instances",
            (Self::Lua, 1) => "Lua with keys sent",
            (Self::Lua, _) => "Lua with keys sent, 2 instances",
            (Self::Function, 1) => "function, followers in Redis",
            (Self::Function, _) => "function, followers in Redis, 2 instances",
        }
    }
}

/// A post to be encoded for one instance.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// Its entry id.
    pub id: u64,
    /// Who posts.
    pub owner: u32,
    /// The server.
    pub instance: usize,
    /// Whether this instance stores the payload.
    pub with_payload: bool,
    /// Followers encoded so far.
    pub cursor: usize,
}

/// Encodes posts in one way.
#[derive(Debug)]
pub struct Encoder<'a> {
    plan: &'a Plan,
    way: FanoutWay,
    payload: Vec<u8>,
    script_sha: String,
    cap_argument: Vec<u8>,
    id_argument: Vec<u8>,
    draws: Draws,
}

impl<'a> Encoder<'a> {
    /// In this way, with this payload; `script_sha` as SCRIPT LOAD answered.
    pub fn new(plan: &'a Plan, way: FanoutWay, payload: Vec<u8>, script_sha: String) -> Self {
        let mut cap_argument = Vec::new();
        resp::argument(&mut cap_argument, format!("-{}", plan.feed_cap()).as_bytes());
        resp::argument(&mut cap_argument, b"-1");
        let draws = Draws::new(plan.graph().seed(), u64::from(plan.feed_cap()));
        Self { plan, way, payload, script_sha, cap_argument, id_argument: Vec::new(), draws }
    }

    /// The plan.
    pub fn plan(&self) -> &'a Plan {
        self.plan
    }

    /// Whether the payload is answered by a command of its own, the first of the post.
    pub fn answers_payload(&self) -> bool {
        self.way != FanoutWay::Function
    }

    /// Whether the integer of each reply stands for one delivery, or says how many.
    pub fn counts_each(&self) -> bool {
        self.way == FanoutWay::Rpush
    }

    /// Whether a post of `owner` needs commands on this instance.
    pub fn needs(&self, owner: u32, instance: usize, with_payload: bool) -> bool {
        with_payload || !self.plan.followers_on(owner, instance).is_empty()
    }

    /// Encodes a step of the job; how many replies that adds. The job is done when [`is_done`](Self::is_done) says so.
    pub fn step(&mut self, job: &mut Job, out: &mut Vec<u8>) -> u32 {
        match self.way {
            FanoutWay::Rpush => self.push_step(job, out),
            FanoutWay::Lua => self.script_step(job, out),
            FanoutWay::Function => self.function(job, out),
        }
    }

    /// Whether nothing of the job is left to encode, after at least one step.
    pub fn is_done(&self, job: &Job) -> bool {
        job.cursor >= self.plan.followers_on(job.owner, job.instance).len()
    }

    fn begin(&mut self, job: &Job, out: &mut Vec<u8>) -> u32 {
        if job.cursor > 0 || !job.with_payload {
            return 0;
        }
        super::filling::set_payload(out, job.id, &self.payload);
        1
    }

    fn push_step(&mut self, job: &mut Job, out: &mut Vec<u8>) -> u32 {
        let mut replies = self.begin(job, out);
        self.id_argument.clear();
        resp::number(&mut self.id_argument, job.id);
        let followers = self.plan.followers_on(job.owner, job.instance);
        let end = followers.len().min(job.cursor + PUSHES_PER_STEP);
        for reader in &followers[job.cursor..end] {
            out.extend_from_slice(b"*3\r\n$5\r\nRPUSH\r\n");
            resp::number(out, u64::from(*reader));
            out.extend_from_slice(&self.id_argument);
            replies += 1;
            if self.draws.next().is_multiple_of(keys::TRIM_ONE_IN) {
                out.extend_from_slice(b"*4\r\n$5\r\nLTRIM\r\n");
                resp::number(out, u64::from(*reader));
                out.extend_from_slice(&self.cap_argument);
                replies += 1;
            }
        }
        job.cursor = end;
        replies
    }

    fn script_step(&mut self, job: &mut Job, out: &mut Vec<u8>) -> u32 {
        let replies = self.begin(job, out);
        let followers = self.plan.followers_on(job.owner, job.instance);
        let end = followers.len().min(job.cursor + KEYS_PER_CALL);
        let some = &followers[job.cursor..end];
        if some.is_empty() {
            return replies;
        }
        resp::begin(out, some.len() + 4);
        resp::argument(out, b"EVALSHA");
        resp::argument(out, self.script_sha.as_bytes());
        resp::number(out, some.len() as u64);
        some.iter().for_each(|reader| resp::number(out, u64::from(*reader)));
        resp::number(out, job.id);
        job.cursor = end;
        replies + 1
    }

    fn function(&mut self, job: &mut Job, out: &mut Vec<u8>) -> u32 {
        resp::begin(out, if job.with_payload { 6 } else { 5 });
        resp::argument(out, b"FCALL");
        resp::argument(out, b"fanout");
        resp::argument(out, b"1");
        List::Followers(job.owner).key(out);
        resp::number(out, job.id);
        if job.with_payload {
            resp::argument(out, &self.payload);
        }
        job.cursor = usize::MAX;
        1
    }
}
