//! What this process uses, as the operating system counts it, and how many files it may open.

use std::{fs, num::NonZeroU64, time::Duration};

use opamp_server::ServerSettings;
use rustix::{
    param::page_size,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// Files beside the sockets of the OpAMP port: database, log, the admin port, what the Self-Agent opens.
const FILES_RESERVED: usize = 256;

/// Sockets of the OpAMP port that no WebSocket may have: places for those who arrive, poll, download, or are told that there
/// is no room.
const ARRIVING_RESERVED: usize = 128;

/// What the process uses now. What the operating system does not tell is absent.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Time on processors since the start, in the process and in the kernel for it.
    pub(crate) cpu: Duration,
    /// Memory that is in RAM, in bytes.
    pub(crate) resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub(crate) virtual_bytes: Option<u64>,
    /// Open files, sockets included.
    pub(crate) open_files: Option<u64>,
    /// Threads.
    pub(crate) threads: Option<u64>,
}

impl Usage {
    /// Asks the operating system; of Linux a few small files in memory, nothing on a disk.
    pub(crate) fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let pages = |place: usize| {
            let pages = fs::read_to_string("/proc/self/statm").ok()?;
            let pages: u64 = pages.split_whitespace().nth(place)?.parse().ok()?;
            Some(pages * page_size() as u64)
        };
        Usage {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            resident_bytes: pages(1),
            virtual_bytes: pages(0),
            open_files: open_files(),
            threads: threads(),
        }
    }
}

/// Newer kernels say how many there are as the size of the directory; of older ones they are counted.
fn open_files() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let told = NonZeroU64::new(fs::metadata(DIRECTORY).ok()?.len());
    match told {
        Some(count) => Some(count.get()),
        None => fs::read_dir(DIRECTORY).ok().map(|entries| entries.count() as u64),
    }
}

fn threads() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// How many files the process may have open; `None` is no limit.
pub(crate) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Lets the process have as many files open as it may: many systems start programs with a fraction of that, for the sake of
/// programs which could not cope. To be called by the program, for it concerns the process as a whole.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // Where it is not allowed the limit stays as it is, and the start says whether that is enough.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// How many sockets the OpAMP port may have, all in all: WebSockets, connections that are none or none yet, and those that wait
/// to be let in. Each of them has a bound of its own, but together they would take every file, and a server without a file to
/// open can neither read its database nor be looked at. At least half of the files, where there is hardly room.
fn sockets_max(open_files_max: u64) -> usize {
    let files = usize::try_from(open_files_max).unwrap_or(usize::MAX);
    files.saturating_sub(FILES_RESERVED).max(files / 2).max(2)
}

/// How many of them can be WebSockets: as many as configured, or as many as leave room for those that arrive.
fn websockets_max(configured: usize, open_files_max: Option<u64>) -> usize {
    let sockets = open_files_max.map_or(usize::MAX, sockets_max);
    configured.min(sockets.saturating_sub(ARRIVING_RESERVED).max(sockets / 2)).max(1)
}

/// Bounds what the OpAMP port may open by what the process may.
pub(crate) fn bound_sockets(settings: &mut ServerSettings, open_files_max: Option<u64>) {
    settings.connections_max = websockets_max(settings.connections_max, open_files_max);
    settings.sockets_max = open_files_max.map(sockets_max);
}

/// What to say at the start if the limit is what bounds the WebSockets.
pub(crate) fn warning(configured: usize, open_files_max: Option<u64>) -> Option<String> {
    let possible = websockets_max(configured, open_files_max);
    (possible < configured).then(|| {
        format!(
            "`opamp.connections_max` is {configured}, but this process may have {} files open: WebSockets beyond {possible} are \
             answered 503; raise the limit to {} (`ulimit -n`, `LimitNOFILE=` of systemd) or lower `opamp.connections_max`",
            open_files_max.unwrap_or_default(),
            configured.saturating_add(FILES_RESERVED + ARRIVING_RESERVED),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(connections_max: usize, files: Option<u64>) -> (usize, Option<usize>) {
        let mut settings = ServerSettings { connections_max, ..ServerSettings::default() };
        bound_sockets(&mut settings, files);
        (settings.connections_max, settings.sockets_max)
    }

    #[test]
    fn the_limit_of_open_files_bounds_all_sockets_with_room_for_everything_else() {
        assert_eq!(bounds(100_000, None), (100_000, None));
        assert_eq!(bounds(100_000, Some(1 << 20)), (100_000, Some((1 << 20) - 256)));
        assert_eq!(bounds(100_000, Some(20_000)), (19_616, Some(19_744)));
        assert_eq!(bounds(100, Some(20_000)), (100, Some(19_744)));
        assert_eq!(bounds(100_000, Some(64)), (16, Some(32)), "some even where there is hardly room");
        assert_eq!(bounds(100_000, Some(0)), (1, Some(2)));
    }

    #[test]
    fn whatever_the_limit_is_somebody_can_be_answered_that_there_is_no_room() {
        for files in (0..2_000).chain([20_000, 1 << 20, u64::MAX]) {
            let (websockets, sockets) = bounds(usize::MAX, Some(files));
            assert!(websockets >= 1 && websockets < sockets.unwrap(), "with {files} files");
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_told_with_what_to_do() {
        assert_eq!(warning(19_616, Some(20_000)), None);
        let text = warning(100_000, Some(1_024)).unwrap();
        for part in ["100000", "1024 files", "beyond 640", "raise the limit to 100384", "LimitNOFILE="] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(warning(100_000, Some(100_384)), None, "what it says is enough");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_used_is_what_the_system_counts() {
        let before = Usage::now();
        let file = fs::File::open("/dev/null").unwrap();
        let block = vec![1_u8; 64 << 20];
        let work = block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let after = Usage::now();
        assert_eq!(work, 64 << 20);
        assert!(after.cpu > before.cpu);
        let more = |before: Option<u64>, after: Option<u64>| after.unwrap() - before.unwrap();
        assert!(more(before.resident_bytes, after.resident_bytes) > 32 << 20);
        assert!(after.virtual_bytes > after.resident_bytes);
        assert!(after.threads.unwrap() >= 1);
        assert!(after.open_files.unwrap() >= 1);
        drop(file);
        raise_open_files();
        assert_eq!(open_files_max(), getrlimit(Resource::Nofile).maximum);
    }
}
