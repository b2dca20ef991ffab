//! What a process takes, as Linux counts it.

use std::fs;

use crate::workspace::WorkspaceError;

/// Ticks of `/proc/<pid>/stat` in a second: fixed for programs on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// User and system time since its start, in seconds.
    pub(crate) cpu_s: f64,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
}

/// Looks at a process.
///
/// # Errors
///
/// It has ended, or this is no Linux.
pub(crate) fn of(pid: u32) -> Result<Usage, WorkspaceError> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).map_err(|error| WorkspaceError(format!("{path}: {error}")))
    };
    // The pages themselves, where they may be counted; `status` sums up counters of threads, which lag.
    let (stat, memory) = (read("stat")?, read("smaps_rollup").or_else(|_| read("status"))?);
    parse(&stat, &memory).ok_or_else(|| WorkspaceError(format!("/proc/{pid} is not understood")))
}

fn parse(stat: &str, memory: &str) -> Option<Usage> {
    // The second field is the name, in parentheses, and may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("Rss:").or(line.strip_prefix("VmRSS:")))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu_s: ticks as f64 / TICKS_PER_SECOND, rss_bytes: kilobytes * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_even_if_its_name_looks_like_fields() {
        let stat = "7 (a) 1 S) S 1 7 7 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 3 0 1 1 1";
        let status = "Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(parse(stat, status), Some(Usage { cpu_s: 2.0, rss_bytes: 2 << 20 }));
        let rollup = "55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:      1024 kB\nPss:  512 kB\n";
        assert_eq!(parse(stat, rollup), Some(Usage { cpu_s: 2.0, rss_bytes: 1 << 20 }));
        assert_eq!(parse("7 a", status), None);
        assert_eq!(parse(stat, "Name: a"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_takes_something() {
        assert!(of(std::process::id()).unwrap().rss_bytes > 0);
        assert!(of(u32::MAX).is_err());
    }
}
