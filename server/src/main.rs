//! The binary `fanfold`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_server::cli::main()
}
