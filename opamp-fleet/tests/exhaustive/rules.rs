//! What holds in each step and in each state.

use opamp_fleet::rollout::journal::Entry;
use opamp_fleet::rollout::{Flags, MemberState, NextAction, Reason, RolloutState, Scope, Write};

use crate::support::{Driver, fingerprint};

/// What one step may have broken. `before` has nothing of the step; `after` has its entries, writes and acts and no others.
pub(crate) fn step(before: &Driver, after: &Driver) -> Result<(), String> {
    ended(before, after)?;
    entries(before, after)?;
    offers(before, after)
}

/// What is final stays, and nothing comes of anything any more but that commands are remembered.
fn ended(before: &Driver, after: &Driver) -> Result<(), String> {
    if !before.engine.state().is_terminal() {
        return Ok(());
    }
    let entries = after.entries.iter().filter(|entry| !matches!(entry, Entry::Command(_)));
    let desires = after.writes.iter().filter(|write| matches!(write, Write::Desire { .. }));
    let (entries, desires) = (entries.count(), desires.count());
    if entries + desires > 0 || before.engine.state() != after.engine.state() {
        return Err(format!("after {} came {:?}", before.engine.state(), after.entries));
    }
    Ok(())
}

/// Members take the steps of their table, and are offered something only while the rollout may offer it.
fn entries(before: &Driver, after: &Driver) -> Result<(), String> {
    let mut rollout = before.engine.state();
    // In the order of their positions, which is also the order of the agents' numbers.
    let mut states: Vec<MemberState> =
        before.engine.members(None, None, usize::MAX).iter().map(|member| member.state).collect();
    for entry in &after.entries {
        match entry {
            Entry::Rollout(entry) => rollout = entry.to,
            Entry::Member { member, row } => {
                let state = &mut states[member.index()];
                if !state.may_become(row.state) {
                    return Err(format!("member {member} went from {state} to {}", row.state));
                }
                let offered = row.state == MemberState::Offered && *state == MemberState::Queued;
                if offered && !rollout.may_offer() {
                    return Err(format!("member {member} was offered it while {rollout}"));
                }
                let back =
                    row.state == MemberState::RollbackOffered && *state != MemberState::RollbackOffered;
                let may_go_back = match rollout {
                    RolloutState::Running | RolloutState::Baking => row.flags.contains(Flags::LEFT),
                    _ => rollout.may_offer_rollback(),
                };
                if back && !may_go_back {
                    return Err(format!("member {member} was put back while {rollout}"));
                }
                *state = row.state;
            }
            Entry::Joined(joined) => states[joined.member.index()] = joined.state,
            _ => {}
        }
    }
    Ok(())
}

/// Offers are of the planned configuration, one after the other for each agent, and no more at a time than may be.
fn offers(before: &Driver, after: &Driver) -> Result<(), String> {
    let mut offered = 0;
    let mut last: Vec<u32> = (0..before.agents.len()).map(|agent| before.offer_of(agent)).collect();
    for write in &after.writes {
        let Write::Desire { key, config, rollback, .. } = write else { continue };
        let agent = after.agents.iter().position(|agent| *agent == key.agent).expect("a member");
        if key.offer != last[agent] + 1 {
            return Err(format!("offer {} follows on {}", key.offer, last[agent]));
        }
        last[agent] = key.offer;
        let expected = if *rollback { fingerprint("old") } else { after.plan.target };
        if *config != expected {
            return Err(format!("{key:?} is of {config}"));
        }
        offered += usize::from(!*rollback);
    }
    let now: Vec<u32> = (0..after.agents.len()).map(|agent| after.offer_of(agent)).collect();
    if now != last {
        return Err(format!("members have offers {now:?}, written are {last:?}"));
    }
    // Whoever is in flight takes room from who is offered something, also if it came back without asking for any.
    let states = MemberState::ALL.into_iter().filter(|state| state.in_flight());
    let in_flight: usize = states.map(|state| after.in_state(state).len()).sum();
    if offered > 0 && in_flight > after.plan.settings.in_flight_max as usize {
        return Err(format!("{in_flight} are in flight"));
    }
    Ok(())
}

/// What holds in a state, besides the engine's own invariants, which the driver checks: no surprises, and somebody or
/// something moves it on.
pub(crate) fn state(driver: &Driver) -> Result<(), String> {
    let engine = &driver.engine;
    if engine.surprises() > 0 {
        return Err("something came where it cannot come".to_owned());
    }
    let why = engine.why_not_moving(driver.now, &driver.shared);
    let ended = engine.state().is_terminal();
    if ended != (why.next == NextAction::Never) {
        return Err(format!("{} and {:?}", engine.state(), why));
    }
    if ended && !driver.in_state(MemberState::RollbackQueued).is_empty() {
        return Err(format!("{}, and somebody waits to go back", engine.state()));
    }
    if !ended && engine.next_deadline().is_none() && !matches!(why.next, NextAction::Needs(_)) {
        return Err(format!("{}: nothing will happen, and nobody has to act: {why:?}", engine.state()));
    }
    Ok(())
}

/// Where everybody went back, nobody is left who has it or may yet apply it; of those that failed, nobody who has failed.
/// `begun`: why the rollback began, and who goes back by it. One that nobody asked for spares members that were ill before
/// (R72).
pub(crate) fn rolled_back(driver: &Driver, begun: Option<(Reason, Scope)>) -> Result<(), String> {
    let Some((begun_by, scope)) = begun else { return Ok(()) };
    if driver.engine.state() != RolloutState::RolledBack || begun_by == Reason::GateFailed {
        return Ok(());
    }
    for member in driver.engine.members(None, None, usize::MAX) {
        let left = match member.state {
            MemberState::Queued => member.reason == Reason::RetryDue,
            MemberState::Backoff
            | MemberState::Failed
            | MemberState::Rejected
            | MemberState::SelfRolledBack
            | MemberState::TimedOut => true,
            MemberState::Verified | MemberState::Unverified => scope == Scope::All,
            _ => member.state.in_flight(),
        };
        if left {
            return Err(format!("rolled back, and member {} is {}", member.member, member.state));
        }
    }
    Ok(())
}

/// Replaying the journal from the start leads to the same state.
pub(crate) fn replay(driver: &Driver) -> Result<(), String> {
    let rebuilt = driver.rebuilt();
    if rebuilt.snapshot() != driver.engine.snapshot() {
        return Err(format!("the journal leads elsewhere: {:?}", driver.entries));
    }
    Ok(())
}
