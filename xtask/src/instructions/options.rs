//! What the command line says.

/// How the command is used.
pub(super) const USAGE: &str = "cargo xtask instructions [--update] [PART OF A SCENARIO'S NAME]";

/// What is to be counted, and what becomes of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The counts become the baseline.
    pub update: bool,
    /// Only scenarios whose names contain this.
    pub only: Option<String>,
}

impl Options {
    /// Reads the words behind `instructions`.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would be right.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut options = Self::default();
        for &word in words {
            match word {
                "--update" => options.update = true,
                option if option.starts_with('-') => {
                    return Err(format!("there is no option {option}\nusage: {USAGE}"));
                }
                only if options.only.is_some() => {
                    return Err(format!(
                        "one part of a name is enough: {only} is one too many\nusage: {USAGE}"
                    ));
                }
                only => options.only = Some(only.to_owned()),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_mean_nothing_are_refused_with_the_usage() {
        let expected = Options { update: true, only: Some("session".into()) };
        assert_eq!(Options::parse(&["--update", "session"]), Ok(expected));
        for wrong in [&["--accept"][..], &["codec", "session"]] {
            assert!(Options::parse(wrong).unwrap_err().contains("usage: cargo xtask instructions"));
        }
    }
}
