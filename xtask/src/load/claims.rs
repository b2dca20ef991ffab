//! Sentences that a measurement proves or does not.

use super::table::Table;

/// Whether a sentence holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It does.
    Held,
    /// It does not.
    Broken,
    /// The measurement is too coarse to say.
    CannotBeTold,
}

/// A sentence, what was measured, and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// What is said.
    pub(crate) text: String,
    /// What was measured.
    pub(crate) found: String,
    /// Whether it holds.
    pub(crate) outcome: Outcome,
}

/// The claims of a measurement, printed as they come.
#[derive(Debug, Default)]
pub(crate) struct Claims(Vec<Claim>);

impl Claims {
    /// Adds one, and prints it.
    pub(crate) fn add(&mut self, text: impl Into<String>, found: impl Into<String>, held: bool) {
        self.judged(text, found, if held { Outcome::Held } else { Outcome::Broken });
    }

    /// Adds one that may be beyond telling, and prints it.
    pub(crate) fn judged(&mut self, text: impl Into<String>, found: impl Into<String>, outcome: Outcome) {
        let claim = Claim { text: text.into(), found: found.into(), outcome };
        println!("{:<6}  {}: {}", mark(outcome), claim.text, claim.found);
        self.0.push(claim);
    }

    /// That a number is what it is said to be.
    pub(crate) fn equal(&mut self, text: impl Into<String>, found: u64, expected: u64) {
        self.add(text, format!("{found} of {expected}"), found == expected);
    }

    /// That a number is no larger than it is said to be.
    pub(crate) fn at_most(&mut self, text: impl Into<String>, found: f64, most: f64, unit: &str) {
        self.add(text, format!("{found:.2} {unit}, at most {most:.2} {unit}"), found <= most);
    }

    /// That a number is no smaller than it is said to be.
    pub(crate) fn at_least(&mut self, text: impl Into<String>, found: f64, least: f64, unit: &str) {
        self.add(text, format!("{found:.2} {unit}, at least {least:.2} {unit}"), found >= least);
    }

    /// Whether any holds and none is broken. What cannot be told is neither, and is said to be so.
    #[must_use]
    pub(crate) fn none_broken(&self) -> bool {
        let any = |outcome| self.0.iter().any(|claim| claim.outcome == outcome);
        any(Outcome::Held) && !any(Outcome::Broken)
    }

    /// For a page.
    #[must_use]
    pub(crate) fn markdown(&self) -> String {
        let mut table = Table::new(&["claim", "measured", "holds"]);
        for claim in &self.0 {
            let holds = match claim.outcome {
                Outcome::Held => "yes",
                Outcome::Broken => "**no**",
                Outcome::CannotBeTold => "cannot be told",
            };
            table.row(vec![claim.text.clone(), claim.found.clone(), holds.to_owned()]);
        }
        table.markdown()
    }
}

fn mark(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Held => "ok",
        Outcome::Broken => "FAILED",
        Outcome::CannotBeTold => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_claim_is_enough_and_none_prove_nothing() {
        let mut claims = Claims::default();
        assert!(!claims.none_broken());
        claims.equal("all are back", 10, 10);
        claims.at_most("how long", 3.0, 3.0, "s");
        claims.at_least("how long", 3.0, 3.0, "s");
        assert!(claims.none_broken());
        claims.at_most("how long", 3.1, 3.0, "s");
        assert!(!claims.none_broken());
        assert!(claims.markdown().contains("| how long | 3.10 s, at most 3.00 s | **no** |"));
        claims.at_least("how long", 2.9, 3.0, "s");
        assert!(claims.markdown().contains("| how long | 2.90 s, at least 3.00 s | **no** |"));
    }

    #[test]
    fn what_cannot_be_told_neither_holds_nor_is_broken() {
        let mut claims = Claims::default();
        claims.judged("no worse", "5 with, 4 to 9 without", Outcome::CannotBeTold);
        assert!(!claims.none_broken());
        assert!(claims.markdown().contains("| cannot be told |"));
        claims.equal("all are back", 10, 10);
        assert!(claims.none_broken());
    }
}
