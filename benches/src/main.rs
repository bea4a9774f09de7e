//! The program `fanfold-bench`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfold_bench::cli::main()
}
