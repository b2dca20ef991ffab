//! Requests of replicas to the store and to providers of verdicts, and what a leader does in its turn.

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::rollout::commit::{Batch, CommitOutcome};
use opamp_fleet::rollout::{
    Act as EngineAct, Epoch, ExternalVerdict, FleetEvent, GateIx, Reading, RolloutId, Time, WaveIx, Write,
};
use opamp_proto::{Mono, Wall};

use super::{Acted, Commit, Fenced, World};
use crate::sim::profiles::Span;
use crate::sim::replica::leader::{Leader, RENEW};
use crate::sim::rng::{Rng, Subject, mix};
use crate::sim::schedule::What;
use crate::sim::store::CreateRow;
use crate::sim::store::faults::fate;

/// How long a provider of verdicts takes.
const PROVIDER: Duration = Duration::from_secs(2);
/// How long a late one takes: the engine is patient for a minute.
const LATE: Span = Span::between(30, 120);
/// How long a replica that does not lead waits before it asks for the lease again.
const RETRY: Duration = Duration::from_secs(10);

/// A request to the store.
#[derive(Debug)]
pub(super) struct Request {
    replica: usize,
    /// Which process of the replica asked.
    starts: u64,
    epoch: Epoch,
    sent: Mono,
    ask: Ask,
    answer: Answer,
    arrives: bool,
    answered: bool,
    /// Who asks stands still before it leaves.
    held: bool,
}

#[derive(Debug)]
enum Ask {
    Commit(Arc<Batch>, Option<Arc<CreateRow>>),
    Lease,
    Shared(Vec<Write>),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Commit(CommitOutcome),
    Lease(Option<Epoch>, Wall),
    Nothing,
    Shared(bool),
}

/// An answer of an external gate.
#[derive(Debug)]
pub(super) struct Verdict {
    replica: usize,
    epoch: Epoch,
    rollout: RolloutId,
    gate: GateIx,
    wave: WaveIx,
    ticket: u64,
    verdict: ExternalVerdict,
}

impl World {
    /// A leader, or who wants to be one, asks for the lease.
    pub(super) fn ask_lease(&mut self, replica: usize) {
        let now = self.mono;
        let one = &mut self.replicas[replica];
        if one.asks_lease || now < one.lease_at {
            return;
        }
        one.asks_lease = true;
        let epoch = one.leader.as_ref().map_or(Epoch(0), |leader| leader.epoch);
        self.ask(replica, epoch, Ask::Lease);
    }

    fn ask(&mut self, replica: usize, epoch: Epoch, ask: Ask) {
        let unreachable = !self.store_is_reachable();
        let faulty = self.faulty();
        let fate = fate(&faulty, unreachable, self.store_rng(replica, &ask));
        let number = self.requests.len();
        let is_calm = self.is_calm();
        let one = &mut self.replicas[replica];
        if matches!(ask, Ask::Commit(..))
            && let Some(span) = one.pauses_at_write.take().filter(|_| !is_calm)
        {
            one.paused_until = one.paused_until.max(self.mono + span);
        }
        self.requests.push(Request {
            replica,
            starts: one.starts,
            held: one.stands_still(self.mono).is_some(),
            epoch,
            sent: self.mono,
            ask,
            answer: Answer::Nothing,
            arrives: fate.arrives,
            answered: fate.answered,
        });
        let does = self.mono + fate.there;
        self.schedule.put(does, What::StoreDoes(number));
        self.schedule.put(does + fate.back, What::StoreSays(number));
    }

    /// The random numbers for requests of a replica: one stream for what belongs to no rollout, one for the lease, and one for
    /// each rollout.
    fn store_rng(&mut self, replica: usize, ask: &Ask) -> &mut Rng {
        let number =
            |id| self.operators.asked.iter().find(|asked| asked.id == id).map(|asked| asked.spec.number);
        let what = match ask {
            Ask::Shared(_) => 0,
            Ask::Lease => 1,
            Ask::Commit(batch, _) => 2 + number(batch.key.rollout).map_or(u64::from(u32::MAX), u64::from),
        };
        let seed = self.scenario.seed;
        let stream = || Rng::new(seed).fork(Subject::Store, mix(replica as u64) ^ what);
        self.store_rngs.entry((replica, what)).or_insert_with(stream)
    }

    /// A request reaches the store.
    pub(super) fn store_does(&mut self, number: usize) {
        let wall = self.now_of_world().wall;
        let request = &self.requests[number];
        if !request.arrives {
            return;
        }
        if request.held {
            let one = &self.replicas[request.replica];
            if let Some(until) = one.stands_still(self.mono) {
                return self.schedule.put(until, What::StoreDoes(number));
            }
            if one.starts != request.starts {
                return;
            }
        }
        let (replica, epoch) = (request.replica, request.epoch);
        let answer = match &request.ask {
            Ask::Lease => Answer::Lease(self.store.lease(replica, epoch, wall), wall),
            Ask::Commit(batch, replanned) => {
                let (batch, replanned) = (Arc::clone(batch), replanned.clone());
                Answer::Commit(self.commit(replica, batch, replanned.as_deref()))
            }
            Ask::Shared(writes) => {
                let written = self.store.commit_shared(epoch, writes);
                let answer = Answer::Shared(written.is_ok());
                if written.is_ok() {
                    self.fenced(replica, "what all rollouts share", epoch);
                }
                let written = written.unwrap_or_default();
                self.store.note_assigned(&written, Time::from(wall));
                for desired in written {
                    self.seen.shared.push(desired);
                    if let Some(agent) = self.position(&desired.agent) {
                        self.hint(agent);
                    }
                }
                answer
            }
        };
        self.requests[number].answer = answer;
    }

    /// Somebody who leads, or takes itself to, has written something.
    pub(super) fn fenced(&mut self, replica: usize, what: &'static str, epoch: Epoch) {
        let current = self.store.rows().lease.epoch;
        self.seen.fenced.push(Fenced { replica, what, epoch, current });
    }

    fn commit(&mut self, replica: usize, batch: Arc<Batch>, replanned: Option<&CreateRow>) -> CommitOutcome {
        match self.store.commit(&batch, replanned) {
            Ok(written) => {
                self.entries(batch.key.rollout, &batch.entries);
                let outcome = CommitOutcome::Committed(written.serial);
                let epoch = self.store.rows().lease.epoch;
                self.seen.commits.push(Commit { replica, epoch, batch, written });
                outcome
            }
            Err(outcome) => outcome,
        }
    }

    /// The store's answer reaches who asked, or patience ends.
    pub(super) fn store_says(&mut self, number: usize) {
        let request = &self.requests[number];
        let (replica, epoch, sent) = (request.replica, request.epoch, request.sent);
        let one = &self.replicas[replica];
        if let Some(until) = one.stands_still(self.mono) {
            return self.schedule.put(until, What::StoreSays(number));
        }
        if !one.up || one.starts != request.starts {
            return;
        }
        let answer = if request.answered { request.answer } else { Answer::Nothing };
        let now = self.mono;
        match &request.ask {
            Ask::Lease => self.lease_answered(replica, answer, sent),
            Ask::Commit(batch, _) => {
                let outcome =
                    if let Answer::Commit(outcome) = answer { outcome } else { CommitOutcome::Unknown };
                let key = batch.key;
                if let Some(leader) =
                    self.replicas[replica].leader.as_mut().filter(|leader| leader.epoch == epoch)
                {
                    leader.answered(key, outcome, now);
                }
            }
            Ask::Shared(_) => {
                let written = matches!(answer, Answer::Shared(true));
                if let Some(leader) =
                    self.replicas[replica].leader.as_mut().filter(|leader| leader.epoch == epoch)
                {
                    leader.answered_shared(written);
                }
            }
        }
        self.lead(replica, None);
        self.wake_replica(replica);
    }

    fn lease_answered(&mut self, replica: usize, answer: Answer, sent: Mono) {
        let (now, faults) = (self.mono, self.faults);
        let answer = match answer {
            Answer::Lease(epoch, wall) => Answer::Lease(epoch, self.time_of_lease(replica, wall)),
            other => other,
        };
        let one = &mut self.replicas[replica];
        one.asks_lease = false;
        one.lease_at = now + RETRY;
        match (answer, &mut one.leader) {
            (Answer::Lease(Some(epoch), wall), Some(leader)) if leader.epoch == epoch => {
                one.lease_at = sent + RENEW;
                leader.renewed(wall, sent);
            }
            (Answer::Lease(Some(epoch), wall), _) => {
                one.lease_at = sent + RENEW;
                let settings = self.scenario.shared.settings();
                let leader = Leader::new(epoch, settings, self.store.rows(), (wall, sent), faults);
                one.leader = Some(leader.keeping_steady(self.scenario.shared.steady));
            }
            // Somebody else leads.
            (Answer::Lease(None, _), _) => one.leader = None,
            // Nobody knows: it is asked for again soon, and the lease runs out by itself.
            _ => one.lease_at = now + Duration::from_secs(1),
        }
    }

    /// The time that engine time follows: the store's, as the answer has it, unless that is broken on purpose.
    fn time_of_lease(&self, replica: usize, answered: Wall) -> Wall {
        let own = self.replicas[replica].now(self.mono, self.now_of_world().wall).wall;
        if self.faults.follows_wall_clock() { own } else { answered }
    }

    /// The replica reads what has changed, if it leads.
    pub(super) fn sweep_leader(&mut self, replica: usize) {
        let now = self.mono;
        if let Some(leader) = &mut self.replicas[replica].leader
            && leader.may_decide(now)
            && leader.has_room()
        {
            leader.sweep(self.store.rows(), now);
        }
    }

    /// The replica's turn to lead, if it does: of one agent something is new, or some time has passed.
    pub(super) fn lead(&mut self, replica: usize, agent: Option<usize>) {
        let now = self.mono;
        if self.replicas[replica].stands_still(now).is_some() {
            return;
        }
        let Some(mut leader) = self.replicas[replica].leader.take() else { return };
        if leader.is_over(now) {
            self.replicas[replica].lease_at = now;
            return;
        }
        if !leader.may_decide(now) {
            leader.doubts(now, true);
            self.replicas[replica].leader = Some(leader);
            return;
        }
        leader.doubts(now, false);
        let reachable = self.store_is_reachable();
        if reachable {
            leader.rebuild(&self.store, now, &mut self.seen);
        }
        if let Some(agent) = agent.filter(|_| reachable && leader.has_room()) {
            let id = self.agents[agent].id;
            if let Some(row) = self.store.rows().agents.get(&id) {
                leader.agent(&id, row, self.store.rows(), now);
            }
        }
        leader.tick(now);
        if reachable {
            let specs = self.operators.asked.iter().map(|asked| &asked.spec);
            leader.preflight(&specs, &self.store, &self.configs, now, &mut self.seen);
        }
        self.seen.times.push((replica, leader.epoch, leader.time(now), self.now_of_world().wall));
        let stays = self.pump(replica, &mut leader);
        leader.drop_ended(self.store.rows());
        if stays {
            self.replicas[replica].leader = Some(leader);
        } else {
            self.replicas[replica].lease_at = now;
        }
    }

    /// Does what a leader wants. Whether it goes on.
    fn pump(&mut self, replica: usize, leader: &mut Leader) -> bool {
        // What is told to engines on the way may lead to more; it does so once.
        for _ in 0..2 {
            let wanted = leader.pump(self.mono);
            for batch in wanted.batches {
                let replanned = leader.replanned(&batch);
                self.ask(replica, leader.epoch, Ask::Commit(batch, replanned));
            }
            if !wanted.shared.is_empty() {
                self.ask(replica, leader.epoch, Ask::Shared(wanted.shared));
            }
            for (rollout, act) in wanted.acts {
                self.do_act(replica, leader.epoch, rollout, act);
            }
            for rollout in wanted.poisoned {
                let why = self.store.refusal().unwrap_or("it is too large, or of no rollout");
                self.seen.impossible.push(format!("a batch of rollout {rollout} was refused: {why}"));
            }
            if wanted.steps_down {
                return false;
            }
            if leader.is_quiet() {
                break;
            }
        }
        true
    }

    fn do_act(&mut self, replica: usize, epoch: Epoch, rollout: RolloutId, act: EngineAct) {
        match &act {
            EngineAct::Hint { agent } => {
                if let Some(agent) = self.position(agent) {
                    self.hint(agent);
                }
            }
            EngineAct::AskExternal { gate, wave, ticket } => {
                let (gate, wave, ticket) = (*gate, *wave, *ticket);
                for (after, verdict) in self.answers(rollout, ticket) {
                    self.schedule.put(self.mono + after, What::Provider(self.verdicts.len()));
                    self.verdicts.push(Verdict { replica, epoch, rollout, gate, wave, ticket, verdict });
                }
            }
            EngineAct::Alert(_) => {}
        }
        self.seen.acts.push(Acted { replica, epoch, rollout, act });
    }

    /// What a provider answers to a question, and when: all is well, soon, unless something is broken.
    fn answers(&self, rollout: RolloutId, ticket: u64) -> Vec<(Duration, ExternalVerdict)> {
        let well = (PROVIDER, ExternalVerdict::Pass);
        let asked = self.operators.asked.iter().find(|asked| asked.id == rollout);
        let Some(number) = asked.map(|asked| asked.spec.number).filter(|_| !self.is_calm()) else {
            return vec![well];
        };
        let mut rng = Rng::new(self.scenario.seed).fork(Subject::Provider, u64::from(number) ^ mix(ticket));
        match rng.below(10) {
            0 => Vec::new(),
            1 => vec![(rng.span(LATE), ExternalVerdict::Pass)],
            2 => vec![(PROVIDER, ExternalVerdict::Error)],
            3 => vec![(PROVIDER, ExternalVerdict::Inconclusive)],
            4 => vec![(PROVIDER, ExternalVerdict::Fail)],
            // The second answer is nobody's.
            5 | 6 => vec![well, (PROVIDER * 2, ExternalVerdict::Fail)],
            _ => vec![well],
        }
    }

    /// A provider of verdicts answers.
    pub(super) fn provider_answers(&mut self, number: usize) {
        let Verdict { replica, epoch, rollout, gate, wave, ticket, verdict } = self.verdicts[number];
        let reading = Reading::External { gate, wave: Some(wave), ticket, verdict, text: "".into() };
        let now = self.mono;
        if let Some(leader) = self.replicas[replica].leader.as_mut().filter(|leader| leader.epoch == epoch) {
            leader.reading(FleetEvent::Reading { rollout, reading: &reading }, now);
        }
        self.lead(replica, None);
    }
}

#[cfg(test)]
mod tests {
    use opamp_fleet::faults::Faults;

    use super::*;
    use crate::sim::scenario::{Act, ActAt, Faulty, Scenario};

    /// What the store said to a commit that a replica held back while it stood still for so long; with the epochs of the
    /// commit and of the lease then.
    fn held_back(for_s: u32) -> (Answer, Epoch, Epoch) {
        let drawn = Scenario::drawn(1);
        let act = Act::ReplicaPause { replica: 0, for_s, at_write: true };
        let scenario = Scenario {
            replicas: 2,
            faults: Faulty::default(),
            acts: vec![ActAt { at_s: 30, act }],
            rollouts: drawn.rollouts[..1].to_vec(),
            ..drawn
        };
        let mut world = World::new(&scenario, Faults::default());
        loop {
            world.step().expect("it is answered");
            let held = world.requests.iter().find(|request| {
                let is_commit = matches!(request.ask, Ask::Commit(..));
                request.held && is_commit && !matches!(request.answer, Answer::Nothing)
            });
            if let Some(request) = held {
                assert_eq!(request.replica, 0);
                return (request.answer, request.epoch, world.store.rows().lease.epoch);
            }
        }
    }

    #[test]
    fn what_was_decided_and_leaves_when_somebody_else_leads_is_not_written() {
        let (answer, epoch, current) = held_back(90);
        assert!(epoch < current);
        let refused = CommitOutcome::StaleEpoch { current };
        assert!(matches!(answer, Answer::Commit(outcome) if outcome == refused), "{answer:?}");
    }

    #[test]
    fn what_leaves_late_while_nobody_else_leads_is_written() {
        let (answer, epoch, current) = held_back(5);
        assert_eq!(epoch, current);
        assert!(matches!(answer, Answer::Commit(CommitOutcome::Committed(_))), "{answer:?}");
    }
}
