//! Snapshots: the head of a rollout and pages of its members.

use std::collections::BTreeSet;

use opamp_proto::AgentId;

use super::codec::Wire;
use super::plan_wire::version;
use super::{Entry, head, pages};
use crate::faults::{Faults, seeded};
use crate::rollout::engine::{Engine, State, set_row};
use crate::rollout::members::{Flags, Row};
use crate::rollout::plan::{Plan, PlannedMembers};
use crate::rollout::{
    ConfigIx, MemberIx, MemberState, RestoreError, RolloutState, Time, WaveIx, WaveState, ZoneIx,
};

/// A rollout as it was after some entry: its head, and pages of its members. Pages that are not in it are as they were in
/// the snapshot before, or as planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Everything but the members, encoded. Its size does not depend on how many members there are, but for those that are
    /// queued again or came late.
    pub head: Vec<u8>,
    /// Pages of members, ascending by number.
    pub pages: Vec<Page>,
}

impl Snapshot {
    /// This snapshot with a later one laid over it: its head, and its pages in place of those with the same number. What a
    /// store does with the snapshots of batches.
    #[must_use]
    pub fn overlaid(mut self, later: Self) -> Self {
        self.head = later.head;
        for page in later.pages {
            match self.pages.binary_search_by_key(&page.number, |kept| kept.number) {
                Ok(at) => self.pages[at] = page,
                Err(at) => self.pages.insert(at, page),
            }
        }
        self
    }
}

/// [`Page::MEMBERS`] members, encoded by column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its number: the first member's position divided by [`Page::MEMBERS`].
    pub number: u32,
    /// The encoded columns.
    pub bytes: Vec<u8>,
}

impl Page {
    /// Members of one page.
    pub const MEMBERS: usize = 4_096;
}

/// Which pages entries have changed since the last snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    everything: bool,
    pages: BTreeSet<u32>,
    /// Waves that members were lent to: the rows of these say so, and which these are the state knows.
    stretched: BTreeSet<WaveIx>,
}

impl Touched {
    /// All pages: what is known of the snapshot before is not enough.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, pages: BTreeSet::new(), stretched: BTreeSet::new() }
    }

    /// No page.
    #[must_use]
    pub fn nothing() -> Self {
        Self { everything: false, ..Self::everything() }
    }

    /// The entry was made.
    pub fn note(&mut self, entry: &Entry) {
        let member = match entry {
            Entry::Joined(joined) => joined.member,
            Entry::Member { member, .. } => *member,
            Entry::Stretched { wave, .. } => {
                self.stretched.insert(*wave);
                return;
            }
            Entry::Command(_)
            | Entry::Countdown { .. }
            | Entry::Gate(_)
            | Entry::Limits(_)
            | Entry::Reading(_)
            | Entry::Rollout(_)
            | Entry::Sampled(_)
            | Entry::Waived(_)
            | Entry::Wave { .. }
            | Entry::Window { .. } => return,
        };
        if !self.everything {
            self.pages.insert(number_of(member.index()));
        }
    }

    /// The pages of `state` that are concerned, ascending.
    fn numbers(&self, state: &State) -> BTreeSet<u32> {
        let members = state.members.rows.len();
        if self.everything {
            return (0..number_of(members + Page::MEMBERS - 1)).collect();
        }
        let mut numbers = self.pages.clone();
        for wave in &self.stretched {
            if let Some(wave) = state.waves.get(wave.index()) {
                numbers.extend((wave.first as usize..wave.end as usize).map(number_of));
            }
        }
        numbers.retain(|number| *number as usize * Page::MEMBERS < members);
        numbers
    }
}

fn number_of(member: usize) -> u32 {
    (member / Page::MEMBERS) as u32
}

impl Engine {
    /// The rollout as it is now, whole.
    pub fn snapshot(&self) -> Snapshot {
        take(&self.state, &self.plan)
    }

    /// The head as it is now, and only those pages that were touched. Laid over the snapshot from which `touched` was
    /// gathered ([`Snapshot::overlaid`]) it is the rollout as it is now.
    pub fn snapshot_of(&self, touched: &Touched) -> Snapshot {
        take_pages(&self.state, &self.plan, touched)
    }
}

/// A state as a snapshot, whole.
pub(crate) fn take(state: &State, plan: &Plan) -> Snapshot {
    take_pages(state, plan, &Touched::everything())
}

fn take_pages(state: &State, plan: &Plan, touched: &Touched) -> Snapshot {
    let numbers = touched.numbers(state);
    Snapshot {
        head: head::encode(state, plan),
        pages: numbers.into_iter().map(|number| page(state, plan, number)).collect(),
    }
}

/// Rows and paces; joiners also with their names, which no plan has.
fn page(state: &State, plan: &Plan, number: u32) -> Page {
    let members = &state.members;
    let first = number as usize * Page::MEMBERS;
    let end = members.rows.len().min(first + Page::MEMBERS);
    let mut bytes = Vec::new();
    head::RECORDS_VERSION.put(&mut bytes);
    pages::put_rows(&members.rows[first..end], &members.paces[first..end], &mut bytes);
    for id in &members.ids[first.max(plan.members as usize).min(end)..end] {
        id.put(&mut bytes);
    }
    Page { number, bytes }
}

/// Puts a snapshot into the state that the plan begins with, and compares its counters with a recount of the members.
pub(crate) fn load(state: &mut State, plan: &Plan, snapshot: &Snapshot) -> Result<(), RestoreError> {
    if state.members.rows.len() != plan.members as usize {
        return Err(RestoreError::Counters { what: "the number of planned members" });
    }
    let said = head::decode(&snapshot.head, state, plan)?;
    if !said.configs.starts_with(&state.members.configs) {
        return Err(RestoreError::Invalid { what: "list of configurations" });
    }
    state.members.configs = said.configs;
    for page in &snapshot.pages {
        load_page(state, plan, page).map_err(|error| match error {
            RestoreError::Version { .. } => error,
            _ => RestoreError::Page { number: page.number },
        })?;
    }
    let found = state.members.rows.len();
    if found != said.count as usize {
        return Err(RestoreError::Page { number: number_of(found) });
    }
    state.recount(plan).map_err(|broken| RestoreError::Counters { what: broken.rule })
}

fn load_page(state: &mut State, plan: &Plan, page: &Page) -> Result<(), RestoreError> {
    let invalid = Err(RestoreError::Page { number: page.number });
    let mut bytes = &page.bytes[..];
    version(&mut bytes, head::RECORDS_VERSION)?;
    let (rows, paces) = pages::take_rows(&mut bytes)?;
    for (at, (row, pace)) in rows.into_iter().zip(paces).enumerate() {
        let ix = page.number as usize * Page::MEMBERS + at;
        if !is_known(&row, state, plan) {
            return invalid;
        }
        let joiner = if ix < plan.members as usize { None } else { Some(AgentId::take(&mut bytes)?) };
        match joiner {
            Some(agent) if ix == state.members.rows.len() && state.members.find(&agent).is_none() => {
                state.members.push(agent, row, pace);
            }
            None => {
                state.members.set(MemberIx(ix as u32), row);
                state.members.paces[ix] = pace;
            }
            Some(_) => return invalid,
        }
    }
    if bytes.is_empty() { Ok(()) } else { invalid }
}

/// Whether wave, zone and previous configuration of a row exist.
fn is_known(row: &Row, state: &State, plan: &Plan) -> bool {
    (row.wave == WaveIx::TAIL || row.wave.index() < plan.waves.len())
        && (row.zone == ZoneIx::NONE || row.zone.index() < plan.zones.len())
        && (row.previous == ConfigIx::NONE || row.previous.index() < state.members.configs.len())
}

/// The state that records lead to: the plan with its members, the last snapshot if there is one, and the entries since.
/// Nothing is decided anew, and nothing is offered.
///
/// # Errors
/// [`RestoreError`] if the records do not fit together, are damaged, or were written by a later version.
pub(crate) fn restored(
    plan: &Plan,
    members: PlannedMembers,
    snapshot: Option<&Snapshot>,
    tail: impl IntoIterator<Item = Entry>,
    faults: Faults,
) -> Result<State, RestoreError> {
    let mut state = State::new(plan, members, plan.made_at);
    if let Some(snapshot) = snapshot {
        load(&mut state, plan, snapshot)?;
    }
    for entry in tail {
        state.apply(plan, &entry)?;
    }
    // Who is not there, or may have no offer now, says something else first.
    if seeded!(faults, DoubleOffer) && state.state == RolloutState::Running {
        offer_again(&mut state, plan);
    }
    if seeded!(faults, PauseLostOnRestore) && state.state == RolloutState::Paused {
        (state.state, state.pause) = (state.from, None);
    }
    Ok(state)
}

/// What must never be done: members whose offer is written are queued for another one.
fn offer_again(state: &mut State, plan: &Plan) {
    for ix in 0..state.members.rows.len() {
        let row = state.members.rows[ix];
        if row.state == MemberState::Offered && row.flags.contains(Flags::CONNECTED) {
            let queued = MemberState::Queued;
            let again = Row { state: queued, stage: queued, deadline: Time::NEVER, ..row };
            set_row(state, plan, MemberIx(ix as u32), &row, &again);
            // A wave that waits for answers only would never come to it.
            let wave = state.wave_mut(row.wave);
            if wave.state == WaveState::Settling {
                wave.state = WaveState::Dispatching;
            }
        }
    }
}
