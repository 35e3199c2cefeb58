//! The agent's process; the library has its modules.

fn main() -> std::process::ExitCode {
    otelagent_agent::process::main()
}
