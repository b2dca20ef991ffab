//! What the command line says.

use std::path::PathBuf;

use super::servers::{Kind, Store};

/// How the command is used.
const USAGE: &str = "\
usage: cargo xtask load [--rounds N] [--quick] [--markdown FILE] [--only WORD,…] [--store memory|sqlite] [--no-build]
           ours, the floor and opamp-go beside each other; words: ours, floor, opamp-go, ws, wss
       cargo xtask load scale|storm|slow|announce|steady [--quick] [--markdown FILE] [--store memory|sqlite] [--no-build]
           claims about ours alone
       --no-build measures the programs that were built before";

/// Most rounds of a comparison: an hour and more.
const ROUNDS_MAX: u32 = 20;

/// What is to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The comparison, or one of the scenarios.
    pub(crate) what: What,
    /// Rounds of the comparison.
    pub(crate) rounds: u32,
    /// Few agents and short times: whether it works, not what it costs.
    pub(crate) quick: bool,
    /// Where the result is written as Markdown.
    pub(crate) markdown: Option<PathBuf>,
    /// The servers that take part.
    pub(crate) kinds: Vec<Kind>,
    /// Whether over TLS: each of these.
    pub(crate) tls: Vec<bool>,
    /// Whether the programs are built first.
    pub(crate) build: bool,
    /// Where ours keeps its fleet.
    pub(crate) store: Option<Store>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Ours, the floor and opamp-go.
    Comparison,
    /// Claims about ours.
    Scenario(Scenario),
}

/// Claims about ours, in runs of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Every agent announces a large message.
    Announce,
    /// As many agents as a process may have, and as many as the machine may have.
    Scale,
    /// One percent of slow readers and half-open peers.
    Slow,
    /// Heartbeats for ten minutes.
    Steady,
    /// Everyone comes back at once.
    Storm,
}

impl Scenario {
    const ALL: [Self; 5] = [Self::Scale, Self::Storm, Self::Slow, Self::Announce, Self::Steady];

    const fn name(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Scale => "scale",
            Self::Slow => "slow",
            Self::Steady => "steady",
            Self::Storm => "storm",
        }
    }
}

impl What {
    /// Its word on the command line, and the name of its directory.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Comparison => "comparison",
            Self::Scenario(scenario) => scenario.name(),
        }
    }
}

impl Options {
    /// Reads the words behind `load`.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would be right.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        parse(words).map_err(|error| format!("{error}\n{USAGE}"))
    }
}

fn parse(words: &[&str]) -> Result<Options, String> {
    let mut options = Options {
        what: What::Comparison,
        rounds: 3,
        quick: false,
        markdown: None,
        kinds: Kind::ALL.to_vec(),
        tls: vec![false, true],
        build: true,
        store: None,
    };
    let mut words = words.iter();
    let (mut rounds, mut only) = (None, None);
    while let Some(&word) = words.next() {
        let mut value =
            |what: &str| words.next().copied().ok_or_else(|| format!("{word} needs {what} behind it"));
        match word {
            "--rounds" => {
                let text = value("a number")?;
                let number = text.parse().ok().filter(|number| (1..=ROUNDS_MAX).contains(number));
                rounds = Some(number.ok_or_else(|| {
                    format!("--rounds {text}: a whole number from 1 to {ROUNDS_MAX} is needed")
                })?);
            }
            "--no-build" => options.build = false,
            "--quick" => options.quick = true,
            "--markdown" => options.markdown = Some(PathBuf::from(value("a file")?)),
            "--only" => only = Some(value("one or more words")?),
            "--store" => {
                options.store = Some(match value("memory or sqlite")? {
                    "memory" => Store::Memory,
                    "sqlite" => Store::Sqlite,
                    other => return Err(format!("--store {other}: memory or sqlite is needed")),
                });
            }
            option if option.starts_with('-') => return Err(format!("there is no option {option}")),
            name => {
                let found = Scenario::ALL.into_iter().find(|scenario| scenario.name() == name);
                let found = found.ok_or_else(|| format!("there is no scenario {name}"))?;
                if options.what != What::Comparison {
                    return Err(format!("one scenario at a time: {name} is one too many"));
                }
                options.what = What::Scenario(found);
            }
        }
    }
    if options.what != What::Comparison
        && let Some(option) = rounds.map(|_| "--rounds").or(only.map(|_| "--only"))
    {
        return Err(format!("{option} belongs to the comparison, not to {}", options.what.name()));
    }
    options.rounds = rounds.unwrap_or(if options.quick { 1 } else { 3 });
    if let Some(only) = only {
        choose(&mut options, only)?;
    }
    Ok(options)
}

/// Words name servers and transports; where none of a sort is named, all take part.
fn choose(options: &mut Options, only: &str) -> Result<(), String> {
    let (mut kinds, mut tls) = (Vec::new(), Vec::new());
    for word in only.split(',') {
        match (word, Kind::ALL.into_iter().find(|kind| kind.word() == word)) {
            (_, Some(kind)) => kinds.push(kind),
            ("ws", _) => tls.push(false),
            ("wss", _) => tls.push(true),
            _ => return Err(format!("--only {word}: there are ours, floor, opamp-go, ws, wss")),
        }
    }
    if !kinds.is_empty() {
        options.kinds.retain(|kind| kinds.contains(kind));
    }
    if !tls.is_empty() {
        options.tls.retain(|one| tls.contains(one));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn everything_is_compared_unless_something_is_named() {
        let all = read("").unwrap();
        assert_eq!((all.what, all.rounds, all.kinds.len(), all.tls.len()), (What::Comparison, 3, 3, 2));
        let some =
            read("--quick --only ours,opamp-go,wss --store sqlite --markdown a.md --no-build").unwrap();
        assert_eq!((some.kinds, some.tls, some.rounds), (vec![Kind::OpampGo, Kind::Ours], vec![true], 1));
        assert_eq!((some.store, some.markdown), (Some(Store::Sqlite), Some(PathBuf::from("a.md"))));
        assert!(all.build && !some.build);
        assert_eq!(read("--quick --rounds 2").unwrap().rounds, 2);
    }

    #[test]
    fn every_scenario_is_known_by_its_name() {
        for scenario in Scenario::ALL {
            assert_eq!(read(scenario.name()).unwrap().what, What::Scenario(scenario));
            assert!(USAGE.contains(scenario.name()));
        }
    }

    #[test]
    fn wrong_words_are_named_with_the_usage() {
        for (line, why) in [
            ("--rounds", "needs a number"),
            ("--rounds 0", "from 1 to 20"),
            ("--rounds many", "from 1 to 20"),
            ("--only theirs", "--only theirs"),
            ("--store disk", "memory or sqlite"),
            ("--fast", "no option --fast"),
            ("everything", "no scenario everything"),
            ("comparison", "no scenario comparison"),
            ("storm slow", "one too many"),
            ("storm --rounds 3", "belongs to the comparison"),
            ("storm --only ws", "belongs to the comparison"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(why) && error.contains("usage: cargo xtask load"), "{line}: {error}");
        }
    }
}
