//! Ordering of versions as they stand in `service.version`: semantic versioning, read generously.

use std::cmp::Ordering;

/// A version borrowed from its text, ordered by precedence.
///
/// The grammar is `[v]N(.N)*[-pre][+build]`: an optional `v`, one or more numbers, then as in semantic
/// versioning 2.0 a pre-release, which sorts before the version without one, and build metadata, which is
/// ignored. Missing numbers count as 0, so `1.2` equals `v1.2.0`. Numbers have any length.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    core: &'a str,
    pre: Option<&'a str>,
}

impl<'a> Version<'a> {
    /// Reads a version; none if the text is not one.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = split(text, '+');
        let (core, pre) = split(text, '-');
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let is_identifier = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let identifiers = |part: Option<&str>| part.is_none_or(|part| part.split('.').all(is_identifier));
        (core.split('.').all(is_number) && identifiers(pre) && identifiers(build))
            .then_some(Self { core, pre })
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut mine, mut theirs) = (self.core.split('.'), other.core.split('.'));
        loop {
            let order = match (mine.next(), theirs.next()) {
                (None, None) => break,
                (a, b) => compare_numbers(a.unwrap_or("0"), b.unwrap_or("0")),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        match (self.pre, other.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(mine), Some(theirs)) => compare_pre_releases(mine, theirs),
        }
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// Compares decimal numbers of any length.
fn compare_numbers(a: &str, b: &str) -> Ordering {
    let [a, b] = [a, b].map(|digits| digits.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Semantic versioning 2.0, clause 11.4.
fn compare_pre_releases(a: &str, b: &str) -> Ordering {
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (is_number(a), is_number(b)) {
                (true, true) => compare_numbers(a, b),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version<'_> {
        Version::parse(text).unwrap_or_else(|| panic!("{text} is a version"))
    }

    #[test]
    fn versions_sort_by_semantic_precedence() {
        let ascending = [
            "0.9",
            "0.128.0-alpha",
            "0.128.0-alpha.1",
            "0.128.0-alpha.beta",
            "0.128.0-beta",
            "0.128.0-beta.2",
            "0.128.0-beta.11",
            "0.128.0-rc.1",
            "v0.128.0",
            "0.128.0.1",
            "0.129",
            "1.0.0-rc-1",
            "1",
            "2.0.0",
            "10.0",
            "18446744073709551616.0.0",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(version(a).cmp(&version(b)), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    #[test]
    fn missing_numbers_count_as_zero_and_build_metadata_does_not_count() {
        for (a, b) in [("1.2", "v1.2.0"), ("1.2.0+abc", "1.2.0+def.1"), ("01.002", "1.2"), ("V3", "3.0.0.0")]
        {
            assert_eq!(version(a), version(b));
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in
            ["", "v", "latest", "1.", ".1", "1..2", "1.x", "1.2.3rc1", "1-", "1+", "1-a..b", " 1", "1.2 "]
        {
            assert!(Version::parse(text).is_none(), "{text:?}");
        }
    }
}
