//! Owns what can go wrong on the Redis side of the harness.

use std::io;
use std::process::ExitStatus;

/// Why the Redis side could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// The program is not on the PATH.
    #[error(
        "{program} is not on the PATH: install the system's package of Redis (Debian: redis-server, redis-tools)"
    )]
    NotInstalled {
        /// What was looked for.
        program: &'static str,
    },
    /// The program could not be started.
    #[error("{program} could not be started")]
    Start {
        /// What was started.
        program: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The server ended before it was ready.
    #[error("redis-server ended before it was ready ({status}); its last line was: {last_line}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last line it printed.
        last_line: String,
    },
    /// Talking to the server failed.
    #[error("the connection to Redis failed")]
    Connection {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// The server closed a connection.
    #[error("Redis closed the connection")]
    Closed,
    /// The bytes received are not RESP2.
    #[error("byte {byte:#04x} cannot stand where Redis sent it")]
    Protocol {
        /// The first byte that does not belong there.
        byte: u8,
    },
    /// The server answered with an error.
    #[error("Redis refused a command: {answer}")]
    Refused {
        /// Its words.
        answer: String,
    },
    /// An answer had another shape than the command asks for.
    #[error("Redis answered {command} with something else than expected")]
    Unexpected {
        /// The command.
        command: &'static str,
    },
    /// A figure of the process could not be read.
    #[error("{file} of process {pid} could not be read")]
    Process {
        /// The file below /proc.
        file: &'static str,
        /// The process.
        pid: u32,
        /// Why it failed.
        source: io::Error,
    },
    /// The append-only file could not be written when it was switched on.
    #[error("Redis could not write its append-only file: aof_last_bgrewrite_status is not ok")]
    AppendOnly,
    /// redis-benchmark did not print what it usually prints.
    #[error("redis-benchmark ended with {status} and printed no rate")]
    Benchmark {
        /// How it ended.
        status: ExitStatus,
    },
}
