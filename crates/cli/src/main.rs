//! The program `kubectl-otelagent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    otelagent_cli::main()
}
