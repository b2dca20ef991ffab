//! The counts that are committed: a small part of TOML, written by `--update` and read line by line.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the counts depend on beside the program itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toolchain {
    /// The line of `rustc --version`, with the flags that the environment adds.
    pub rustc: String,
    /// The platform compiled for, with its C library and registers.
    pub platform: String,
}

/// The content of `benches/instructions.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    /// How far a count may be from its baseline, in percent.
    pub tolerance_percent: f64,
    /// What it was counted with.
    pub counted_with: Toolchain,
    /// Instructions of one round, by scenario.
    pub counts: BTreeMap<String, u64>,
}

impl Default for Baseline {
    fn default() -> Self {
        Self { tolerance_percent: 2.5, counted_with: Toolchain::default(), counts: BTreeMap::new() }
    }
}

const HEADING: &str = "\
# Instructions of one round of each scenario in benches/src/instructions, counted by callgrind.
# `cargo xtask instructions` compares with them; `cargo xtask instructions --update` writes this file.
";

impl Baseline {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// The number of the line that is not understood, and why; or what is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut read = Self { tolerance_percent: f64::NAN, ..Self::default() };
        let mut section = "";
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let wrong = |why: &str| format!("line {}: {why}: {line}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
                continue;
            }
            let (key, value) =
                line.split_once('=').ok_or_else(|| wrong("neither a section nor `key = value`"))?;
            let (key, value) = (unquoted(key.trim()), value.trim());
            match (section, key) {
                ("", "tolerance_percent") => {
                    read.tolerance_percent = match value.parse() {
                        Ok(percent) if (0.0..100.0).contains(&percent) => percent,
                        _ => return Err(wrong("a number from 0 to 100 is needed")),
                    };
                }
                ("counted_with", "rustc") => unquoted(value).clone_into(&mut read.counted_with.rustc),
                ("counted_with", "platform") => unquoted(value).clone_into(&mut read.counted_with.platform),
                ("instructions_per_round", scenario) => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    let count = count.ok_or_else(|| wrong("a count is a whole number above 0"))?;
                    if read.counts.insert(scenario.to_owned(), count).is_some() {
                        return Err(wrong("twice"));
                    }
                }
                _ => return Err(wrong("there is no such key here")),
            }
        }
        let with = &read.counted_with;
        for (missing, name) in [
            (read.tolerance_percent.is_nan(), "tolerance_percent"),
            (with.rustc.is_empty(), "rustc in [counted_with]"),
            (with.platform.is_empty(), "platform in [counted_with]"),
        ] {
            if missing {
                return Err(format!("{name} is missing"));
            }
        }
        Ok(read)
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEADING}tolerance_percent = {}\n", self.tolerance_percent);
        let Toolchain { rustc, platform } = &self.counted_with;
        let _ = write!(text, "\n[counted_with]\nrustc = \"{rustc}\"\nplatform = \"{platform}\"\n");
        text.push_str("\n[instructions_per_round]\n");
        for (scenario, count) in &self.counts {
            let _ = writeln!(text, "\"{scenario}\" = {count}");
        }
        text
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Baseline {
        Baseline {
            tolerance_percent: 2.5,
            counted_with: Toolchain { rustc: "rustc 1.95.0 (abc)".into(), platform: "x86_64".into() },
            counts: [("codec/decode".to_owned(), 319), ("session/heartbeat".to_owned(), 1390)].into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(Baseline::parse(&sample().to_text()), Ok(sample()));
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for (line, why) in [
            ("nonsense", "neither a section"),
            ("\"a\" = many", "whole number"),
            ("\"a\" = 0", "whole number"),
            ("\"codec/decode\" = 1", "twice"),
            ("[elsewhere]\nx = 1", "no such key"),
        ] {
            let error = Baseline::parse(&format!("{}{line}\n", sample().to_text())).unwrap_err();
            assert!(error.starts_with("line 1") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_without_its_toolchain_or_tolerance_is_refused() {
        let text = sample().to_text();
        for (key, name) in
            [("rustc", "rustc in"), ("platform", "platform in"), ("tolerance", "tolerance_percent")]
        {
            let without: String =
                text.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
            assert!(Baseline::parse(&without).unwrap_err().contains(name));
        }
        assert!(Baseline::parse("tolerance_percent = 100").unwrap_err().contains("from 0 to 100"));
    }
}
