//! Owns the event loop that drives all connections of a load from one thread.
//!
//! - One thread, no locks, no tasks: the load shares the machine with Redis, so that every cycle it spends is one that Redis misses.
//! - Sockets stand in lanes, one socket for each instance; lane `l` has the sockets `l × instances` and on. A load decides per lane.
//! - Time is read once for each visit of a socket.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::error::RedisError;
use super::resp::Reply;
use super::socket::Socket;
use crate::load::timer::{ALARM, Timer};

/// Encoding pauses while a socket has so much to send: a whale's commands are not all made at once.
pub const BACKLOG_BYTES_MAX: usize = 256 << 10;
/// Due posts and reads begun between two looks at the sockets.
const DUE_MAX: usize = 64;
/// Without anything due it wakes so often to ask about the time.
const ASKED_EVERY: Duration = Duration::from_millis(20);
/// Readiness taken from the system at once.
const EVENTS_MAX: usize = 256;

/// Time since the pump was made, in microseconds.
pub type Micros = u64;

/// What is done over the connections.
pub trait Load {
    /// Encodes what `lane` may send now into the outputs of its sockets.
    fn issue(&mut self, lane: usize, sockets: &mut [Socket], now: Micros);

    /// Takes one reply of the socket `instance` of `lane`.
    ///
    /// # Errors
    ///
    /// If it is not what the command answers.
    fn reply(
        &mut self,
        lane: usize,
        instance: usize,
        reply: Reply<'_>,
        now: Micros,
    ) -> Result<(), RedisError>;

    /// When something becomes due without a reply, for an open loop; none while no lane could take it.
    fn next_due(&self) -> Option<Micros> {
        None
    }

    /// The lane that should begin what is due.
    fn due_lane(&mut self, _now: Micros) -> Option<usize> {
        None
    }
}

/// The connections and their event loop.
#[derive(Debug)]
pub struct Pump {
    poll: Poll,
    timer: Timer,
    events: Events,
    sockets: Vec<Socket>,
    instances: usize,
    start: Instant,
}

impl Pump {
    /// Connects `lanes` times to each instance.
    ///
    /// # Errors
    ///
    /// If an instance does not accept connections.
    pub fn connect(addresses: &[SocketAddr], lanes: usize) -> Result<Self, RedisError> {
        let poll = Poll::new()?;
        let timer = Timer::new(poll.registry())?;
        let mut sockets = Vec::with_capacity(lanes * addresses.len());
        for _ in 0..lanes {
            for address in addresses {
                let token = Token(sockets.len());
                sockets.push(Socket::connect(*address, poll.registry(), token)?);
            }
        }
        let events = Events::with_capacity(EVENTS_MAX);
        Ok(Self { poll, timer, events, sockets, instances: addresses.len(), start: Instant::now() })
    }

    /// Time since the pump was made.
    pub fn now(&self) -> Micros {
        self.start.elapsed().as_micros() as Micros
    }

    /// Lanes.
    pub fn lanes(&self) -> usize {
        self.sockets.len() / self.instances
    }

    /// Lets every lane begin, then goes on until `until` says so, asked after every turn with the time.
    ///
    /// # Errors
    ///
    /// If a connection fails or the load refuses a reply.
    pub fn run<L: Load>(
        &mut self,
        load: &mut L,
        mut until: impl FnMut(&L, Micros) -> bool,
    ) -> Result<(), RedisError> {
        for lane in 0..self.lanes() {
            self.issue(load, lane)?;
        }
        loop {
            let now = self.now();
            if until(load, now) {
                return Ok(());
            }
            for _ in 0..DUE_MAX {
                // The time is read anew: each begins later than the one before.
                let Some(lane) = load.due_lane(self.now()) else { break };
                self.issue(load, lane)?;
            }
            let timeout = match load.next_due() {
                Some(due) if due <= self.now() => Duration::ZERO,
                Some(due) => {
                    self.timer.set(self.start + Duration::from_micros(due))?;
                    ASKED_EVERY
                }
                None => ASKED_EVERY,
            };
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            self.visit(load)?;
        }
    }

    fn visit<L: Load>(&mut self, load: &mut L) -> Result<(), RedisError> {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in events.iter().filter(|event| event.token() != ALARM) {
            let Token(index) = event.token();
            if event.is_readable() {
                self.take_replies(load, index)?;
            }
            self.issue(load, index / self.instances)?;
        }
        self.events = events;
        Ok(())
    }

    fn take_replies<L: Load>(&mut self, load: &mut L, index: usize) -> Result<(), RedisError> {
        let (lane, instance) = (index / self.instances, index % self.instances);
        let socket = &mut self.sockets[index];
        loop {
            let more = socket.receive()?;
            let now = self.start.elapsed().as_micros() as Micros;
            while let Some(reply) = socket.next_reply()? {
                load.reply(lane, instance, reply, now)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn issue<L: Load>(&mut self, load: &mut L, lane: usize) -> Result<(), RedisError> {
        let now = self.now();
        let first = lane * self.instances;
        let sockets = &mut self.sockets[first..first + self.instances];
        // Encoding stops at the backlog's limit. If the system takes it all at once, no readiness would call again.
        loop {
            load.issue(lane, sockets, now);
            let mut was_full = false;
            for socket in &mut *sockets {
                let full = socket.backlog_bytes() >= BACKLOG_BYTES_MAX;
                socket.flush()?;
                was_full |= full && socket.backlog_bytes() < BACKLOG_BYTES_MAX;
            }
            if !was_full {
                return Ok(());
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        for socket in &mut self.sockets {
            // The descriptors end with the sockets anyway.
            let _ = socket.deregister(self.poll.registry());
        }
    }
}
