//! Members as they are shown (R76).

use opamp_proto::AgentId;

use super::MemberView;
use crate::rollout::engine::Engine;
use crate::rollout::{MemberIx, Shown, Time};

impl Engine {
    /// The member of an agent.
    pub fn member(&self, agent: &AgentId) -> Option<MemberView<'_>> {
        self.state.members.find(agent).map(|member| self.view(member))
    }

    /// Members in the order of dispatch, late joiners behind: at most `limit`, after the member that is given, and only
    /// those that are shown in this state if one is given. It looks at every member until it has so many.
    pub fn members(
        &self,
        after: Option<MemberIx>,
        state: Option<Shown>,
        limit: usize,
    ) -> Vec<MemberView<'_>> {
        let first = after.map_or(0, |after| after.0.saturating_add(1));
        (first..self.state.members.len() as u32)
            .map(MemberIx)
            .filter(|member| state.is_none_or(|state| self.state.shown(*member) == state))
            .take(limit)
            .map(|member| self.view(member))
            .collect()
    }

    fn view(&self, member: MemberIx) -> MemberView<'_> {
        let members = &self.state.members;
        let row = members.row(member);
        MemberView {
            member,
            agent: members.id(member),
            shown: self.state.shown_as(row),
            state: row.state,
            reason: row.reason,
            since: row.since,
            next: (row.deadline != Time::NEVER && !self.state.state.is_terminal()).then_some(row.deadline),
            wave: row.wave,
            offer: row.offer,
            tries: (row.transport_tries, row.failed_tries),
            previous: members.previous(member),
        }
    }
}
