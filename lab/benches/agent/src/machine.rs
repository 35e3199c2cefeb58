//! The machine: its description, which core a thread runs on, and what the kernel counts for a process.
//! Must not know what is measured.

use std::fs;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Outcome;

/// Which cores are used: one for the measured program, one for everything else.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    measured: usize,
    helpers: usize,
}

impl Cores {
    /// The first two cores this process may use; none on a machine with one.
    pub fn find() -> Outcome<Option<Self>> {
        let set = sched_getaffinity(None)?;
        let mut free = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
        Ok(match (free.next(), free.next()) {
            (Some(measured), Some(helpers)) => Some(Self { measured, helpers }),
            _ => None,
        })
    }

    /// Keeps this thread, and the threads it starts, on the helpers' core.
    pub fn help(self) -> Outcome<()> {
        pin(self.helpers)
    }

    /// Runs `spawn` on the measured core: a process started in it stays there.
    pub fn measured<T>(self, spawn: impl FnOnce() -> T) -> Outcome<T> {
        pin(self.measured)?;
        let result = spawn();
        pin(self.helpers)?;
        Ok(result)
    }
}

fn pin(core: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// CPU time a process has used, all threads, user and system. The kernel counts in 10 ms.
pub fn cpu_time(pid: u32) -> Outcome<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or("unexpected /proc/PID/stat")?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || -> Outcome<u64> { Ok(fields.next().ok_or("too short")?.parse()?) };
    let ticks = next()? + next()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// The most it ever was.
    pub peak: u64,
}

/// Resident memory of a process.
pub fn memory(pid: u32) -> Outcome<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Outcome<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no such field")?.parse::<u64>()? * 1024)
    };
    Ok(Memory {
        now: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// One line: cores, processor, memory, kernel.
pub fn description() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let after_colon = |line: &str| {
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
    };
    let model = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(after_colon)
        .unwrap_or_else(|| "unknown processor".to_owned());
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_default();
    format!(
        "{cores} cores of {model}, {} GiB of memory, Linux {}",
        kib / 1024 / 1024,
        kernel.trim()
    )
}

/// How many processes wanted to run in the last minute: what else the machine was doing.
pub fn load_average() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or("?").to_owned()
}
