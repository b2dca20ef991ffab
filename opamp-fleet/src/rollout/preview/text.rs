//! A preview as text.

use std::fmt;
use std::time::Duration;

use super::{CurrentConfig, Preview, WavePreview};
use crate::rollout::gates::CONTROL_MIN;
use crate::rollout::stats::Ppm;
use crate::{BodyDiff, FileDiff};

/// Waves and examples that one line names.
const NAMED_MAX: usize = 8;

/// Two lines: the waves, who is left out, who says nothing; and what the first wave is good for.
impl fmt::Display for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.hash.to_string();
        write!(f, "plan {}…  {}", &hash[..hash.len().min(4)], counted(self.members, "agent"))?;
        let waves = self.waves.len() + self.further_waves as usize;
        write!(f, ", {}: ", counted(waves as u64, "wave"))?;
        let sizes = self.waves.iter().take(NAMED_MAX).map(|wave| grouped(wave.members));
        f.write_str(&sizes.collect::<Vec<_>>().join(", "))?;
        if waves > NAMED_MAX.min(self.waves.len()) {
            f.write_str(", …")?;
        }
        if waves == 1 && self.members > 1 {
            f.write_str(" (everybody at once)")?;
        }
        if self.away > 0 {
            write!(f, "; away {}", grouped(self.away))?;
        }
        if self.without_domain > 0 {
            write!(f, "; without a failure domain, and not limited by one {}", grouped(self.without_domain))?;
        }
        if self.current > 0 {
            write!(f, "; run it already {}", grouped(self.current))?;
        }
        if self.control > 0 {
            write!(f, "; control group {}", grouped(self.control))?;
            if self.control < CONTROL_MIN {
                write!(f, " (fewer than {CONTROL_MIN} explain nothing)")?;
            }
        }
        list(
            f,
            "excluded",
            self.exclusions.iter().map(|excluded| (excluded.reason.as_str(), excluded.count)),
            true,
        )?;
        list(f, "blind:", self.blind.iter().map(|(_, kind, count)| (kind.as_str(), *count)), false)?;
        self.first_wave(f)
    }
}

impl Preview {
    /// What the first wave sees of faults.
    fn first_wave(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chance = |percent| {
            let power = self.power.iter().find(|power| power.fault == Ppm::percent(percent));
            power.and_then(|power| power.waves.first())
        };
        let (Some(small), Some(large)) = (chance(5), chance(20)) else { return Ok(()) };
        let caught = |chance: &super::Chance| Chances(Ppm(chance.stopped.0 + chance.stretched.0));
        write!(
            f,
            "\n     first wave of {}: 5 % fault seen with {}, stopped or stretched with {}; 20 % with {}; \
             false stop at {} noise: {}",
            grouped(small.members),
            Chances(small.seen),
            caught(small),
            caught(large),
            super::NOISE,
            Chances(self.false_stop),
        )
    }

    /// Everything, a line each: what a reviewer reads. Ends with a line feed.
    #[must_use]
    pub fn to_text(&self) -> String {
        Whole(self).to_string()
    }
}

/// A preview in full.
struct Whole<'a>(&'a Preview);

impl fmt::Display for Whole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preview = self.0;
        writeln!(f, "{preview}")?;
        let lasting = preview.lasting;
        writeln!(
            f,
            "takes {} at best, {} by its deadlines",
            Span(lasting.at_best),
            Span(lasting.by_deadlines)
        )?;
        let blast = preview.blast;
        write!(f, "touches {}", counted(blast.touched, "agent"))?;
        if let Some(part) = blast.of_fleet {
            write!(f, ", {} of the fleet", Chances(part))?;
        }
        write!(f, "; at most {} in flight; a total fault touches ", grouped(blast.in_flight))?;
        match blast.total_fault {
            Some(members) => writeln!(f, "{}", grouped(members))?,
            None => writeln!(f, "all of them")?,
        }
        for wave in &preview.waves {
            writeln!(f, "  {wave}")?;
        }
        if preview.further_waves > 0 {
            writeln!(f, "  and {} more", counted(preview.further_waves, "wave"))?;
        }
        for power in &preview.power {
            let waves = power.waves.iter().map(|chance| {
                format!(
                    "{} + {} of {}",
                    Chances(chance.stopped),
                    Chances(chance.stretched),
                    grouped(chance.members)
                )
            });
            let waves: Vec<String> = waves.collect();
            writeln!(f, "fault of {}: stopped + stretched by wave: {}", power.fault, waves.join(", "))?;
        }
        for (rollout, agents) in &preview.overlaps {
            writeln!(f, "overlaps rollout {rollout} in {}", counted(*agents, "agent"))?;
        }
        for current in &preview.currents {
            write!(f, "{current}")?;
        }
        if preview.further_configs > 0 {
            writeln!(f, "and {} more", counted(preview.further_configs, "configuration"))?;
        }
        for finding in &preview.findings {
            writeln!(f, "{} {}: {}", finding.check, finding.file, finding.text)?;
        }
        Ok(())
    }
}

impl fmt::Display for WavePreview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        write!(f, "{}: {}", plan.name, counted(self.members, "agent"))?;
        if self.away > 0 {
            write!(f, ", {} away", grouped(self.away))?;
        }
        write!(f, ", then {}", Span(plan.dwell))?;
        if plan.approval {
            f.write_str(", needs an approval")?;
        }
        if plan.manual {
            f.write_str(", begun by hand")?;
        }
        list(f, "by domain:", self.zones.iter().map(|(zone, members)| (&**zone, *members)), false)
    }
}

impl fmt::Display for CurrentConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.config.map_or_else(|| "something unknown".to_owned(), |config| config.to_string());
        write!(f, "{} run {config}", counted(self.members, "agent"))?;
        match &self.files {
            None => writeln!(f, ", which cannot be compared"),
            Some(files) if files.is_empty() => writeln!(f, ", which is the same"),
            Some(files) => {
                f.write_str(":\n")?;
                files.iter().try_for_each(|file| write_file(f, file))
            }
        }
    }
}

fn write_file(f: &mut fmt::Formatter<'_>, file: &FileDiff) -> fmt::Result {
    write!(f, "  {} {:?}", file.change, file.name)?;
    match &file.body {
        BodyDiff::Binary { before_bytes, after_bytes } | BodyDiff::TooLarge { before_bytes, after_bytes } => {
            writeln!(f, ", {before_bytes} bytes become {after_bytes}")
        }
        BodyDiff::Text { added, removed, unified } => {
            writeln!(f, ", +{added} -{removed}")?;
            unified.lines().try_for_each(|line| writeln!(f, "    {line}"))
        }
        BodyDiff::Unchanged => writeln!(f, ", the body stays"),
    }
}

/// `; what 12 (this 9, that 3)`; without the sum in front unless asked for; nothing for an empty list.
fn list<'a>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    items: impl Iterator<Item = (&'a str, u32)>,
    with_sum: bool,
) -> fmt::Result {
    let items: Vec<(&str, u32)> = items.collect();
    if items.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> =
        items.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    let sum: u64 = items.iter().map(|(_, count)| u64::from(*count)).sum();
    if with_sum {
        write!(f, "; {what} {} ({})", grouped(sum), texts.join(", "))
    } else {
        write!(f, "; {what} {}", texts.join(", "))
    }
}

/// A number with its noun: `1 member`, `2,000 members`.
#[must_use]
pub fn counted(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A number with commas between thousands.
#[must_use]
pub fn grouped(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A chance in whole percent; a small one with two decimals, and one that is nearly certain is not called certain.
struct Chances(Ppm);

impl fmt::Display for Chances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            0 => f.write_str("0 %"),
            1..100 => f.write_str("under 0.01 %"),
            100..10_000 => {
                let hundredths = (self.0.0 + 50) / 100;
                write!(f, "{}.{:02} %", hundredths / 100, hundredths % 100)
            }
            10_000..995_000 => write!(f, "{} %", (self.0.0 + 5_000) / 10_000),
            995_000..1_000_000 => f.write_str("over 99 %"),
            1_000_000.. => f.write_str("100 %"),
        }
    }
}

/// A span in its two largest units.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3_600 % 24, "h"),
            (seconds / 60 % 60, "min"),
            (seconds % 60, "s"),
        ];
        let first = parts.iter().position(|(number, _)| *number > 0).unwrap_or(parts.len() - 1);
        let shown = parts.iter().skip(first).take(2).filter(|(number, _)| *number > 0);
        let texts: Vec<String> = shown.map(|(number, unit)| format!("{number} {unit}")).collect();
        if texts.is_empty() { f.write_str("0 s") } else { f.write_str(&texts.join(" ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_between_thousands() {
        assert_eq!(
            [0u32, 7, 999, 1_000, 12_345, 4_000_000].map(grouped),
            ["0", "7", "999", "1,000", "12,345", "4,000,000"]
        );
        assert_eq!([0u32, 1, 2].map(|number| counted(number, "wave")), ["0 waves", "1 wave", "2 waves"]);
    }

    #[test]
    fn a_chance_is_neither_none_nor_certain_unless_it_is() {
        let written = [0, 1, 2_400, 9_999, 10_000, 871_500, 996_000, 1_000_000]
            .map(|ppm| Chances(Ppm(ppm)).to_string());
        let expected = ["0 %", "under 0.01 %", "0.24 %", "1.00 %", "1 %", "87 %", "over 99 %", "100 %"];
        assert_eq!(written, expected);
    }

    #[test]
    fn a_span_is_written_in_its_two_largest_units() {
        let written =
            [0, 59, 60, 600, 3_661, 90_000, 86_400].map(|s| Span(Duration::from_secs(s)).to_string());
        assert_eq!(written, ["0 s", "59 s", "1 min", "10 min", "1 h 1 min", "1 d 1 h", "1 d"]);
    }
}
