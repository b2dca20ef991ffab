//! Files that are written are none that are read, and no two of them are one: what stood there would be lost.

use std::fs;
use std::path::{Path, PathBuf};

/// A file with what it is to the run: a flag such as `--json`, or `the plan`.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a>(pub &'a str, pub &'a Path);

/// What would be lost if the one were written, if the other is the same file.
#[must_use]
pub fn lost(written: Named<'_>, other: Named<'_>) -> Option<String> {
    let is_same = place(written.1) == place(other.1);
    is_same.then(|| format!("{} {} would overwrite {}", written.0, written.1.display(), other.0))
}

/// Where a file is, or would be: links followed as far as there is something to follow.
fn place(path: &Path) -> PathBuf {
    if let Ok(place) = fs::canonicalize(path) {
        return place;
    }
    let (Some(name), parent) = (path.file_name(), path.parent()) else { return path.to_owned() };
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::canonicalize(parent).map_or_else(|_| path.to_owned(), |parent| parent.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_many_names_and_two_files_have_two() {
        let is_lost = |one: &str, other: &str| {
            lost(Named("--json", Path::new(one)), Named("--svg", Path::new(other))).is_some()
        };
        for (one, other) in [
            ("Cargo.toml", "Cargo.toml"),
            ("Cargo.toml", "./src/../Cargo.toml"),
            ("new.json", "src/../new.json"),
            ("nowhere/new.json", "nowhere/new.json"),
        ] {
            assert!(is_lost(one, other), "{one} {other}");
        }
        for (one, other) in [("Cargo.toml", "new.json"), ("new.json", "src/new.json"), ("a", "b")] {
            assert!(!is_lost(one, other), "{one} {other}");
        }
    }
}
