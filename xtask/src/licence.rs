//! Which foreign crates may be built in: their licences, and the few that are banned by name.

/// Licences under which anyone may use and change the code in a program of any licence.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "NCSA",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that must not come in, and why.
const BANNED: &[(&str, &str)] = &[
    ("async-global-executor", "a second async runtime beside tokio"),
    ("async-std", "a second async runtime beside tokio"),
    ("aws-lc-sys", "a second cryptography provider: the programs take ring, the libraries choose none"),
    ("native-tls", "TLS is rustls"),
    ("openssl", "TLS is rustls"),
    ("openssl-sys", "TLS is rustls"),
    ("rustls-pemfile", "archived: rustls-pki-types reads PEM"),
    ("serde_yaml", "unmaintained"),
    ("serde_yml", "unmaintained"),
    ("smol", "a second async runtime beside tokio"),
];

/// A crate that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its SPDX expression, if the manifest has one.
    pub licence: Option<String>,
}

/// Packages whose licence is missing, unreadable or not allowed.
#[must_use]
pub fn licence_violations(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .filter_map(|package| {
            let subject = format!("{} {}", package.name, package.version);
            match package.licence.as_deref() {
                None => Some(format!("{subject} names no licence")),
                Some(text) => match permits(text) {
                    Ok(true) => None,
                    Ok(false) => Some(format!("{subject}: licence {text} is not on the list")),
                    Err(what) => Some(format!("{subject}: licence {text} cannot be read: {what}")),
                },
            }
        })
        .collect()
}

/// Packages that are banned by name.
#[must_use]
pub fn banned(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .filter_map(|package| {
            let (_, why) = BANNED.iter().find(|(name, _)| *name == package.name)?;
            Some(format!("{} {} is banned: {why}", package.name, package.version))
        })
        .collect()
}

/// Whether an SPDX expression can be satisfied with allowed licences. `/` is the old way to write OR.
fn permits(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let answer = parser.either()?;
    if let Some(word) = parser.words.first() {
        return Err(format!("`{word}` was not expected"));
    }
    Ok(answer)
}

/// Recursive descent over `either = both {OR both}`, `both = one {AND one}`, `one = ( either ) | name [WITH name]`.
struct Parser<'a> {
    words: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn either(&mut self) -> Result<bool, String> {
        let mut answer = self.both()?;
        while self.take("OR") {
            answer |= self.both()?;
        }
        Ok(answer)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut answer = self.one()?;
        while self.take("AND") {
            answer &= self.one()?;
        }
        Ok(answer)
    }

    fn one(&mut self) -> Result<bool, String> {
        if self.take("(") {
            let answer = self.either()?;
            return if self.take(")") { Ok(answer) } else { Err("a parenthesis is not closed".to_owned()) };
        }
        let mut name = self.name()?.to_owned();
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.name()?);
        }
        Ok(ALLOWED.contains(&name.as_str()))
    }

    fn name(&mut self) -> Result<&'a str, String> {
        match self.words.split_first() {
            Some((word, rest)) if !matches!(*word, "AND" | "OR" | "WITH" | ")") => {
                self.words = rest;
                Ok(word)
            }
            Some((word, _)) => Err(format!("`{word}` stands where a licence belongs")),
            None => Err("a licence is missing at the end".to_owned()),
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.words.first() == Some(&word);
        if taken {
            self.words = &self.words[1..];
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, licence: Option<&str>) -> Package {
        Package { name: name.to_owned(), version: "1.0.0".to_owned(), licence: licence.map(str::to_owned) }
    }

    #[test]
    fn a_choice_with_one_allowed_licence_is_allowed() {
        for licence in [
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert_eq!(licence_violations(&[package("a", Some(licence))]), Vec::<String>::new(), "{licence}");
        }
    }

    #[test]
    fn what_is_not_allowed_on_every_path_is_refused() {
        for licence in [
            "GPL-3.0-only",
            "MIT AND GPL-2.0",
            "MIT AND (GPL-2.0 OR LGPL-3.0)",
            "GPL-2.0 WITH LLVM-exception",
            "MIT OR",
            "(MIT",
            "MIT MIT",
        ] {
            assert_eq!(licence_violations(&[package("a", Some(licence))]).len(), 1, "{licence}");
        }
    }

    #[test]
    fn a_crate_without_licence_is_refused() {
        assert_eq!(licence_violations(&[package("a", None)]), ["a 1.0.0 names no licence"]);
    }

    #[test]
    fn a_banned_crate_is_named_with_the_reason() {
        let found = banned(&[package("serde", Some("MIT")), package("openssl-sys", Some("MIT"))]);
        assert_eq!(found, ["openssl-sys 1.0.0 is banned: TLS is rustls"]);
    }
}
