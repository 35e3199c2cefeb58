//! The settings of the allocator, so that free memory goes back to the system.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc reads these when a process starts, and never again.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// By itself, glibc raises both to the largest block that was ever freed, up to 32 MiB, and then keeps as much as twice
/// that (mallopt(3)): after a few large requests the process would have more than its memory limit. Fixed, blocks of
/// 128 KiB and more go back when they are freed, and so does what is free at the end of the heap.
const SETTINGS: &str = "glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=1048576";

/// Starts this program again with the settings, as the same process, unless the variable is set: a user knows better.
/// Where that is not possible the program goes on, and keeps more memory.
pub(super) fn settle() {
    if !cfg!(target_env = "gnu") || env::var_os(VARIABLE).is_some() {
        return;
    }
    // By its path, since the kernel names a process after what it executes.
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut arguments = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    // It comes back only if it fails.
    let _ = again.args(arguments).env(VARIABLE, SETTINGS).exec();
}
