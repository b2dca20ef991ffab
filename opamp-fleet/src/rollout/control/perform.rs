//! Taking a command in: its key, the serial it expects, what it leads to, the memory of it (R2, R3).

use super::resume::By;
use super::{Command, CommandOutcome, Do, Done, First, Live};
use crate::faults::seeded;
use crate::rollout::engine::{Engine, Run, cut};
use crate::rollout::journal::{CommandEntry, Entry};
use crate::rollout::{Audit, Refused, RolloutState, Write};

impl Engine {
    /// Does a command once. What was refused is remembered as well; what was refused because the caller had not seen the
    /// latest batch is not: the caller looks again and may use the same key.
    pub(crate) fn command(&mut self, command: &Command, run: &mut Run<'_>) -> Result<(), Refused> {
        run.out.answer = None;
        if let Some(known) = self.state.commands.iter().find(|known| known.key == command.key) {
            if known.asked != asked(&command.do_) {
                return Err(Refused::KeyReused);
            }
            let first = known.result.clone()?;
            run.out.answer = Some(CommandOutcome::Repeated(first));
            return Ok(());
        }
        if let Some(expected) = command.expected.filter(|expected| *expected != self.serial) {
            return Err(Refused::SerialBehind { expected, found: self.serial });
        }
        let before = self.state.state;
        let result = self.perform(command, run);
        self.remember(command, before, &result, run);
        let first = result?;
        run.out.answer = Some(match first {
            First::Done => CommandOutcome::Done,
            First::NothingToDo => CommandOutcome::NothingToDo,
        });
        Ok(())
    }

    fn remember(&mut self, command: &Command, before: RolloutState, result: &Done, run: &mut Run<'_>) {
        let actor: Box<str> = cut(&command.actor, Command::TEXT_BYTES_MAX).into();
        let reason: Box<str> = cut(&command.reason, Command::TEXT_BYTES_MAX).into();
        if *result == Ok(First::Done) {
            let audit = Audit {
                rollout: self.plan.id,
                at: run.now,
                actor: actor.clone(),
                reason: reason.clone(),
                before: before.as_str().into(),
                after: format!("{}: {}", command.do_.name(), self.state.state).into(),
                evidence: None,
            };
            run.out.writes.push(Write::Audit(Box::new(audit)));
        }
        let entry = CommandEntry {
            key: command.key.clone(),
            actor,
            reason,
            do_: command.do_.clone(),
            result: result.clone(),
            at: run.now,
        };
        self.record(Entry::Command(Box::new(entry)), run);
    }

    fn perform(&mut self, command: &Command, run: &mut Run<'_>) -> Done {
        let actor = cut(&command.actor, Command::TEXT_BYTES_MAX);
        let by = By { actor, why: cut(&command.reason, Command::TEXT_BYTES_MAX) };
        let Some(live) = Live::of(self.state.state) else {
            return self.after_the_end(&command.do_, run);
        };
        match &command.do_ {
            Do::Abort => self.abort(live, actor, run),
            Do::Advance => self.advance(live, run),
            Do::AllowHash { agent } => self.allow_hash(live, agent, run),
            Do::Approve { plan, wave } => self.approve(live, *plan, *wave, actor, run),
            Do::Cancel => self.cancel(live, actor, run),
            Do::Exclude { agent } => self.exclude(live, agent, run),
            Do::Extend { by } => self.extend(live, *by, run),
            Do::Pause => self.pause_by(live, actor, run),
            Do::Preflighted { plan, usable } => Ok(self.preflighted(live, *plan, *usable, actor, run)),
            Do::Reject => self.reject(live, actor, run),
            Do::ReleaseControlGroup => self.release_control_group(live, actor, run),
            Do::Resume(how) => self.resume(live, *how, by, run),
            Do::RollBack(scope) => self.roll_back_by(live, *scope, actor, run),
            Do::SetLimits(limits) => self.set_limits(live, limits, run),
            Do::SkipGate { gate, wave } => self.skip_gate(live, *gate, *wave, by, run),
            Do::SkipWave => self.skip_wave(live, run),
            Do::Start { plan } => self.start(live, *plan, actor, run),
            Do::Submit => self.submit(live, actor, run),
            Do::Supersede { by: _ } => self.supersede(live, actor, run),
        }
    }

    /// In a final state nothing is done; a command that has led to it is not an error.
    fn after_the_end(&mut self, do_: &Do, run: &mut Run<'_>) -> Done {
        let state = self.state.state;
        let is_so = match do_ {
            Do::Abort => state == RolloutState::Aborted,
            Do::Cancel => state == RolloutState::Cancelled,
            Do::Preflighted { .. } | Do::Supersede { .. } => true,
            Do::Resume(_) if seeded!(self.faults, ResumeRevives) && state == RolloutState::Aborted => {
                self.state.state = RolloutState::Aborting;
                self.transition(RolloutState::Running, crate::rollout::Reason::Operator, super::ENGINE, run);
                true
            }
            Do::Advance
            | Do::AllowHash { .. }
            | Do::Approve { .. }
            | Do::Exclude { .. }
            | Do::Extend { .. }
            | Do::Pause
            | Do::Reject
            | Do::ReleaseControlGroup
            | Do::Resume(_)
            | Do::RollBack(_)
            | Do::SetLimits(_)
            | Do::SkipGate { .. }
            | Do::SkipWave
            | Do::Start { .. }
            | Do::Submit => false,
        };
        if is_so { Ok(First::NothingToDo) } else { Err(Refused::Terminal(state)) }
    }
}

impl Do {
    /// The command's name in the audit log.
    const fn name(&self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Advance => "advance",
            Self::AllowHash { .. } => "allow-hash",
            Self::Approve { .. } => "approve",
            Self::Cancel => "cancel",
            Self::Exclude { .. } => "exclude",
            Self::Extend { .. } => "extend",
            Self::Pause => "pause",
            Self::Preflighted { .. } => "preflighted",
            Self::Reject => "reject",
            Self::ReleaseControlGroup => "release-control-group",
            Self::Resume(_) => "resume",
            Self::RollBack(_) => "roll-back",
            Self::SetLimits(_) => "set-limits",
            Self::SkipGate { .. } => "skip-gate",
            Self::SkipWave => "skip-wave",
            Self::Start { .. } => "start",
            Self::Submit => "submit",
            Self::Supersede { .. } => "supersede",
        }
    }
}

/// The hash of what a command wants: FNV-1a over its bytes in the records, since it is stored beside the command's key and
/// must be the same in every process and release.
pub(crate) fn asked(do_: &Do) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    do_.encode().into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rollout::{GateIx, Resume, Scope, WaveIx};

    #[test]
    fn another_wish_has_another_hash() {
        let wishes = [
            Do::Abort,
            Do::Pause,
            Do::Resume(Resume::Plain),
            Do::Resume(Resume::Retry),
            Do::Resume(Resume::Waive { gate: GateIx(0) }),
            Do::Resume(Resume::Waive { gate: GateIx(1) }),
            Do::RollBack(Scope::All),
            Do::RollBack(Scope::Wave(WaveIx(0))),
            Do::RollBack(Scope::Wave(WaveIx(1))),
        ];
        let hashes: std::collections::BTreeSet<_> = wishes.iter().map(asked).collect();
        assert_eq!(hashes.len(), wishes.len());
        assert_eq!(asked(&Do::Abort), asked(&Do::Abort.clone()));
    }

    #[test]
    fn a_wish_has_the_same_hash_in_every_release() {
        assert_eq!(asked(&Do::Abort), 0xaf63_bc4c_8601_b62c);
        assert_eq!(asked(&Do::Extend { by: Duration::from_secs(3_600) }), 0xa36e_ca64_75fe_4bee);
    }
}
