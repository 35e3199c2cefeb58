//! Limits of the kernel that beds side by side exceed.

use std::fs;
use std::path::Path;

/// Every component of Kubernetes watches some files, each with an instance of its own; a usual limit is 128, which
/// three beds at a time exceed. A kubelet or kube-proxy that gets none ends.
const LIMITS: [(&str, u64); 2] = [
    ("fs/inotify/max_user_instances", 8192),
    ("fs/inotify/max_user_watches", 524_288),
];

/// Raises what is too low, where that is allowed. A container's host may forbid it; a bed may work all the same.
pub(crate) fn raise_limits() {
    for (name, wanted) in LIMITS {
        let path = Path::new("/proc/sys").join(name);
        let present = fs::read_to_string(&path).unwrap_or_default();
        if present
            .trim()
            .parse()
            .is_ok_and(|present: u64| present < wanted)
        {
            let _ = fs::write(&path, wanted.to_string());
        }
    }
}
