//! What the probes have found, and the verdict that follows from it. No clock, no IO: times are arguments.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opamp_client::{Failure, FailureKind};
use opamp_proto::Wall;
use tokio::time::Instant;

/// So many bad rounds in a row turn a probe bad. One may be a stall or a packet lost; two still leave time for a verdict
/// within three intervals.
const BAD_ROUNDS: u64 = 2;

/// After this many intervals without a finished round nothing is known any more.
const STALE_AFTER_ROUNDS: u32 = 3;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            pub(crate) const ALL: [$name; [$($word),*].len()] = [$($name::$variant),*];

            /// The word in API, metrics and log.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// From where the server is looked at, nearest first.
    Probe {
        /// Within the process: sessions, fleet manager, store.
        InProcess = "in_process",
        /// Over a connection to the port itself.
        Loopback = "loopback",
        /// Over the address that agents elsewhere use.
        External = "external",
    }
}

words! {
    /// What a probe found last.
    ProbeState {
        Ok = "ok",
        Failed = "failed",
        NotConfigured = "not_configured",
        /// There was no round yet.
        Unknown = "unknown",
    }
}

words! {
    /// Where a fault is.
    Verdict {
        Ok = "ok",
        /// The server does not answer, not even on this machine, or refuses who comes from outside.
        Server = "server",
        /// The server answers, and what lies before it does not let agents through.
        NetworkPath = "network path",
        /// There was no round yet, none lately, or the way from outside cannot be looked at.
        Unknown = "unknown",
    }
}

/// Whose a failure of the way from outside is. Nearer ones are the server's, whatever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The way to the server.
    Path,
    /// The probe itself: it could not look.
    Probe,
    /// The server.
    Server,
}

/// Why a probe failed, each part one line without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// A fixed word.
    pub(crate) kind: &'static str,
    /// What exactly happened.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) hint: &'static str,
    pub(crate) side: Side,
    /// It was there in more than this round.
    pub(crate) lasts: bool,
}

impl Fault {
    /// One that was seen for the first time.
    pub(crate) fn new(side: Side, kind: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Fault { kind, detail: detail.into(), hint, side, lasts: false }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        let side = if failure.kind == FailureKind::Local { Side::Probe } else { Side::Path };
        Fault::new(side, failure.kind.as_str(), failure.detail.as_str(), failure.hint())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.kind, self.detail, self.hint)
    }
}

/// What one probe of one round found, and how long that took.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) took: Duration,
    pub(crate) result: Result<(), Fault>,
}

/// One probe, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// In the last round.
    pub(crate) state: ProbeState,
    /// What counts: bad after [`BAD_ROUNDS`], well again after one good round.
    pub(crate) settled: ProbeState,
    /// Since when it is in `state`.
    pub(crate) since: Option<Wall>,
    /// How long the last one took.
    pub(crate) took: Option<Duration>,
    /// The last failure, also after it is over.
    pub(crate) last_failure: Option<(Wall, Fault)>,
    /// Failures in a row until now.
    pub(crate) consecutive_failures: u64,
    /// Failures since the start.
    pub(crate) failures: u64,
}

/// Everything known at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    /// Since when the verdict is this one.
    pub(crate) since: Option<Wall>,
    /// When the last round ended.
    pub(crate) checked_at: Option<Wall>,
    /// In the order of [`Probe::ALL`].
    pub(crate) probes: [Record; Probe::ALL.len()],
}

/// The findings of all rounds.
#[derive(Debug)]
pub(crate) struct Board {
    stale_after: Duration,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    report: Report,
    round_at: Option<Instant>,
    /// The way from outside cannot be looked at.
    is_blind: bool,
}

impl Board {
    /// Nothing is known yet of the probes that are configured, in the order of [`Probe::ALL`].
    pub(crate) fn new(configured: [bool; Probe::ALL.len()], interval: Duration) -> Self {
        let record = |configured| {
            let state = if configured { ProbeState::Unknown } else { ProbeState::NotConfigured };
            Record {
                state,
                settled: state,
                since: None,
                took: None,
                last_failure: None,
                consecutive_failures: 0,
                failures: 0,
            }
        };
        let probes = configured.map(record);
        let report = Report { verdict: Verdict::Unknown, since: None, checked_at: None, probes };
        let current = Mutex::new(Current { report, round_at: None, is_blind: false });
        Board { stale_after: interval.saturating_mul(STALE_AFTER_ROUNDS), current }
    }

    /// Takes the findings of a round, in the order of [`Probe::ALL`]; answers verdict and whether that, or its reason, is
    /// news.
    pub(crate) fn take(
        &self,
        round: [Option<Finding>; Probe::ALL.len()],
        now: Wall,
        at: Instant,
    ) -> (Verdict, bool) {
        let mut current = self.current();
        let current = &mut *current;
        for (record, finding) in current.report.probes.iter_mut().zip(round) {
            if let Some(finding) = finding {
                record.take(finding, now);
            }
        }
        let report = &mut current.report;
        let verdict = verdict(&report.probes);
        let changed = verdict != report.verdict;
        if changed || report.since.is_none() {
            (report.verdict, report.since) = (verdict, Some(now));
        }
        let is_blind = is_blind(&report.probes[2]);
        let news = changed || is_blind && !current.is_blind;
        current.is_blind = is_blind;
        report.checked_at = Some(now);
        current.round_at = Some(at);
        (verdict, news)
    }

    /// What is known at `at`. An old verdict is none: who no longer looks must not go on saying that all is well.
    pub(crate) fn report(&self, at: Instant) -> Report {
        let current = self.current();
        let mut report = current.report.clone();
        let old = current.round_at.is_some_and(|round| at.duration_since(round) > self.stale_after);
        if old {
            (report.verdict, report.since) = (Verdict::Unknown, report.checked_at);
        }
        report
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn take(&mut self, finding: Finding, now: Wall) {
        let state = if finding.result.is_ok() { ProbeState::Ok } else { ProbeState::Failed };
        if state != self.state {
            (self.state, self.since) = (state, Some(now));
        }
        self.took = Some(finding.took);
        match finding.result {
            Ok(()) => (self.settled, self.consecutive_failures) = (ProbeState::Ok, 0),
            Err(fault) => {
                self.consecutive_failures += 1;
                self.failures += 1;
                if fault.lasts || self.consecutive_failures >= BAD_ROUNDS {
                    self.settled = ProbeState::Failed;
                }
                self.last_failure = Some((now, fault));
            }
        }
    }

    /// The failure that counts.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        let lasts = self.settled == ProbeState::Failed;
        self.last_failure.as_ref().filter(|_| lasts).map(|(_, fault)| fault)
    }
}

/// The nearest fault counts: what lies behind it cannot be seen from outside.
fn verdict(probes: &[Record; Probe::ALL.len()]) -> Verdict {
    use ProbeState::{Failed, NotConfigured, Ok, Unknown};
    let [in_process, loopback, external] = probes.each_ref().map(|record| record.settled);
    match (in_process, loopback, external) {
        (Failed, _, _) | (_, Failed, _) => Verdict::Server,
        (Ok, Ok, Failed) => match probes[2].fault().map(|fault| fault.side) {
            Some(Side::Server) => Verdict::Server,
            Some(Side::Probe) => Verdict::Unknown,
            Some(Side::Path) | None => Verdict::NetworkPath,
        },
        (Ok, Ok, Ok | NotConfigured) => Verdict::Ok,
        (Unknown | NotConfigured, _, _) | (_, Unknown | NotConfigured, _) | (_, _, Unknown) => {
            Verdict::Unknown
        }
    }
}

fn is_blind(external: &Record) -> bool {
    external.fault().is_some_and(|fault| fault.side == Side::Probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const EXTERNAL: [bool; 3] = [true, true, true];

    fn finding(ok: bool) -> Option<Finding> {
        let fault = || Fault::new(Side::Path, "timeout", "nothing came", "look");
        Some(Finding { took: Duration::from_millis(3), result: if ok { Ok(()) } else { Err(fault()) } })
    }

    fn failing(side: Side, lasts: bool) -> Option<Finding> {
        let fault = Fault { lasts, ..Fault::new(side, "tls", "what", "look") };
        Some(Finding { took: Duration::ZERO, result: Err(fault) })
    }

    fn round(found: [bool; 3]) -> [Option<Finding>; 3] {
        found.map(finding)
    }

    #[test]
    fn the_verdict_names_the_nearest_fault() {
        let at = Instant::now();
        for (found, verdict) in [
            ([true, true, true], Verdict::Ok),
            ([true, true, false], Verdict::NetworkPath),
            ([true, false, true], Verdict::Server),
            ([true, false, false], Verdict::Server),
            ([false, true, true], Verdict::Server),
            ([false, false, false], Verdict::Server),
        ] {
            let board = Board::new(EXTERNAL, INTERVAL);
            assert_eq!(board.report(at).verdict, Verdict::Unknown, "before the first round");
            board.take(round(found), Wall(1), at);
            assert_eq!(board.take(round(found), Wall(2), at).0, verdict, "{found:?}");
        }
        let board = Board::new([true, true, false], INTERVAL);
        assert_eq!(board.take([finding(true), finding(true), None], Wall(1), at).0, Verdict::Ok);
        let states = board.report(at).probes.map(|probe| probe.state.as_str());
        assert_eq!(states, ["ok", "ok", "not_configured"]);
    }

    #[test]
    fn times_are_those_of_changes_and_failures_count_in_a_row() {
        let (board, at) = (Board::new(EXTERNAL, INTERVAL), Instant::now());
        for (time, ok) in [(1, true), (2, true), (3, false), (4, false), (5, false)] {
            board.take(round([true, true, ok]), Wall(time), at);
        }
        let report = board.report(at);
        assert_eq!(
            (report.verdict, report.since, report.checked_at),
            (Verdict::NetworkPath, Some(Wall(4)), Some(Wall(5)))
        );
        let [near, _, far] = &report.probes;
        assert_eq!(
            (near.since, near.consecutive_failures, near.last_failure.is_none()),
            (Some(Wall(1)), 0, true)
        );
        assert_eq!(
            (far.since, far.consecutive_failures, far.took),
            (Some(Wall(3)), 3, Some(Duration::from_millis(3)))
        );
        assert_eq!(far.fault().unwrap().to_string(), "timeout: nothing came (look)");

        assert_eq!(board.take(round([true; 3]), Wall(6), at), (Verdict::Ok, true));
        assert_eq!(board.take(round([true; 3]), Wall(7), at), (Verdict::Ok, false));
        let far = board.report(at).probes[2].clone();
        assert_eq!((far.since, far.consecutive_failures, far.failures), (Some(Wall(6)), 0, 3));
        assert_eq!(far.last_failure.as_ref().map(|(at, _)| *at), Some(Wall(5)), "what was is still told");
        assert_eq!(far.fault(), None, "and is over");
    }

    #[test]
    fn one_bad_round_is_no_verdict_two_are_and_one_good_one_ends_it() {
        let at = Instant::now();
        for (bad, verdict) in
            [([false, true, true], Verdict::Server), ([true, true, false], Verdict::NetworkPath)]
        {
            let board = Board::new(EXTERNAL, INTERVAL);
            let take = |found, time| board.take(round(found), Wall(time), at);
            assert_eq!(take([true; 3], 1), (Verdict::Ok, true));
            for time in [2, 4] {
                assert_eq!(take(bad, time), (Verdict::Ok, false), "it may have been a stall");
                let report = board.report(at);
                assert!(report.probes.iter().all(|probe| probe.fault().is_none()));
                assert!(report.probes.iter().any(|probe| probe.state == ProbeState::Failed), "and is told");
                assert_eq!(take([true; 3], time + 1), (Verdict::Ok, false));
            }
            take(bad, 6);
            assert_eq!(take(bad, 7), (verdict, true));
            assert_eq!(take([true; 3], 8), (Verdict::Ok, true));
        }
        let board = Board::new(EXTERNAL, INTERVAL);
        board.take(round([true, true, true]), Wall(1), at);
        let known = [finding(true), failing(Side::Server, true), finding(true)];
        assert_eq!(board.take(known, Wall(2), at), (Verdict::Server, true), "it was seen before");
    }

    #[test]
    fn a_failure_from_outside_is_the_networks_only_if_it_is_neither_the_servers_nor_the_probes() {
        let at = Instant::now();
        for (side, verdict) in [
            (Side::Path, Verdict::NetworkPath),
            (Side::Server, Verdict::Server),
            (Side::Probe, Verdict::Unknown),
        ] {
            let board = Board::new(EXTERNAL, INTERVAL);
            let take =
                |time| board.take([finding(true), finding(true), failing(side, false)], Wall(time), at);
            take(1);
            assert_eq!(take(2), (verdict, true), "{side:?}");
            assert_eq!(take(3), (verdict, false), "{side:?}");
        }
    }

    #[test]
    fn a_verdict_that_nobody_renews_is_no_verdict() {
        let (board, at) = (Board::new(EXTERNAL, INTERVAL), Instant::now());
        board.take(round([true; 3]), Wall(1), at);
        assert_eq!(board.report(at + INTERVAL * 3).verdict, Verdict::Ok);
        let late = board.report(at + INTERVAL * 3 + Duration::from_millis(1));
        assert_eq!((late.verdict, late.since), (Verdict::Unknown, Some(Wall(1))));
    }
}
