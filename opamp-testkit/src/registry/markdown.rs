//! The registry as a page for people.

use std::fmt::Write;

use super::{AREAS, Area, Lesson, Lessons, Registry, Row, RowId, Side, Stability, State, States, TestPath};

const HEAD: &str = "\
# Conformance

<!-- Generated from opamp-testkit/registry/*.toml. Edit those, then run
     UPDATE_CONFORMANCE=1 cargo test -p opamp-testkit --test registry -->

Every requirement of the OpAMP specification (v0.20.0) that this project tracks, and how far it is met. *Proven* rows name
the tests that fail if the behaviour is lost; *deferred* rows name the topic that will do them; *not applicable* rows
say why; *open* rows are to be done, and keep the tests from passing. Levels are the keywords of the specification; `prose` is behaviour stated without
one. A row that binds both sides counts once for each. At the end stand [lessons](#lessons): failures of other systems,
and the tests that keep them out of this one.

";

const LESSONS_HEAD: &str = "\
## Lessons

What went wrong in protocol libraries and fleet managers elsewhere, the rule that rules it out, and the tests that hold to the rule.

| seen elsewhere | rule here | tests |
|---|---|---|
";

/// Renders the registry: counts by area, side and state, then one table per area, then the lessons.
pub fn to_markdown(registry: &Registry, lessons: &Lessons) -> String {
    let mut out = HEAD.to_owned();
    summary(registry, &mut out);
    for area in &AREAS {
        table(registry, area, &mut out);
    }
    out.push_str(LESSONS_HEAD);
    for lesson in lessons.iter() {
        lesson_line(lesson, &mut out);
    }
    out
}

/// Counts of one side of one area: proven, deferred, not applicable, open.
type Counts = [usize; 4];

fn summary(registry: &Registry, out: &mut String) {
    out.push_str("## Counts\n\n");
    out.push_str(
        "| area | rows | server: proven | deferred | n/a | open | client: proven | deferred | n/a | open |\n",
    );
    out.push_str("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    let mut totals = [[0; 4]; 2];
    for area in &AREAS {
        let counts = counts(registry, area);
        for (total, count) in totals.as_flattened_mut().iter_mut().zip(counts.as_flattened()) {
            *total += count;
        }
        line(&format!("[{}](#r-{})", area.name, anchor(area)), area.rows, &counts, out);
    }
    line("**all**", registry.len(), &totals, out);
    out.push('\n');
}

/// What a Markdown renderer makes of the area's heading, without the leading `r-`.
fn anchor(area: &Area) -> String {
    let heading = format!("{}: {}", area.name, area.title).to_lowercase();
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn line(name: &str, rows: usize, counts: &[Counts; 2], out: &mut String) {
    let cells: Vec<String> = counts.as_flattened().iter().map(usize::to_string).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "| {name} | {rows} | {} |", cells.join(" | "));
}

fn counts(registry: &Registry, area: &Area) -> [Counts; 2] {
    let mut counts = [[0; 4]; 2];
    for (_, row) in registry.area(area) {
        match &row.states {
            States::One(state) => counts[usize::from(row.side == Side::Client)][column(state)] += 1,
            States::PerSide { server, client } => {
                counts[0][column(server)] += 1;
                counts[1][column(client)] += 1;
            }
        }
    }
    counts
}

fn column(state: &State) -> usize {
    match state {
        State::Proven { .. } => 0,
        State::Deferred { .. } => 1,
        State::NotApplicable { .. } => 2,
        State::Open => 3,
    }
}

fn table(registry: &Registry, area: &Area, out: &mut String) {
    let _ = writeln!(out, "## R-{}: {}\n", area.name, area.title);
    out.push_str("| id | level | side | stability | requirement | state | tests, topic or reason |\n");
    out.push_str("|---|---|---|---|---|---|---|\n");
    for (id, row) in registry.area(area) {
        row_line(id, row, out);
    }
    out.push('\n');
}

fn row_line(id: RowId, row: &Row, out: &mut String) {
    let (state, evidence) = match &row.states {
        States::One(state) => (word(state).to_owned(), evidence(state)),
        States::PerSide { server, client } => (
            format!("server: {}<br>client: {}", word(server), word(client)),
            format!("server: {}<br>client: {}", evidence(server), evidence(client)),
        ),
    };
    let side = row.side.as_str();
    let stability = match row.stability {
        Stability::Stable => "stable",
        Stability::Beta => "beta",
        Stability::Development => "development",
    };
    let text = row.text.replace('|', "\\|");
    let _ = writeln!(out, "| {id} | {} | {side} | {stability} | {text} | {state} | {evidence} |", row.level);
}

fn word(state: &State) -> &'static str {
    match state {
        State::Proven { .. } => "proven",
        State::Deferred { .. } => "deferred",
        State::NotApplicable { .. } => "not applicable",
        State::Open => "**open**",
    }
}

fn evidence(state: &State) -> String {
    match state {
        State::Proven { tests } => named(tests),
        State::Deferred { topic } => topic.to_string(),
        State::NotApplicable { why } => why.replace('|', "\\|"),
        State::Open => "–".to_owned(),
    }
}

fn lesson_line(lesson: &Lesson, out: &mut String) {
    let (seen, rule) = (lesson.seen.replace('|', "\\|"), lesson.rule.replace('|', "\\|"));
    let _ = writeln!(out, "| {seen} | {rule} | {} |", named(&lesson.tests));
}

fn named(tests: &[TestPath]) -> String {
    tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>")
}
