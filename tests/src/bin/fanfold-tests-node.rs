//! The node that tests run in a process of its own, and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_server::cli::main()
}
