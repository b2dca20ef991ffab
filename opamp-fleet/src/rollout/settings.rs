//! How a rollout behaves: deadlines, retries, policies, limits.

use std::collections::BTreeMap;
use std::time::Duration;

use super::control::needs;
use super::stats::Ppm;
use crate::words::closed_set;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Longest span that a setting or a gate may have: what is longer is a mistake.
pub(crate) const SPAN_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Everything about a rollout that is neither its members nor its gates. Part of its plan, and of the plan's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// How long each stage of a member may take.
    pub deadlines: Deadlines,
    /// How often a member is tried again.
    pub retries: Retries,
    /// How long gates stay armed after the last wave. Default 30 min (R48).
    pub bake: Duration,
    /// Most members of a wave in flight at a time. Default 1,000.
    pub in_flight_max: u32,
    /// Most members offered in one call; the rest follows at once in further ones. Default 1,024.
    pub offers_at_once: u32,
    /// How long there may be no progress while there could be some. Default 2 h (R49).
    pub progress: Duration,
    /// What happens then. Default pause.
    pub on_no_progress: NoProgress,
    /// What becomes of agents that match later. Default join-if-own-wave-done (R21).
    pub joiners: LateJoiners,
    /// What becomes of members that stop matching. Default finish (R22).
    pub leavers: Leavers,
    /// What becomes of members that are not connected. Default defer.
    pub offline: Offline,
    /// What a member that can give no evidence counts as. Default neutral (R29).
    pub unverified: UnverifiedPolicy,
    /// How long an absent member is waited for. Default 7 d.
    pub deferred_ttl: Duration,
    /// How long a wave waits for members that another rollout holds. Default 1 h.
    pub lock_wait: Duration,
    /// Whether a pause for a degraded store or a doubtful leader ends when that is gone, unless a gate has failed meanwhile.
    /// Default no.
    pub auto_resume: bool,
    /// Whether it starts by itself after the preflight. Default no.
    pub auto_start: bool,
    /// Whether somebody has to agree to the plan. Default no.
    pub approval: bool,
    /// Whether a recall of its configuration rolls it back instead of aborting it. Default yes.
    pub recall_rolls_back: bool,
    /// What happens if a gate's window is longer than a dwell. Default refuse (R39).
    pub fit: Fit,
    /// Its own limits, below the hard ones (R54). Default [`Limits::default`].
    pub limits: Limits,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            deadlines: Deadlines::default(),
            retries: Retries::default(),
            bake: 30 * MINUTE,
            in_flight_max: 1_000,
            offers_at_once: 1_024,
            progress: 2 * HOUR,
            on_no_progress: NoProgress::Pause,
            joiners: LateJoiners::IfOwnWaveDone,
            leavers: Leavers::Finish,
            offline: Offline::Defer,
            unverified: UnverifiedPolicy::Neutral,
            deferred_ttl: 7 * DAY,
            lock_wait: HOUR,
            auto_resume: false,
            auto_start: false,
            approval: false,
            recall_rolls_back: true,
            fit: Fit::Refuse,
            limits: Limits::default(),
        }
    }
}

/// How long each stage of a member may take (R26, R27, R28).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the offer to its delivery. Default 60 s; agents that poll have [`Deadlines::polls`] intervals more.
    pub offer: Duration,
    /// From delivery to APPLIED. Default 300 s; APPLYING extends it once by as much.
    pub apply: Duration,
    /// From APPLIED to the rest of the evidence. Default 120 s, at least three heartbeats.
    pub verify: Duration,
    /// How many polls an agent may miss. Default 3.
    pub polls: u8,
    /// How long an agent may be away without that counting. Default 90 s.
    pub grace_min: Duration,
    /// … and in heartbeats; the longer one holds. Default 3.
    pub grace_heartbeats: u8,
    /// Other spans for some agent types.
    pub by_agent_type: BTreeMap<Box<str>, Spans>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            offer: MINUTE,
            apply: 5 * MINUTE,
            verify: 2 * MINUTE,
            polls: 3,
            grace_min: Duration::from_secs(90),
            grace_heartbeats: 3,
            by_agent_type: BTreeMap::new(),
        }
    }
}

impl Deadlines {
    /// Most agent types with spans of their own.
    pub const AGENT_TYPES_MAX: usize = 64;
}

/// Spans of one agent type; they replace those of [`Deadlines`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// See [`Deadlines::offer`].
    pub offer: Duration,
    /// See [`Deadlines::apply`].
    pub apply: Duration,
    /// See [`Deadlines::verify`].
    pub verify: Duration,
}

/// How often a member is tried again, by class of failure (R30). A refusal is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// After a failure of the transport. Default 2.
    pub transport: u8,
    /// After a time-out. Default 2.
    pub timeout: u8,
    /// After FAILED. Default 1.
    pub failed: u8,
    /// Before the first further try; doubled for each one after it. Default 30 s.
    pub first_after: Duration,
    /// Longest wait between tries. Default 15 min.
    pub after_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            transport: 2,
            timeout: 2,
            failed: 1,
            first_after: Duration::from_secs(30),
            after_max: 15 * MINUTE,
        }
    }
}

/// What a rollout may touch and how fast (R25, R54). By default there is no limit but [`Limits::in_flight_max`]. A limit of 0
/// lets nobody through; those in flight and per minute hold for rollbacks as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Most members touched in all.
    pub touched_max: u32,
    /// Largest part of the fleet in flight at a time.
    pub fleet_percent_in_flight: Ppm,
    /// Most offers in an hour.
    pub per_hour: u32,
    /// Most offers in a minute.
    pub per_minute: u32,
    /// Most members in flight at a time. Default 1,000.
    pub in_flight_max: u32,
    /// Most members in flight at a time in one failure domain.
    pub zone_in_flight: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            touched_max: u32::MAX,
            fleet_percent_in_flight: Ppm::ALL,
            per_hour: u32::MAX,
            per_minute: u32::MAX,
            in_flight_max: 1_000,
            zone_in_flight: u32::MAX,
        }
    }
}

impl Limits {
    /// Each limit with the words it is refused with.
    pub(crate) const fn named(&self) -> [(&'static str, u32); 6] {
        [
            (needs::TOUCHED, self.touched_max),
            (needs::FLEET_PERCENT, self.fleet_percent_in_flight.0),
            (needs::PER_HOUR, self.per_hour),
            (needs::PER_MINUTE, self.per_minute),
            (needs::IN_FLIGHT_MAX, self.in_flight_max),
            (needs::ZONE_IN_FLIGHT, self.zone_in_flight),
        ]
    }
}

closed_set! {
    /// What happens when there is no progress for too long.
    pub enum NoProgress ("no-progress policy") {
        /// The rollout fails.
        Fail = "fail",
        /// The rollout pauses.
        Pause = "pause",
    }
}

closed_set! {
    /// What becomes of agents that match the selector after the plan was made (R21).
    pub enum LateJoiners ("late-joiner policy") {
        /// They are taken as soon as the first wave has passed.
        Continuous = "continuous",
        /// They join their own wave, or the queue at the end if it has passed.
        IfOwnWaveDone = "join-if-own-wave-done",
        /// They join the last wave.
        LastWave = "join-last-wave",
        /// They are left to the steady state after success.
        Snapshot = "snapshot",
    }
}

closed_set! {
    /// What becomes of members that stop matching the selector (R22).
    pub enum Leavers ("leaver policy") {
        /// They finish and keep what they got.
        Finish = "finish",
        /// They settle and then go back, and are not tried again.
        Revert = "revert",
    }
}

closed_set! {
    /// What becomes of members that are not connected when their turn comes.
    pub enum Offline ("offline policy") {
        /// They are taken when they are back, outside every ratio until then.
        Defer = "defer",
        /// They are excluded.
        Exclude = "exclude",
    }
}

closed_set! {
    /// What a member counts as that can give no evidence (R29). In the first wave it is never success.
    pub enum UnverifiedPolicy ("unverified policy") {
        /// Failure.
        Failure = "failure",
        /// Neither.
        Neutral = "neutral",
        /// Success.
        Success = "success",
    }
}

closed_set! {
    /// What happens if a gate's window is longer than the dwell of a wave (R39).
    pub enum Fit ("window fit") {
        /// The plan is refused.
        Refuse = "refuse",
        /// The dwell becomes as long as the window.
        Stretch = "stretch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_a_rollout_starts_goes_on_and_is_approved_by_nobody_but_operators() {
        let settings = EngineSettings::default();
        assert!(!settings.auto_start && !settings.auto_resume && !settings.approval);
        assert_eq!(settings.limits.in_flight_max, settings.in_flight_max);
    }
}
