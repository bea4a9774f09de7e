//! Owns what is said of the surroundings of a measurement: the machine, what it consists of, and what it compares with.

use std::fs;
use std::process::Command;

use fanfold_server::workload::machine::Machine;
use serde::Serialize;

use super::disk;

/// The machine and what figures depend on besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Surroundings {
    /// The machine and the program.
    #[serde(flatten)]
    pub machine: Machine,
    /// Model of the processor, if the system tells.
    pub cpu: Option<String>,
    /// Version of `redis-server`; none if it is not on the path.
    pub redis_server: Option<String>,
    /// Kind of file system that servers keep their files on, if the system tells.
    pub file_system: Option<&'static str>,
}

impl Surroundings {
    /// Looks around.
    pub fn here() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").ok();
        let redis = Command::new("redis-server").arg("--version").output().ok();
        Self {
            machine: Machine::here(),
            cpu: cpu.as_deref().and_then(cpu_model),
            redis_server: redis.and_then(|output| {
                redis_version(&String::from_utf8_lossy(&output.stdout)).map(str::to_owned)
            }),
            file_system: disk::file_system(),
        }
    }

    /// What it says besides the machine, in a line.
    pub fn details(&self) -> String {
        let known = |known: Option<&str>| known.unwrap_or("unknown").to_owned();
        let redis = self.redis_server.as_ref().map_or_else(|| "no".to_owned(), Clone::clone);
        format!(
            "processor {}, redis-server {redis}, files on {}",
            known(self.cpu.as_deref()),
            known(self.file_system)
        )
    }
}

impl std::fmt::Display for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}", self.machine, self.details())
    }
}

/// The first processor's model of `/proc/cpuinfo`.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The version in what `redis-server --version` says.
fn redis_version(said: &str) -> Option<&str> {
    said.split_ascii_whitespace().find_map(|word| word.strip_prefix("v="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_versions_are_found() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 143\nmodel name\t: Some Processor @ 2.9GHz\n";
        assert_eq!(cpu_model(cpuinfo).as_deref(), Some("Some Processor @ 2.9GHz"));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
        let said = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64\n";
        assert_eq!(redis_version(said), Some("7.0.15"));
        assert_eq!(redis_version(""), None);
    }
}
