//! When a rollout of a model fleet begins, and what is told of what operators do.

use std::sync::Arc;
use std::time::Duration;

use opamp_fleet::rollout::stats::Ppm;
use opamp_fleet::rollout::{Do, Resume, RolloutState};

use super::fleet::FleetModel;
use super::planned::{Planned, Subject};
use super::timeline::{Answer, MarkKind};
use super::{Model, Operator, RunEnd};
use crate::sim::profiles::{Mix, Profile, Share, Span};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn fleet() -> FleetModel {
    let well =
        Share { profile: Profile::Well, share: Ppm::ALL, apply: Span::between(2, 20), fails_after: None };
    FleetModel::plain(3, 10, Mix::new(vec![well]).unwrap())
}

/// A plan of that fleet that begins so long after it was made.
fn planned(fleet: &FleetModel, starts_after: Option<Duration>) -> Planned {
    let subject = Subject::new(3, "v2").unwrap();
    let mut request = subject.request();
    request.start_at = starts_after.map(|after| fleet.begins + after);
    Planned::make(fleet, request).unwrap()
}

#[test]
fn a_rollout_that_starts_later_starts_then() {
    let fleet = fleet();
    let Planned { plan, members } = planned(&fleet, Some(5 * MINUTE));
    let mut model = Model::new(&fleet, Arc::clone(&plan), members, Operator::default());
    model.watch();
    assert_eq!(model.run(DAY), RunEnd::Ended);
    assert_eq!((model.engine().state(), model.tally().refused), (RolloutState::Succeeded, 0));
    let marks = model.timeline().unwrap().marks();
    let runs = marks.iter().find(|mark| mark.kind == MarkKind::Rollout(RolloutState::Running)).unwrap();
    assert_eq!(runs.at_ms, 300_000);
}

#[test]
fn what_operators_do_is_told_before_what_comes_of_it() {
    let fleet = fleet();
    let Planned { plan, members } = planned(&fleet, None);
    let acts = vec![
        (MINUTE, Do::Pause),
        (2 * MINUTE, Do::Advance),
        (3 * MINUTE, Do::Resume(Resume::Plain)),
        (4 * MINUTE, Do::Resume(Resume::Plain)),
        (DAY / 2, Do::Pause),
    ];
    let mut model = Model::new(&fleet, Arc::clone(&plan), members, Operator { acts, ..Operator::default() });
    model.watch();
    assert_eq!(model.run(DAY), RunEnd::Ended);
    model.give_up_acts();
    let marks = model.timeline().unwrap().marks();
    let told: Vec<(u64, &str, &str)> = marks
        .iter()
        .filter_map(|mark| match &mark.kind {
            MarkKind::Act { act, answer } => Some((mark.at_ms / 60_000, act.as_str(), answer.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            (1, "pause", "done"),
            (2, "advance", "refused"),
            (3, "resume", "done"),
            (4, "resume", "no effect"),
            (720, "pause", "not reached"),
        ]
    );
    let first = marks.iter().position(|mark| matches!(mark.kind, MarkKind::Act { .. })).unwrap();
    assert_eq!((&*marks[first].what, &*marks[first].details), ("operator: pause", "done"));
    assert_eq!(marks[first + 1].kind, MarkKind::Rollout(RolloutState::Paused));
    let refused = marks.iter().find(|mark| mark.details.starts_with("refused: ")).unwrap();
    assert!(refused.details.contains("resume it first"), "{}", refused.details);
    assert_eq!(model.tally().refused, 1);
    assert!(marks.iter().all(|mark| mark.kind != MarkKind::Refused), "it is told once");
}

#[test]
fn nobody_is_told_twice_that_an_act_was_not_reached() {
    let fleet = fleet();
    let Planned { plan, members } = planned(&fleet, None);
    let operator = Operator { acts: vec![(DAY, Do::Pause)], ..Operator::default() };
    let mut model = Model::new(&fleet, Arc::clone(&plan), members, operator);
    model.watch();
    assert_eq!(model.run(MINUTE), RunEnd::Time);
    model.give_up_acts();
    model.give_up_acts();
    let not_reached = |kind: &MarkKind| matches!(kind, MarkKind::Act { answer: Answer::NotReached, .. });
    let marks = model.timeline().unwrap().marks();
    assert_eq!(marks.iter().filter(|mark| not_reached(&mark.kind)).count(), 1);
}
