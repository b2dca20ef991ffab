//! The members of a rollout, packed: rows, names, look-up, timers.

mod row;
mod table;
mod timers;
mod view;

use opamp_proto::{AgentId, Fingerprint};

pub(crate) use row::TRIED;
pub use row::{Changed, Fell, Flags};
pub(crate) use row::{Row, RowView};
pub(crate) use table::IdTable;
pub(crate) use timers::Timers;

use super::plan::PlannedMembers;
use super::{ConfigIx, MemberIx, MemberState, Reason, Shown, Time, WaveIx};

/// All members. Rows never move and never leave: a position names a member for the life of the rollout.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    pub(crate) rows: Vec<Row>,
    /// Beside the rows.
    pub(crate) ids: Vec<AgentId>,
    /// Beside the rows.
    pub(crate) paces: Vec<Pace>,
    pub(crate) table: IdTable,
    pub(crate) timers: Timers,
    /// Previous configurations, in the order of [`super::ConfigIx`]. They are few: rows share them.
    pub(crate) configs: Vec<Fingerprint>,
    /// Names of failure domains, in the order of [`super::ZoneIx`].
    pub(crate) zones: Vec<Box<str>>,
}

impl Members {
    /// Previous configurations among which a late joiner's is looked for before it gets a place of its own.
    const CONFIGS_SHARED: usize = 64;

    /// The members of a plan.
    pub(crate) fn from_planned(planned: PlannedMembers, zones: &[Box<str>]) -> Self {
        let PlannedMembers { mut rows, mut ids, mut paces, configs, .. } = planned;
        // They stay as many, but for late joiners.
        rows.shrink_to_fit();
        ids.shrink_to_fit();
        paces.shrink_to_fit();
        let mut timers = Timers::default();
        timers.rebuild(rows.iter().enumerate().map(|(at, row)| (MemberIx(at as u32), row.deadline)));
        Self { table: IdTable::of(&ids), timers, rows, ids, paces, configs, zones: zones.to_vec() }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The position of an agent.
    pub(crate) fn find(&self, agent: &AgentId) -> Option<MemberIx> {
        self.table.find(agent, &self.ids)
    }

    /// Whether there is such a member.
    pub(crate) fn has(&self, member: MemberIx) -> bool {
        member.index() < self.rows.len()
    }

    /// The row of a member. There has to be one, as there is for every position that came from here.
    pub(crate) fn row(&self, member: MemberIx) -> &Row {
        &self.rows[member.index()]
    }

    pub(crate) fn id(&self, member: MemberIx) -> &AgentId {
        &self.ids[member.index()]
    }

    pub(crate) fn pace(&self, member: MemberIx) -> Pace {
        self.paces[member.index()]
    }

    /// What a member can go back to.
    pub(crate) fn previous(&self, member: MemberIx) -> Option<Fingerprint> {
        self.configs.get(self.row(member).previous.index()).copied()
    }

    /// The number of a previous configuration, which is given one if it has none.
    pub(crate) fn config_ix(&mut self, config: Fingerprint) -> ConfigIx {
        let found = self.configs.iter().take(Self::CONFIGS_SHARED).position(|known| *known == config);
        let at = found.unwrap_or_else(|| {
            self.configs.push(config);
            self.configs.len() - 1
        });
        ConfigIx(at as u32)
    }

    /// Takes in a late joiner, who is no member yet.
    pub(crate) fn push(&mut self, agent: AgentId, row: Row, pace: Pace) -> MemberIx {
        let member = MemberIx(self.rows.len() as u32);
        self.rows.push(row);
        self.ids.push(agent);
        self.paces.push(pace);
        self.table.push(&self.ids);
        self.timers.moved(member, Time::NEVER, row.deadline);
        member
    }

    /// Sets the row of a member, and its timer with it. For `State::apply` alone: nothing else changes a row.
    pub(crate) fn set(&mut self, member: MemberIx, row: Row) {
        let before = std::mem::replace(&mut self.rows[member.index()], row);
        self.timers.moved(member, before.deadline, row.deadline);
        if self.timers.is_bloated() {
            let rows = &self.rows;
            self.timers.drop_outdated(|member| rows[member.index()].deadline);
        }
    }

    /// A member whose deadline has passed, the longest overdue first. Each is given once: its row has to get another
    /// deadline, or none.
    pub(crate) fn due(&mut self, now: Time) -> Option<MemberIx> {
        let rows = &self.rows;
        self.timers.due(now, |member| rows[member.index()].deadline)
    }

    /// Members that have a deadline, in no order; one whose deadline was moved and moved back may come twice.
    pub(crate) fn with_deadline(&self) -> impl Iterator<Item = (MemberIx, &Row)> {
        let rows = self.timers.entries().map(|(deadline, member)| (deadline, member, self.row(member)));
        let present = rows.filter(|(deadline, _, row)| row.deadline == *deadline);
        present.map(|(_, member, row)| (member, row))
    }

    /// The earliest deadline of a member.
    pub(crate) fn next_deadline(&mut self) -> Option<Time> {
        let rows = &self.rows;
        self.timers.first(|member| rows[member.index()].deadline).map(|(deadline, _)| deadline)
    }
}

/// What the deadlines of a member depend on besides its transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How often it is heard of, in seconds: heartbeats, or polls. 0 if that is not known.
    pub interval_s: u16,
    /// 0, or one more than the position of its agent type in [`super::Deadlines::by_agent_type`].
    pub spans: u8,
}

const _: () = assert!(std::mem::size_of::<Pace>() == 4);

/// One member as it is shown (R76).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView<'a> {
    /// Its position.
    pub member: MemberIx,
    /// Its agent.
    pub agent: &'a AgentId,
    /// What operators see.
    pub shown: Shown,
    /// What is stored.
    pub state: MemberState,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Time,
    /// When something happens by itself; none if it waits for somebody, or has settled.
    pub next: Option<Time>,
    /// Its wave.
    pub wave: WaveIx,
    /// Its present offer; 0 before the first.
    pub offer: u32,
    /// Failures of the transport and time-outs so far, and FAILED so far.
    pub tries: (u8, u8),
    /// What it can go back to.
    pub previous: Option<Fingerprint>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::ZoneIx;

    fn agent(n: u8) -> AgentId {
        AgentId::from_bytes([n; 16])
    }

    fn queued(previous: ConfigIx) -> Row {
        Row::queued(WaveIx(0), ZoneIx::NONE, previous, Flags::CONNECTED, Time(1))
    }

    #[test]
    fn a_late_joiner_is_found_like_a_planned_member_and_shares_known_configurations() {
        let mut members = Members::default();
        let config = opamp_proto::ConfigHash::new(vec![1]).fingerprint();
        let previous = members.config_ix(config);
        assert_eq!(members.config_ix(config), previous);
        let first = members.push(agent(1), queued(previous), Pace::default());
        let second = members.push(agent(2), queued(ConfigIx::NONE), Pace { interval_s: 30, spans: 0 });
        assert_eq!(members.find(&agent(1)), Some(first));
        assert_eq!((members.find(&agent(2)), members.find(&agent(3))), (Some(second), None));
        assert_eq!((members.previous(first), members.previous(second)), (Some(config), None));
        assert_eq!((members.id(second), members.pace(second).interval_s), (&agent(2), 30));
        assert_eq!(members.len(), 2);
    }

    #[test]
    fn the_deadline_of_a_member_is_the_one_in_its_row() {
        let mut members = Members::default();
        for n in 0..3 {
            let row = Row { deadline: Time(100 - u64::from(n)), ..queued(ConfigIx::NONE) };
            members.push(agent(n), row, Pace::default());
        }
        members.set(MemberIx(2), Row { deadline: Time(200), ..queued(ConfigIx::NONE) });
        assert_eq!(members.next_deadline(), Some(Time(99)));
        assert_eq!(members.due(Time(98)), None);
        assert_eq!(members.due(Time(150)), Some(MemberIx(1)));
        members.set(MemberIx(1), queued(ConfigIx::NONE));
        assert_eq!(members.due(Time(150)), Some(MemberIx(0)));
        members.set(MemberIx(0), queued(ConfigIx::NONE));
        assert_eq!(members.due(Time(150)), None);
        assert_eq!(members.next_deadline(), Some(Time(200)));
    }
}
