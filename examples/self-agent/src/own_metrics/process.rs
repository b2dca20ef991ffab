//! What the operating system says of this process, by the OpenTelemetry conventions for process metrics.

use std::path::Path;

use super::metric::{Metric, Point};

/// Metrics of this process. Nothing where the system does not say, which is everywhere but on Linux.
pub(super) fn metrics(proc: &Path) -> Vec<Metric> {
    let text = |name: &str| std::fs::read_to_string(proc.join(name)).ok();
    let (stat, status) = (text("stat"), text("status"));
    [
        stat.as_deref().and_then(of_stat).unwrap_or_default(),
        status.as_deref().map(of_status).unwrap_or_default(),
    ]
    .concat()
}

/// From `/proc/self/stat`: times, faults, threads, memory.
fn of_stat(stat: &str) -> Option<Vec<Metric>> {
    // The name of the program stands in brackets and may hold anything, brackets included.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Counted as in proc_pid_stat(5), where the state, the first one here, is number 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    #[allow(clippy::cast_precision_loss, reason = "seconds are no account")]
    let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let pages = rustix::param::page_size() as u64;
    Some(vec![
        Metric::counter("process.cpu.time", "s", "CPU time the agent has used.")
            .point(Point::real(seconds(number(14)?)).of("cpu.mode", "user"))
            .point(Point::real(seconds(number(15)?)).of("cpu.mode", "system")),
        Metric::sum("process.memory.usage", "By", "Physical memory the agent uses.")
            .point(Point::whole(number(24)?.saturating_mul(pages))),
        Metric::sum("process.memory.virtual", "By", "Virtual memory the agent has.")
            .point(Point::whole(number(23)?)),
        Metric::sum("process.thread.count", "{thread}", "Threads of the agent.")
            .point(Point::whole(number(20)?)),
        Metric::counter("process.paging.faults", "{fault}", "Page faults of the agent.")
            .point(Point::whole(number(10)?).of("system.paging.fault.type", "minor"))
            .point(Point::whole(number(12)?).of("system.paging.fault.type", "major")),
    ])
}

/// From `/proc/self/status`.
fn of_status(status: &str) -> Vec<Metric> {
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().parse::<u64>().ok()
    };
    let switches = number("voluntary_ctxt_switches").zip(number("nonvoluntary_ctxt_switches"));
    let metric = switches.map(|(voluntary, involuntary)| {
        Metric::counter(
            "process.context_switches",
            "{context_switch}",
            "How often the agent gave way to others.",
        )
        .point(Point::whole(voluntary).of("process.context_switch.type", "voluntary"))
        .point(Point::whole(involuntary).of("process.context_switch.type", "involuntary"))
    });
    metric.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_nothing() {
        let rest = "S 1 1 1 0 -1 4194560 100 0 7 0 250 150 0 0 20 0 3 0 100 4096000 10 18446744073709551615";
        let metrics = of_stat(&format!("42 (a) b) {rest}")).unwrap();
        let of = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().points.clone();
        assert_eq!(of("process.thread.count"), [Point::whole(3)]);
        assert_eq!(of("process.memory.virtual"), [Point::whole(4_096_000)]);
        assert_eq!(of("process.memory.usage"), [Point::whole(10 * rustix::param::page_size() as u64)]);
        assert_eq!(of("process.paging.faults")[1], Point::whole(7).of("system.paging.fault.type", "major"));
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(of("process.cpu.time")[0], Point::real(250.0 / ticks).of("cpu.mode", "user"));
    }

    #[test]
    fn where_the_system_says_nothing_nothing_is_said() {
        assert!(metrics(Path::new("/nowhere")).is_empty());
        assert!(of_stat("42 (x) S 1").is_none() && of_stat("").is_none());
        assert!(of_status("voluntary_ctxt_switches:\tmany\n").is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_measured() {
        let names: Vec<_> = metrics(Path::new("/proc/self")).into_iter().map(|metric| metric.name).collect();
        assert!(
            names.contains(&"process.cpu.time") && names.contains(&"process.context_switches"),
            "{names:?}"
        );
    }
}
