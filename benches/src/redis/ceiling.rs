//! Owns the proof that the client is no bottleneck: the same commands from `redis-benchmark` and from this client, on one empty server.
//!
//! - 50 connections with 16 commands under way each, as `redis-benchmark -c 50 -P 16`; one RPUSH of an id, one LRANGE of 20 ids.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::control::Control;
use super::error::RedisError;
use super::keys;
use super::process::RedisProcess;
use super::pump::{Load, Micros, Pump};
use super::resp::{self, Reply};
use super::socket::Socket;
use crate::load::graph::Draws;

const CONNECTIONS: usize = 50;
const DEPTH: u32 = 16;
/// Lists that are pushed to and read.
const LISTS: u64 = 10_000;
/// Commands of each measurement.
const COMMANDS: u64 = if cfg!(debug_assertions) { 20_000 } else { 500_000 };

/// Commands a second of both clients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ceiling {
    /// RPUSH from redis-benchmark; none if it is not installed.
    pub benchmark_rpush: Option<f64>,
    /// LRANGE of 20 from redis-benchmark; none if it is not installed.
    pub benchmark_lrange: Option<f64>,
    /// RPUSH from this client.
    pub client_rpush: f64,
    /// LRANGE of 20 from this client.
    pub client_lrange: f64,
}

impl Ceiling {
    /// Names and numbers for a report.
    pub fn notes(&self) -> impl Iterator<Item = (&'static str, f64)> + use<> {
        [
            ("ceiling_rpush_redis_benchmark", self.benchmark_rpush),
            ("ceiling_rpush_client", Some(self.client_rpush)),
            ("ceiling_lrange_redis_benchmark", self.benchmark_lrange),
            ("ceiling_lrange_client", Some(self.client_lrange)),
        ]
        .into_iter()
        .filter_map(|(name, number)| Some((name, number?)))
    }
}

/// Measures both clients on a server of its own, which ends with this call.
///
/// # Errors
///
/// If Redis is not installed or a command fails. Without redis-benchmark only this client is measured.
pub fn measure(directory: Option<&Path>) -> Result<Ceiling, RedisError> {
    let redis = RedisProcess::start(directory)?;
    let address = redis.address();
    let id = keys::id_of(0).to_string();
    let mut out = Vec::new();
    for list in 0..LISTS {
        resp::begin(&mut out, 22);
        resp::argument(&mut out, b"RPUSH");
        // The keys as redis-benchmark makes them.
        resp::argument(&mut out, format!("k{list:012}").as_bytes());
        (0..20).for_each(|_| resp::argument(&mut out, id.as_bytes()));
    }
    let mut control = Control::connect(address)?;
    control.send(&out)?;
    for _ in 0..LISTS {
        control.reply(|_| ())?;
    }
    // Reads first: the lists grow afterwards.
    let read = ["LRANGE", "k__rand_int__", "-20", "-1"];
    let push = ["RPUSH", "k__rand_int__", &id];
    Ok(Ceiling {
        benchmark_lrange: benchmark(address, &read)?,
        client_lrange: client(address, &read)?,
        benchmark_rpush: benchmark(address, &push)?,
        client_rpush: client(address, &push)?,
    })
}

fn benchmark(address: SocketAddr, command: &[&str]) -> Result<Option<f64>, RedisError> {
    let output = Command::new("redis-benchmark")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "--csv"])
        .args(["-c", &CONNECTIONS.to_string(), "-P", &DEPTH.to_string()])
        .args(["-n", &COMMANDS.to_string(), "-r", &LISTS.to_string()])
        .args(command)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RedisError::Start { program: "redis-benchmark", source }),
        Ok(output) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    rate(&text).map(Some).ok_or(RedisError::Benchmark { status: output.status })
}

/// The rate in the last line of the table: `"LRANGE …","123456.78",…`.
fn rate(csv: &str) -> Option<f64> {
    let line = csv.lines().rev().find(|line| !line.trim().is_empty())?;
    line.split("\",\"").nth(1)?.trim_matches('"').parse().ok()
}

fn client(address: SocketAddr, command: &[&str]) -> Result<f64, RedisError> {
    let mut pump = Pump::connect(&[address], CONNECTIONS)?;
    let mut plain =
        Plain { command, left: COMMANDS, answered: 0, under_way: [0; CONNECTIONS], draws: Draws::new(1, 2) };
    let start = pump.now();
    pump.run(&mut plain, |plain, _| plain.answered == COMMANDS)?;
    Ok(COMMANDS as f64 * 1e6 / (pump.now() - start).max(1) as f64)
}

/// The same command on random lists.
#[derive(Debug)]
struct Plain<'a> {
    command: &'a [&'a str],
    left: u64,
    answered: u64,
    under_way: [u32; CONNECTIONS],
    draws: Draws,
}

impl Load for Plain<'_> {
    fn issue(&mut self, lane: usize, sockets: &mut [Socket], _now: Micros) {
        while self.under_way[lane] < DEPTH && self.left > 0 {
            let out = &mut sockets[0].out;
            resp::begin(out, self.command.len());
            resp::argument(out, self.command[0].as_bytes());
            let mut key = *b"k000000000000";
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(self.draws.below(LISTS)).as_bytes();
            key[13 - digits.len()..].copy_from_slice(digits);
            resp::argument(out, &key);
            self.command[2..].iter().for_each(|word| resp::argument(out, word.as_bytes()));
            self.under_way[lane] += 1;
            self.left -= 1;
        }
    }

    fn reply(&mut self, lane: usize, _: usize, _: Reply<'_>, _: Micros) -> Result<(), RedisError> {
        self.under_way[lane] -= 1;
        self.answered += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::is_installed;
    use super::*;

    #[test]
    fn the_rate_is_found_in_the_table_of_redis_benchmark() {
        let csv = "\"test\",\"rps\",\"avg_latency_ms\"\n\"RPUSH k__rand_int__ 1\",\"543478.25\",\"1.370\"\n";
        assert_eq!(rate(csv), Some(543_478.25));
        assert_eq!(rate("Could not connect"), None);
    }

    #[test]
    fn both_clients_are_measured_on_one_server() {
        if !is_installed("redis-server") {
            println!("skipped: redis-server is not on the PATH");
            return;
        }
        let ceiling = measure(None).unwrap();
        assert!(ceiling.client_rpush > 0.0 && ceiling.client_lrange > 0.0);
        assert_eq!(ceiling.benchmark_rpush.is_some(), is_installed("redis-benchmark"));
    }
}
