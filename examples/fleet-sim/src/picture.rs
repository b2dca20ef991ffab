//! The run as a picture: members by operators' words over time, a band for each wave, a mark for each gate that spoke.
//!
//! It shows what there is to see: of a rollout that rests it ends soon after the last thing that happened, and of one that touched
//! few members it shows the lower part, whose scale says of how many.

use std::fmt::{self, Write};

use opamp_fleet::rollout::RolloutState;
use opamp_fleet::rollout::gates::Verdict;
use opamp_fleet::rollout::preview::grouped;
use opamp_testkit::sim::model::timeline::{Answer, Mark, MarkKind, Sample};

use crate::Simulation;
use crate::report::{Clock, Closing};

/// Size of the picture, in its own units.
const SIZE: (f64, f64) = (1_000.0, 420.0);
/// Where the areas are drawn: left, top, right, bottom.
const FRAME: (f64, f64, f64, f64) = (70.0, 70.0, 985.0, 350.0);
/// At least so much is shown after the last thing that happened.
const MARGIN_MS: u64 = 10_000;
/// A wave whose band is narrower has no number in it.
const NUMBER_WIDTH: f64 = 18.0;
/// A layer: a word, its colour, and its count.
type Layer = (&'static str, &'static str, fn(&Sample) -> u32);
/// Layers from the bottom.
const LAYERS: [Layer; 6] = [
    ("applied", "#4c9f70", |sample| sample.applied),
    ("failed", "#c8553d", |sample| sample.failed),
    ("applying", "#e0b04a", |sample| sample.applying),
    ("neutral", "#8d99ae", |sample| sample.neutral),
    ("deferred", "#b5a3c9", |sample| sample.deferred),
    ("pending", "#dfe3ea", |sample| sample.pending),
];
/// What lines mean, and their colours: a gate that failed, one that could not decide, a stop of the rollout.
const LINES: [(&str, &str); 3] =
    [("gate fails", "#b00020"), ("gate undecided", "#b08000"), ("stop", "#303060")];
/// Tints of the bands of waves, in turns.
const TINTS: [&str; 2] = ["#eef3fb", "#f9f4ea"];

/// The run as SVG.
#[must_use]
pub fn picture(run: &Simulation) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = draw(&mut out, &Scale::of(run), run);
    out
}

fn draw(out: &mut String, scale: &Scale, run: &Simulation) -> fmt::Result {
    let (width, height) = SIZE;
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(out, r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##)?;
    let closing = Closing(run).to_string();
    writeln!(out, r#"<text x="{}" y="20" font-size="15">{}</text>"#, FRAME.0, Escaped(&run.plan.title))?;
    writeln!(out, r##"<text x="{}" y="38" fill="#555">{}</text>"##, FRAME.0, Escaped(&closing))?;
    let samples = scale.seen(run.timeline.samples());
    bands(out, scale, samples)?;
    areas(out, scale, samples)?;
    axes(out, scale)?;
    for mark in run.timeline.marks() {
        marked(out, scale, mark)?;
    }
    legend(out)?;
    writeln!(out, "</svg>")
}

/// From times and counts to places.
struct Scale {
    last_ms: u64,
    /// The height of the picture.
    members: u32,
    /// All there are.
    total: u32,
}

impl Scale {
    fn of(run: &Simulation) -> Self {
        let (samples, marks) = (run.timeline.samples(), run.timeline.marks());
        let last = samples.last().map_or(1, |sample| sample.at_ms);
        let has_happened =
            |mark: &&Mark| !matches!(mark.kind, MarkKind::Act { answer: Answer::NotReached, .. });
        let mark = marks.iter().rev().find(has_happened);
        let happened = last_change(samples).max(mark.map_or(0, |mark| mark.at_ms));
        let margin = (happened / 10).max(MARGIN_MS);
        let last_ms = if run.state.is_terminal() { last } else { last.min(happened + margin) };
        let total = samples.iter().map(height).max().unwrap_or(1).max(1);
        let touched = samples.iter().map(|sample| height(sample) - sample.pending).max().unwrap_or(0);
        let few = touched.saturating_mul(5) / 4;
        let members = if few < total / 2 { few.max(10).min(total) } else { total };
        Self { last_ms: last_ms.max(1), members, total }
    }

    /// The samples that are drawn: one beyond the end is no less than what holds until then.
    fn seen<'a>(&self, samples: &'a [Sample]) -> &'a [Sample] {
        let end = samples.partition_point(|sample| sample.at_ms <= self.last_ms);
        &samples[..end]
    }

    fn x(&self, at_ms: u64) -> f64 {
        FRAME.0 + (FRAME.2 - FRAME.0) * (at_ms.min(self.last_ms) as f64 / self.last_ms as f64)
    }

    fn y(&self, members: u32) -> f64 {
        FRAME.3 - (FRAME.3 - FRAME.1) * (f64::from(members.min(self.members)) / f64::from(self.members))
    }
}

fn height(sample: &Sample) -> u32 {
    LAYERS.iter().map(|(_, _, count)| count(sample)).sum()
}

/// When the last sample was taken that differs from the one before it.
fn last_change(samples: &[Sample]) -> u64 {
    let mut pairs = samples.windows(2).rev();
    let changed = pairs.find(|pair| Sample { at_ms: pair[1].at_ms, ..pair[0] } != pair[1]);
    changed.map_or(0, |pair| pair[1].at_ms)
}

/// A tinted band for each wave, from the first sample that is at it to the first that is at another.
fn bands(out: &mut String, scale: &Scale, samples: &[Sample]) -> fmt::Result {
    let mut begins = 0;
    while let Some(first) = samples.get(begins) {
        let length = samples[begins..].iter().take_while(|sample| sample.wave == first.wave).count();
        let after = begins + length;
        let until = samples.get(after).map_or(scale.last_ms, |sample| sample.at_ms);
        if first.wave > 0 {
            let (x, right) = (scale.x(first.at_ms), scale.x(until));
            let (top, tint) = (FRAME.1 - 20.0, TINTS[usize::from(first.wave) % TINTS.len()]);
            writeln!(
                out,
                r#"<rect x="{x:.1}" y="{top}" width="{:.1}" height="{}" fill="{tint}"/>"#,
                right - x,
                FRAME.3 - top
            )?;
            if right - x >= NUMBER_WIDTH {
                writeln!(
                    out,
                    r##"<text x="{:.1}" y="{}" fill="#555">{}</text>"##,
                    x + 3.0,
                    top + 14.0,
                    first.wave
                )?;
            }
        }
        begins = after;
    }
    Ok(())
}

/// The layers, each on top of those below it. A count holds from its sample to the next one.
fn areas(out: &mut String, scale: &Scale, samples: &[Sample]) -> fmt::Result {
    let mut below = vec![0_u32; samples.len()];
    for (word, colour, count) in LAYERS {
        let tops: Vec<u32> = below.iter().zip(samples).map(|(base, sample)| base + count(sample)).collect();
        if tops == below {
            continue;
        }
        write!(out, r#"<path fill="{colour}" d=""#)?;
        outline(out, scale, samples, &tops, false)?;
        outline(out, scale, samples, &below, true)?;
        writeln!(out, r#"Z"><title>{word}</title></path>"#)?;
        below = tops;
    }
    Ok(())
}

/// One edge of a layer: forth along its top, or back along its bottom.
fn outline(out: &mut String, scale: &Scale, samples: &[Sample], heights: &[u32], back: bool) -> fmt::Result {
    let until = samples.iter().skip(1).map(|sample| sample.at_ms).chain([scale.last_ms]);
    let mut corners: Vec<(f64, f64)> = Vec::with_capacity(2 * samples.len());
    for ((sample, until), height) in samples.iter().zip(until).zip(heights) {
        let y = scale.y(*height);
        corners.extend([(scale.x(sample.at_ms), y), (scale.x(until), y)]);
    }
    if back {
        corners.reverse();
    }
    for (number, (x, y)) in corners.into_iter().enumerate() {
        let command = if number == 0 && !back { 'M' } else { 'L' };
        write!(out, "{command}{x:.1} {y:.1}")?;
    }
    Ok(())
}

fn axes(out: &mut String, scale: &Scale) -> fmt::Result {
    let (left, _, right, bottom) = FRAME;
    writeln!(out, r##"<path d="M{left} {bottom}H{right}" stroke="#555" fill="none"/>"##)?;
    if scale.members < scale.total {
        let (top, total) = (FRAME.1 - 8.0, grouped(scale.total));
        writeln!(out, r#"<text x="{}" y="{top}" text-anchor="end">of {total}</text>"#, left - 6.0)?;
    }
    let mut below = None;
    for quarter in 0..=4_u32 {
        let members = u64::from(scale.members) * u64::from(quarter) / 4;
        if below.replace(members) != Some(members) {
            let y = scale.y(u32::try_from(members).unwrap_or(scale.members));
            let (x, y, members) = (left - 6.0, y + 4.0, grouped(members));
            writeln!(out, r#"<text x="{x}" y="{y:.1}" text-anchor="end">{members}</text>"#)?;
        }
        let at_ms = scale.last_ms / 4 * u64::from(quarter);
        let clock = Clock(std::time::Duration::from_millis(at_ms));
        let anchor = if quarter == 4 { "end" } else { "middle" };
        let (x, y) = (scale.x(at_ms), bottom + 18.0);
        writeln!(out, r#"<text x="{x:.1}" y="{y}" text-anchor="{anchor}">{clock}</text>"#)?;
    }
    Ok(())
}

/// Gates that spoke, and stops of the rollout: a line with the whole sentence to be read when pointed at.
fn marked(out: &mut String, scale: &Scale, mark: &Mark) -> fmt::Result {
    let colour = match &mark.kind {
        MarkKind::Gate(evidence) if evidence.verdict == Verdict::Fail => LINES[0].1,
        MarkKind::Gate(_) => LINES[1].1,
        MarkKind::Rollout(RolloutState::Paused | RolloutState::Aborting | RolloutState::RollingBack) => {
            LINES[2].1
        }
        MarkKind::Act { .. }
        | MarkKind::Refused
        | MarkKind::Rollout(_)
        | MarkKind::Stretched(..)
        | MarkKind::Wave(..) => return Ok(()),
    };
    writeln!(
        out,
        r#"<path d="M{x:.1} {top}V{bottom}" stroke="{colour}" stroke-width="1.5" fill="none"><title>{}: {}</title></path>"#,
        Escaped(&mark.what),
        Escaped(&mark.details),
        x = scale.x(mark.at_ms),
        top = FRAME.1,
        bottom = FRAME.3,
    )
}

fn legend(out: &mut String) -> fmt::Result {
    let y = SIZE.1 - 24.0;
    for (number, (word, colour, _)) in (0_u32..).zip(LAYERS) {
        let x = FRAME.0 + 110.0 * f64::from(number);
        writeln!(out, r#"<rect x="{x}" y="{}" width="12" height="12" fill="{colour}"/>"#, y - 10.0)?;
        writeln!(out, r#"<text x="{}" y="{y}">{word}</text>"#, x + 18.0)?;
    }
    for (number, (words, colour)) in (6_u32..).zip(LINES) {
        let x = FRAME.0 + 110.0 * f64::from(number);
        writeln!(out, r#"<path d="M{x} {}V{}" stroke="{colour}" stroke-width="1.5"/>"#, y - 11.0, y + 2.0)?;
        writeln!(out, r#"<text x="{}" y="{y}">{words}</text>"#, x + 8.0)?;
    }
    Ok(())
}

/// Text inside an element: what would be markup is none, and control characters are left out.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                c if c.is_control() => f.write_char(' ')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opamp_fleet::rollout::OperatorState;

    fn sample(at_ms: u64, wave: u16, pending: u32, applied: u32) -> Sample {
        Sample {
            at_ms,
            wave,
            state: RolloutState::Running,
            operator_state: OperatorState::InProgress,
            pending,
            applying: 0,
            applied,
            failed: 0,
            neutral: 0,
            deferred: 0,
        }
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(Escaped("<a href=\"x\">&\u{1b}").to_string(), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }

    #[test]
    fn layers_stand_on_each_other_and_empty_ones_are_left_out() {
        let scale = Scale { last_ms: 10, members: 10, total: 10 };
        let samples = [sample(0, 1, 10, 0), sample(5, 1, 4, 6)];
        let mut out = String::new();
        areas(&mut out, &scale, &samples).unwrap();
        let layers: Vec<&str> = out.lines().collect();
        assert_eq!(layers.len(), 2);
        assert!(layers[0].contains("<title>applied</title>") && layers[1].contains("<title>pending</title>"));
        // Up to six tenths of the height from the middle on, and back along the bottom.
        assert!(
            layers[0].contains("M70.0 350.0L527.5 350.0L527.5 182.0L985.0 182.0L985.0 350.0"),
            "{}",
            layers[0]
        );
    }

    #[test]
    fn what_rests_is_shown_until_its_last_change() {
        let samples = [sample(0, 1, 10, 0), sample(5, 1, 4, 6), sample(9, 1, 4, 6), sample(900, 1, 4, 6)];
        assert_eq!(last_change(&samples), 5);
        assert_eq!(last_change(&samples[..1]), 0);
        let scale = Scale { last_ms: 10, members: 10, total: 10 };
        assert_eq!(scale.seen(&samples).len(), 3);
    }

    #[test]
    fn more_members_than_the_picture_is_high_reach_its_top_and_no_further() {
        let scale = Scale { last_ms: 10, members: 10, total: 1_000 };
        assert!((scale.y(1_000) - FRAME.1).abs() < 1e-9 && (scale.y(0) - FRAME.3).abs() < 1e-9);
        let mut out = String::new();
        axes(&mut out, &scale).unwrap();
        assert!(out.contains("of 1,000"), "{out}");
    }

    #[test]
    fn a_wave_has_one_band_while_it_lasts() {
        let scale = Scale { last_ms: 30, members: 10, total: 10 };
        let samples = [sample(0, 0, 10, 0), sample(10, 1, 9, 1), sample(15, 1, 8, 2), sample(20, 2, 5, 5)];
        let mut out = String::new();
        bands(&mut out, &scale, &samples).unwrap();
        assert_eq!(out.matches("<rect").count(), 2);
        assert!(out.contains(TINTS[1]) && out.contains(TINTS[0]));
    }
}
