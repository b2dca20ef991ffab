//! What can happen to a rollout of six agents, in any order.

use std::time::Duration;

use opamp_fleet::rollout::{AgentFact, ConfigStatus, Do, Effective, Resume, Scope};
use proptest::prelude::{Just, prop_oneof};
use proptest::strategy::Strategy;

use crate::support::{Driver, fingerprint};

/// Something that happens to a rollout of six agents.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happens {
    Fact(usize, Said),
    Command(usize),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Said {
    Applied,
    Applying,
    Connected,
    Delivered,
    Disconnected,
    EffectiveDiffers,
    EffectiveEqual,
    Failed,
    Ill,
    Left,
    Previous,
    Removed,
    Well,
}

pub(crate) fn happens() -> impl Strategy<Value = Happens> {
    let said = prop_oneof![
        Just(Said::Applied),
        Just(Said::Applying),
        Just(Said::Connected),
        Just(Said::Delivered),
        Just(Said::Disconnected),
        Just(Said::EffectiveDiffers),
        Just(Said::EffectiveEqual),
        Just(Said::Failed),
        Just(Said::Ill),
        Just(Said::Left),
        Just(Said::Previous),
        Just(Said::Removed),
        Just(Said::Well),
    ];
    prop_oneof![
        12 => (0..6_usize, said).prop_map(|(agent, said)| Happens::Fact(agent, said)),
        2 => (0..8_usize).prop_map(Happens::Command),
        4 => (1..900_u64).prop_map(Happens::Wait),
    ]
}

pub(crate) fn play(driver: &mut Driver, what: Happens) {
    match what {
        Happens::Fact(agent, said) => {
            let offer = driver.offer_of(agent);
            match said {
                Said::Applied => driver.report(agent, ConfigStatus::Applied),
                Said::Applying => driver.report(agent, ConfigStatus::Applying),
                Said::Connected => driver.fact(agent, AgentFact::Connected),
                Said::Delivered => driver.deliver(agent),
                Said::Disconnected => driver.fact(agent, AgentFact::Disconnected { announced: false }),
                Said::EffectiveDiffers => {
                    driver.fact(agent, AgentFact::Effective { offer, relation: Effective::Differs });
                }
                Said::EffectiveEqual => {
                    driver.fact(agent, AgentFact::Effective { offer, relation: Effective::Equal });
                }
                Said::Failed => driver.report(agent, ConfigStatus::Failed),
                Said::Ill => driver.fact(agent, AgentFact::Health { offer, healthy: false }),
                Said::Left => driver.fact(agent, AgentFact::Left),
                Said::Previous => {
                    driver.report_of(agent, offer, fingerprint("old"), ConfigStatus::Applied);
                }
                Said::Removed => driver.fact(agent, AgentFact::Removed),
                Said::Well => driver.fact(agent, AgentFact::Health { offer, healthy: true }),
            }
        }
        Happens::Command(number) => {
            let commands = [
                Do::Pause,
                Do::Resume(Resume::Plain),
                Do::Resume(Resume::Retry),
                Do::Resume(Resume::Skip),
                Do::Advance,
                Do::SkipWave,
                Do::RollBack(Scope::All),
                Do::Abort,
            ];
            // What is refused is in the journal as well.
            let _ = driver.command(commands[number].clone());
        }
        Happens::Wait(seconds) => driver.wait(Duration::from_secs(seconds)),
    }
}
