//! What a process uses, from `/proc`: CPU time and resident memory, of the server under load.

use std::{collections::BTreeMap, fs, io};

/// Reads the figures of one process.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
}

/// CPU time used up to a moment.
#[derive(Clone, Debug, Default)]
pub struct CpuTime {
    /// Nanoseconds of each thread: exact, but a thread that ended takes its share along.
    threads: BTreeMap<u64, u64>,
    /// The whole process in clock ticks, ended threads included.
    ticks: u64,
}

/// Clock ticks in a second, as Linux presents them to programs.
const TICKS_PER_SECOND: u64 = 100;

impl Meter {
    /// Of a process that is running.
    ///
    /// # Errors
    ///
    /// If there is no such process, or it is another user's.
    pub fn new(pid: u32) -> io::Result<Self> {
        let meter = Self { pid };
        meter.cpu()?;
        meter.rss_bytes()?;
        Ok(meter)
    }

    /// CPU time until now.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn cpu(&self) -> io::Result<CpuTime> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let entry = entry?;
            // A thread may end while the directory is read, and kernels without scheduler statistics have no such file.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let tid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let ns = text.split_whitespace().next().and_then(|field| field.parse().ok());
            if let (Some(tid), Some(ns)) = (tid, ns) {
                threads.insert(tid, ns);
            }
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is the program's name in parentheses, which may hold anything; utime and stime are fields 14 and 15.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let ticks =
            after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(CpuTime { threads, ticks })
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub fn rss_bytes(&self) -> io::Result<u64> {
        // `statm` is a sum of per-thread counters that may lag; this one counts pages.
        if let Ok(rollup) = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))
            && let Some(kib) = rollup
                .lines()
                .find_map(|line| line.strip_prefix("Rss:"))
                .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        {
            return Ok(kib * 1024);
        }
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid))?;
        let pages: Option<u64> = statm.split_whitespace().nth(1).and_then(|field| field.parse().ok());
        pages
            .map(|pages| pages * rustix::param::page_size() as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no memory figures in /proc"))
    }
}

impl CpuTime {
    /// Seconds used since an earlier reading: to the nanosecond, or to 10 ms if a thread has ended meanwhile or the kernel keeps
    /// no scheduler statistics.
    #[must_use]
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        let complete =
            !self.threads.is_empty() && earlier.threads.keys().all(|tid| self.threads.contains_key(tid));
        if complete {
            let sum = |time: &Self| time.threads.values().sum::<u64>();
            return sum(self).saturating_sub(sum(earlier)) as f64 / 1e9;
        }
        self.ticks.saturating_sub(earlier.ticks) as f64 / TICKS_PER_SECOND as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself_use_memory_and_time() {
        let meter = Meter::new(std::process::id()).unwrap();
        let before = meter.cpu().unwrap();
        assert!(meter.rss_bytes().unwrap() > 100_000);
        let mut sum = 0_u64;
        while meter.cpu().unwrap().seconds_since(&before) == 0.0 {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 7);
        }
    }

    #[test]
    fn an_ended_thread_makes_the_whole_process_count() {
        let earlier = CpuTime { threads: [(1, 500), (2, 900)].into(), ticks: 10 };
        let with = CpuTime { threads: [(1, 1_500), (2, 900), (3, 100)].into(), ticks: 11 };
        assert!((with.seconds_since(&earlier) - 1.1e-6).abs() < 1e-12);
        let without = CpuTime { threads: [(1, 1_500)].into(), ticks: 13 };
        assert!((without.seconds_since(&earlier) - 0.03).abs() < 1e-12);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        Meter::new(u32::MAX - 7).unwrap_err();
    }
}
