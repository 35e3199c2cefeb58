//! Statistics of the process from `/proc/self`.

use std::time::Duration;

/// One reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Bytes in memory.
    pub(super) resident: u64,
    /// Of these, anonymous bytes: heap and stacks.
    pub(super) anonymous: u64,
    /// Bytes of address space.
    pub(super) virtual_memory: u64,
    /// CPU time, user and system.
    pub(super) cpu_time: Duration,
}

impl Usage {
    /// `None` without that file system.
    pub(super) fn now() -> Option<Self> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line
                .trim_start_matches(':')
                .split_whitespace()
                .next()?
                .parse()
                .ok()?;
            Some(kib * 1024)
        };
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The command name in parentheses may hold spaces.
        let after_name = stat.rsplit_once(')')?.1;
        let mut fields = after_name.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Self {
            resident: bytes("VmRSS")?,
            anonymous: bytes("RssAnon")?,
            virtual_memory: bytes("VmSize")?,
            // Linux reports 100 Hz ticks to every process on the architectures this runs on.
            cpu_time: Duration::from_millis(user.saturating_add(system).saturating_mul(10)),
        })
    }
}
