//! The agent process; see the library for its rooms.

fn main() -> std::process::ExitCode {
    otelagent_agent::process::main()
}
