//! What the command line says.

use std::fmt;
use std::path::PathBuf;

/// Longest run of one target: a week.
const SECONDS_MAX: u32 = 7 * 24 * 3600;

/// How the command is used.
const USAGE: &str = "cargo xtask fuzz [--seconds N] [TARGET], or cargo xtask fuzz --replay FILE TARGET";

/// What is to be fuzzed, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long each target runs. Default 10.
    pub seconds: u32,
    /// One target; all of them if none is named.
    pub target: Option<String>,
    /// An input to run once, instead of looking for others.
    pub replay: Option<PathBuf>,
}

/// The command line asks for what there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsError(String);

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nusage: {USAGE}", self.0)
    }
}

impl std::error::Error for OptionsError {}

impl Options {
    /// Reads the words behind `fuzz`; `targets` are the names that there are.
    ///
    /// # Errors
    ///
    /// [`OptionsError`], which says what is wrong and what would be right.
    pub fn parse(words: &[&str], targets: &[String]) -> Result<Self, OptionsError> {
        let mut options = Self { seconds: 10, target: None, replay: None };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = |what: &str| {
                words.next().ok_or_else(|| OptionsError(format!("{word} needs {what} behind it")))
            };
            match word {
                "--seconds" => {
                    let text = value("a number of seconds")?;
                    options.seconds = match text.parse() {
                        Ok(seconds) if (1..=SECONDS_MAX).contains(&seconds) => seconds,
                        _ => {
                            let what =
                                format!("--seconds {text}: a whole number from 1 to {SECONDS_MAX} is needed");
                            return Err(OptionsError(what));
                        }
                    };
                }
                "--replay" => {
                    let path = PathBuf::from(value("the path of an input")?);
                    if !path.is_file() {
                        return Err(OptionsError(format!(
                            "--replay {}: there is no such file",
                            path.display()
                        )));
                    }
                    options.replay = Some(path);
                }
                option if option.starts_with('-') => {
                    return Err(OptionsError(format!("there is no option {option}")));
                }
                target if !targets.iter().any(|name| name == target) => {
                    let known = targets.join(", ");
                    return Err(OptionsError(format!("there is no target {target}; there are {known}")));
                }
                target if options.target.is_some() => {
                    return Err(OptionsError(format!("one target or all of them: {target} is one too many")));
                }
                target => options.target = Some(target.to_owned()),
            }
        }
        if options.replay.is_some() && options.target.is_none() {
            return Err(OptionsError(
                "--replay needs the name of the target that takes the input".to_owned(),
            ));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Options::parse(&words, &["decode".to_owned(), "frame".to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn all_targets_run_ten_seconds_unless_told_otherwise() {
        assert_eq!(parse(""), Ok(Options { seconds: 10, target: None, replay: None }));
        let three = Options { seconds: 3, target: Some("frame".to_owned()), replay: None };
        assert_eq!(parse("--seconds 3 frame"), Ok(three.clone()));
        assert_eq!(parse("frame --seconds 3"), Ok(three));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let replay = Options { seconds: 10, target: Some("decode".to_owned()), replay: Some(file.into()) };
        assert_eq!(parse(&format!("--replay {file} decode")), Ok(replay));
    }

    #[test]
    fn a_bad_argument_is_named_with_what_would_be_right() {
        for (line, expected) in [
            ("--seconds", "--seconds needs a number"),
            ("--seconds 0", "from 1 to"),
            ("--seconds -1", "from 1 to"),
            ("--seconds ten", "--seconds ten"),
            ("--seconds 99999999999", "from 1 to"),
            ("--second 3", "no option --second"),
            ("fram", "no target fram; there are decode, frame"),
            ("frame decode", "decode is one too many"),
            ("--replay", "--replay needs the path"),
            ("--replay nowhere frame", "no such file"),
            (concat!("--replay ", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "needs the name of the target"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected) && error.contains("usage: cargo xtask fuzz"), "{line}: {error}");
        }
    }
}
