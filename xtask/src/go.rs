//! The Go toolchain, which only the interoperability tests need.

use crate::process::{Program, find};

/// The oldest Go release that the interop programs build with.
pub const GO_MIN: (u32, u32) = (1, 25);

/// Whether the interop programs can be built here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Go {
    /// They can.
    Usable,
    /// They cannot, for this reason.
    Unusable(String),
}

impl Go {
    /// Asks the `go` in the path for its version.
    #[must_use]
    pub fn detect() -> Self {
        let needed = format!("Go {}.{} or newer", GO_MIN.0, GO_MIN.1);
        if find("go").is_none() {
            return Self::Unusable(format!("{needed} is not installed"));
        }
        match Program::new("go").args(["env", "GOVERSION"]).capture() {
            Ok(answer) if answer.succeeded() => {
                let text = answer.stdout.trim();
                match version(text) {
                    Some(found) if found >= GO_MIN => Self::Usable,
                    Some(_) => Self::Unusable(format!("{needed} is needed, {text} is installed")),
                    None => Self::Unusable(format!("{needed} is needed, `{text}` is not understood")),
                }
            }
            Ok(answer) => {
                Self::Unusable(format!("{needed} is needed, `go env` failed: {}", answer.stderr.trim()))
            }
            Err(error) => Self::Unusable(format!("{needed} is needed: {error}")),
        }
    }
}

/// `go1.26.8`, `go1.25rc1`, `devel go1.27-abcdef …`
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, after) = text.split_once("go")?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        assert_eq!(version("go1.26.8"), Some((1, 26)));
        assert_eq!(version("go1.25rc1"), Some((1, 25)));
        assert_eq!(version("devel go1.27-abcdef Mon"), Some((1, 27)));
        assert_eq!(version("gccgo"), None);
        assert!(version("go1.9.7") < Some(GO_MIN));
    }
}
