//! What the command line says.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;

use opamp_fleet::rollout::stats::Ppm;
use opamp_testkit::sim::quality::{self, QualityOptions};

/// How the program is used.
pub(crate) const USAGE: &str = "\
sim seeds [--seeds N] [--first-seed S] [--threads N] [--frames] [--out DIRECTORY]
                       run seeds; one that breaks an invariant is made smaller and written to DIRECTORY
sim replay FILE [--frames]
                       run a scenario that was written
sim quality [--runs N] [--first-seed S] [--threads N] [--fleets N,N] [--rates P,P] [--markdown FILE]
                       how often rollouts stop by fault rate (percent) and fleet size; FILE has marks for the table
sim bugs [NAME]        look for each seeded bug, or for one (builds with `--cfg opamp_faults` only)
";

/// Most threads.
const THREADS_MAX: usize = 1_024;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Bugs { only: Option<String> },
    Quality { options: QualityOptions, markdown: Option<PathBuf> },
    Replay { file: PathBuf, frames: bool },
    Seeds(Seeds),
}

/// Which seeds, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) threads: NonZero<usize>,
    pub(crate) frames: bool,
    pub(crate) out: PathBuf,
}

/// The command line asks for what there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionsError(String);

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{USAGE}", self.0)
    }
}

/// Reads the words behind the program's name.
pub(crate) fn parse(words: &[&str]) -> Result<What, OptionsError> {
    let Some((command, rest)) = words.split_first() else {
        return Err(OptionsError("there is nothing to do".to_owned()));
    };
    let mut words = Words { rest };
    match *command {
        "seeds" => seeds(&mut words),
        "replay" => replay(&mut words),
        "quality" => quality(&mut words),
        "bugs" => bugs(&mut words),
        other => Err(OptionsError(format!("there is no command {other}"))),
    }
}

fn seeds(words: &mut Words<'_>) -> Result<What, OptionsError> {
    let mut seeds =
        Seeds { first: 1, count: 200, threads: quality::threads(), frames: false, out: PathBuf::from(".") };
    while let Some(word) = words.next() {
        match word {
            "--seeds" => seeds.count = words.number(word, 1, 100_000_000)?,
            "--first-seed" => seeds.first = words.number(word, 0, u64::MAX / 2)?,
            "--threads" => seeds.threads = words.threads(word)?,
            "--frames" => seeds.frames = true,
            "--out" => seeds.out = words.value(word)?.into(),
            other => return Err(unknown(other)),
        }
    }
    Ok(What::Seeds(seeds))
}

fn replay(words: &mut Words<'_>) -> Result<What, OptionsError> {
    let (mut file, mut frames) = (None, false);
    while let Some(word) = words.next() {
        match word {
            "--frames" => frames = true,
            path if !path.starts_with('-') && file.is_none() => file = Some(PathBuf::from(path)),
            other => return Err(unknown(other)),
        }
    }
    let file = file.ok_or_else(|| OptionsError("replay needs the file of a scenario".to_owned()))?;
    Ok(What::Replay { file, frames })
}

fn quality(words: &mut Words<'_>) -> Result<What, OptionsError> {
    let (mut options, mut markdown) = (QualityOptions::default(), None);
    while let Some(word) = words.next() {
        match word {
            "--runs" => options.runs = words.small(word, 1, 1_000_000)?,
            "--first-seed" => options.first = words.number(word, 0, u64::MAX / 2)?,
            "--threads" => options.threads = words.threads(word)?,
            "--fleets" => options.fleets = list(word, words.value(word)?, fleet)?,
            "--rates" => options.rates = list(word, words.value(word)?, rate)?,
            "--markdown" => markdown = Some(words.value(word)?.into()),
            other => return Err(unknown(other)),
        }
    }
    Ok(What::Quality { options, markdown })
}

fn bugs(words: &mut Words<'_>) -> Result<What, OptionsError> {
    let only = words.next().map(str::to_owned);
    words.next().map_or(Ok(What::Bugs { only }), |other| Err(unknown(other)))
}

/// A fleet that a quality table can be made of.
fn fleet(text: &str) -> Option<u32> {
    text.parse().ok().filter(|agents| (1..=1_000_000).contains(agents))
}

/// A ratio in percent with at most four decimals, without a sign.
fn rate(text: &str) -> Option<Ppm> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || whole.len() > 3 || decimals.len() > 4 {
        return None;
    }
    let millionths: u32 = format!("{decimals:0<4}").parse().ok()?;
    let whole: u32 = whole.parse().ok()?;
    Some(Ppm(whole * 10_000 + millionths)).filter(|rate| *rate <= Ppm::ALL)
}

fn list<T>(option: &str, text: &str, read: fn(&str) -> Option<T>) -> Result<Vec<T>, OptionsError> {
    let items: Option<Vec<T>> = text.split(',').map(|item| read(item.trim())).collect();
    items
        .filter(|items| items.len() <= 32)
        .ok_or_else(|| OptionsError(format!("{option} {text}: numbers with commas between them are needed")))
}

fn unknown(word: &str) -> OptionsError {
    OptionsError(format!("there is no option {word} here"))
}

/// Words that are not read yet.
struct Words<'a> {
    rest: &'a [&'a str],
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(word)
    }

    fn value(&mut self, option: &str) -> Result<&'a str, OptionsError> {
        self.next().ok_or_else(|| OptionsError(format!("{option} needs a value behind it")))
    }

    fn number(&mut self, option: &str, from: u64, until: u64) -> Result<u64, OptionsError> {
        let text = self.value(option)?;
        text.parse().ok().filter(|number| (from..=until).contains(number)).ok_or_else(|| {
            OptionsError(format!("{option} {text}: a whole number from {from} to {until} is needed"))
        })
    }

    fn small(&mut self, option: &str, from: u32, until: u32) -> Result<u32, OptionsError> {
        let number = self.number(option, from.into(), until.into())?;
        // Within u32 by the bound.
        Ok(u32::try_from(number).unwrap_or(until))
    }

    fn threads(&mut self, option: &str) -> Result<NonZero<usize>, OptionsError> {
        let number = self.number(option, 1, THREADS_MAX as u64)?;
        let number = usize::try_from(number).ok().and_then(NonZero::new);
        Ok(number.unwrap_or(NonZero::<usize>::MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<What, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        parse(&words).map_err(|error| error.0)
    }

    #[test]
    fn seeds_are_named_by_the_first_and_how_many() {
        let Ok(What::Seeds(seeds)) = parsed("seeds --first-seed 4711 --seeds 1 --frames") else {
            panic!("not seeds")
        };
        assert_eq!((seeds.first, seeds.count, seeds.frames), (4_711, 1, true));
        assert_eq!(
            parsed("replay sim-1.toml"),
            Ok(What::Replay { file: "sim-1.toml".into(), frames: false })
        );
        assert_eq!(parsed("bugs lock-leak"), Ok(What::Bugs { only: Some("lock-leak".to_owned()) }));
    }

    #[test]
    fn rates_are_percent_with_decimals() {
        let Ok(What::Quality { options, .. }) =
            parsed("quality --rates 0,0.5,20,100 --fleets 10,1000 --runs 5")
        else {
            panic!("not quality")
        };
        assert_eq!(options.rates, [Ppm(0), Ppm(5_000), Ppm::percent(20), Ppm::ALL]);
        assert_eq!((options.fleets, options.runs), (vec![10, 1_000], 5));
    }

    #[test]
    fn what_there_is_not_is_named() {
        for (line, expected) in [
            ("", "nothing to do"),
            ("seed", "no command seed"),
            ("seeds --seeds 0", "from 1 to"),
            ("seeds --seeds", "--seeds needs a value"),
            ("seeds 7", "no option 7"),
            ("replay", "needs the file"),
            ("replay a b", "no option b"),
            ("quality --rates 101", "--rates 101"),
            ("quality --rates 1.23456", "--rates 1.23456"),
            ("quality --rates 1,,2", "--rates 1,,2"),
            ("quality --rates -1", "--rates -1"),
            ("quality --fleets 0", "--fleets 0"),
            ("bugs a b", "no option b"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
