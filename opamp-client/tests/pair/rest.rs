//! What has to be true in the end.

use std::time::Duration;

use opamp_proto::{material, pb};

use super::world::World;

/// Longer than every deadline, back-off and interval of the defaults together.
pub(crate) const LONG: Duration = Duration::from_secs(1_800);

/// The server sees what is true, what it wants has come about or failed for a reason, and both have come to rest.
pub(crate) fn settled(world: &mut World) -> Result<(), String> {
    fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
        if holds { Ok(()) } else { Err(what()) }
    }
    world.run(LONG);
    check(world.is_connected(), || "they are not connected".to_owned())?;
    for part in World::PARTS {
        let (view, truth) = (world.view(part).unwrap_or_default(), world.expected(part));
        let same = material::digest(part, &view) == material::digest(part, &truth);
        check(same, || format!("{part}: {view:02x?} is seen, {truth:02x?} is true"))?;
    }
    let (list, expected) = world.components();
    check(list == Some(expected), || format!("of the components {list:02x?} are known"))?;
    if let Some([reported, expected]) = world.config() {
        check(reported == expected, || format!("configuration {reported:?} instead of {expected:?}"))?;
    }
    if let Some([reported, expected]) = world.packages() {
        check(reported == expected, || format!("packages {reported:?} instead of {expected:?}"))?;
    }
    world.settings().unwrap_or(Ok(()))?;
    let twice = world.log.applied.windows(2).filter(|pair| pair[0] == pair[1]).count();
    check(twice as u32 <= world.log.interruptions, || {
        format!("{twice} configurations applied twice in a row")
    })?;
    for numbers in world.custom_received() {
        check(numbers.is_sorted_by(|a, b| a < b), || format!("custom messages out of order: {numbers:?}"))?;
    }
    world.log.messages.clear();
    world.log.answers.clear();
    world.run(LONG);
    at_rest(world, LONG)
}

/// Since the log was cleared, nothing was said but heartbeats and their answers.
pub(crate) fn at_rest(world: &World, span: Duration) -> Result<(), String> {
    for message in &world.log.messages {
        let bare = pb::AgentToServer {
            instance_uid: message.instance_uid.clone(),
            sequence_num: message.sequence_num,
            capabilities: message.capabilities,
            ..Default::default()
        };
        if *message != bare {
            return Err(format!("two quiet peers exchange only heartbeats, and not {message:?}"));
        }
    }
    for answer in &world.log.answers {
        let bare = pb::ServerToAgent {
            instance_uid: answer.instance_uid.clone(),
            capabilities: answer.capabilities,
            ..Default::default()
        };
        if *answer != bare {
            return Err(format!("two quiet peers exchange only heartbeats, and not {answer:?}"));
        }
    }
    let (beats, expected) = (world.log.messages.len() as u64, span.as_secs() / 30);
    let near = expected.abs_diff(beats) <= 2 + expected / 1_000;
    if near { Ok(()) } else { Err(format!("{beats} heartbeats instead of about {expected}")) }
}
