//! What a registry has to satisfy.

use super::{AREAS, Area, Keyword, Registry, Row, RowId, Side, Stability, State, States, Topic, Workspace};

/// Everything that is wrong with the registry, one line each; empty when it is sound.
///
/// Checked: every row of the list of requirements is there and no other, levels, sides and stabilities add up to the
/// numbers of the list, every named test exists, no row is open on either side, and none is deferred to enrolment in an
/// area that has nothing to do with it ([`Area::enrolment`]). What contradicts itself within one row is refused when it is
/// read; so is a topic that is not in the closed set.
pub fn violations(registry: &Registry, workspace: &Workspace) -> Vec<String> {
    let mut found = Vec::new();
    for area in &AREAS {
        numbering(registry, area, &mut found);
        totals(registry, area, &mut found);
    }
    for (id, row) in registry.rows() {
        names(id, row, workspace, &mut found);
        for (side, state) in sides(row) {
            finished(id, row, side, state, &mut found);
        }
    }
    found
}

/// The state of each side that a row binds.
fn sides(row: &Row) -> Vec<(Side, &State)> {
    match &row.states {
        States::One(state) => vec![(row.side, state)],
        States::PerSide { server, client } => vec![(Side::Server, server), (Side::Client, client)],
    }
}

fn numbering(registry: &Registry, area: &'static Area, found: &mut Vec<String>) {
    for number in 1..=area.rows {
        let id = RowId { area: area.name, number };
        if registry.row(id).is_none() {
            found.push(format!("{id}: the row is missing"));
        }
    }
    for (id, _) in registry.area(area).filter(|(id, _)| !(1..=area.rows).contains(&id.number)) {
        found.push(format!("{id}: there is no such requirement"));
    }
}

fn totals(registry: &Registry, area: &'static Area, found: &mut Vec<String>) {
    let count = |is: &dyn Fn(&Row) -> bool| registry.area(area).filter(|(_, row)| is(row)).count();
    let keywords = [Keyword::Must, Keyword::Should, Keyword::May, Keyword::Prose]
        .map(|k| count(&|row| row.level.keyword() == k));
    let sides = [Side::Server, Side::Client, Side::Both].map(|side| count(&|row| row.side == side));
    let stabilities = [Stability::Stable, Stability::Beta, Stability::Development]
        .map(|s| count(&|row| row.stability == s));
    let mut compare = |what: &str, is: &[usize], should: &[usize]| {
        if is != should {
            found.push(format!("area {}: rows by {what} are {is:?} and should be {should:?}", area.name));
        }
    };
    compare("keyword", &keywords, &area.by_keyword);
    compare("side", &sides, &area.by_side);
    compare("stability", &stabilities, &area.by_stability);
}

fn names(id: RowId, row: &Row, workspace: &Workspace, found: &mut Vec<String>) {
    for (_, state) in sides(row) {
        if let State::Proven { tests } = state {
            found.extend(
                tests
                    .iter()
                    .filter_map(|test| workspace.find(test).err())
                    .map(|fault| format!("{id}: {fault}")),
            );
        }
    }
}

fn finished(id: RowId, row: &Row, side: Side, state: &State, found: &mut Vec<String>) {
    let word = side.as_str();
    let may_wait = Area::named(id.area).is_some_and(|area| area.enrolment);
    match state {
        State::Open => found.push(format!("{id}: {} of the {word} and still open", row.level)),
        State::Deferred { topic: Topic::Enrolment } if !may_wait => {
            found.push(format!(
                "{id}: of the {word} and put off to enrolment, which its area knows nothing of"
            ));
        }
        State::Deferred { .. } | State::NotApplicable { .. } | State::Proven { .. } => {}
    }
}
