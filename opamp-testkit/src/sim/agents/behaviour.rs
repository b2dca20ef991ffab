//! What becomes of a configuration at an agent, by its profile.

use std::time::Duration;

use crate::sim::profiles::{Profile, Span, Stage};
use crate::sim::rng::Rng;
use crate::sim::scenario::AgentSpec;

/// What becomes of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// How long it takes to apply it.
    pub takes: Duration,
    /// How that ends.
    pub end: End,
}

/// How applying a configuration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is in use.
    Applied(Then),
    /// It cannot be used.
    Failed,
    /// Nobody hears of it again.
    Never,
}

/// What happens once a configuration is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The process dies after so long, again and again.
    CrashesEvery(Span),
    /// It becomes ill.
    FallsIll(Duration),
    /// It goes back to the configuration before.
    GoesBack(Duration),
    /// The process starts anew at once.
    Restarts,
    /// Nothing.
    Stays,
}

/// The course of a configuration at this agent. What it ran at first always works: profiles are about what is new to it.
pub fn course(spec: &AgentSpec, is_first: bool, rng: &mut Rng) -> Course {
    let takes = rng.span(spec.apply);
    let stays = Course { takes, end: End::Applied(Then::Stays) };
    if is_first {
        return stays;
    }
    match &spec.profile {
        Profile::Slow { delay } => Course { takes: takes + rng.span(*delay), ..stays },
        Profile::Silent { stage: Stage::Applying } => Course { end: End::Never, ..stays },
        Profile::Fails { rate } if rng.chance(*rate) => Course { end: End::Failed, ..stays },
        Profile::FailsOnVersion { version, rate }
            if version.as_ref().is_none_or(|version| *version == spec.version) && rng.chance(*rate) =>
        {
            Course { end: End::Failed, ..stays }
        }
        Profile::CrashLooping { after } => Course { end: End::Applied(Then::CrashesEvery(*after)), ..stays },
        Profile::FallsIll { after } => {
            Course { end: End::Applied(Then::FallsIll(rng.span(*after))), ..stays }
        }
        Profile::SelfRollingBack { after } => {
            Course { end: End::Applied(Then::GoesBack(rng.span(*after))), ..stays }
        }
        Profile::RestartsOnApply => Course { end: End::Applied(Then::Restarts), ..stays },
        Profile::Well
        | Profile::Silent { .. }
        | Profile::Fails { .. }
        | Profile::FailsOnVersion { .. }
        | Profile::Flapping { .. }
        | Profile::Polling { .. }
        | Profile::NoStatus
        | Profile::NoHealth
        | Profile::Merges
        | Profile::IllBefore
        | Profile::Offline { .. }
        | Profile::DropsCapability
        | Profile::Mismatched
        | Profile::Mute => stays,
    }
}

/// Whether this agent says FAILED without having said APPLYING: half of those that fail look before they begin.
pub fn refuses(spec: &AgentSpec) -> bool {
    matches!(spec.profile, Profile::Fails { .. }) && spec.number.is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use opamp_fleet::rollout::stats::Ppm;

    use super::*;
    use crate::sim::scenario::Scenario;

    fn with(profile: Profile) -> AgentSpec {
        AgentSpec { profile, version: "1.4.0".into(), ..Scenario::drawn(1).agents.swap_remove(0) }
    }

    fn end(profile: Profile, is_first: bool) -> End {
        course(&with(profile), is_first, &mut Rng::new(1)).end
    }

    #[test]
    fn what_an_agent_ran_at_first_always_works() {
        for profile in [
            Profile::Fails { rate: Ppm::ALL },
            Profile::Silent { stage: Stage::Applying },
            Profile::CrashLooping { after: Span::seconds(5) },
        ] {
            assert_eq!(end(profile.clone(), true), End::Applied(Then::Stays));
            assert_ne!(end(profile, false), End::Applied(Then::Stays));
        }
    }

    #[test]
    fn a_fault_of_a_version_is_of_no_other() {
        let of = |version: &str| Profile::FailsOnVersion { version: Some(version.into()), rate: Ppm::ALL };
        assert_eq!(end(of("1.4.0"), false), End::Failed);
        assert_eq!(end(of("2.0.0"), false), End::Applied(Then::Stays));
    }

    #[test]
    fn applying_takes_as_long_as_the_agent_and_its_profile_say() {
        let spec = AgentSpec { apply: Span::seconds(3), ..with(Profile::Slow { delay: Span::seconds(60) }) };
        let takes = |is_first| course(&spec, is_first, &mut Rng::new(1)).takes;
        assert_eq!((takes(true), takes(false)), (Duration::from_secs(3), Duration::from_secs(63)));
    }
}
