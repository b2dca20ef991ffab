//! Rules about the text of files: clocks in pure code, seeded faults, what decides differently from run to run, length, paths of one machine, links that lead nowhere.

use std::collections::BTreeSet;

/// Lines after which a source file is usually two subjects.
pub const LINES_MAX: usize = 600;

/// Lines up to which a source file is comfortable; longer ones are listed, not refused.
pub const LINES_COMFORTABLE: usize = 350;

/// What pure code never says: it reads a clock, sleeps, spawns, or reaches for the world outside.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "UNIX_EPOCH.elapsed",
    "thread::sleep",
    "thread::spawn",
    "tokio::",
    "rand::",
    "getrandom::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::env::var",
];

/// Top directories that only one machine has.
const HOMES: &[&str] = &["home", "root", "work", "Users"];

/// Features that add nothing but pure code.
const PURE_FEATURES: &[&str] = &["cfg(feature = \"collector\")"];

/// Modules of a crate that are compiled without any feature but those that bring nothing impure, read off its `lib.rs`.
///
/// Together with `lib.rs` itself they are the pure part. Modules that need another feature, that are for tests, or that
/// nothing declares are not.
#[must_use]
pub fn pure_modules(lib: &str) -> BTreeSet<String> {
    let mut pure = BTreeSet::new();
    let mut attributes = String::new();
    for line in lib.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push_str(line);
        } else if !line.starts_with("//") {
            let conditions =
                PURE_FEATURES.iter().fold(attributes.clone(), |rest, pure| rest.replace(pure, ""));
            if let Some(name) = module(line).filter(|_| !conditions.contains("cfg(")) {
                pure.insert(name.to_owned());
            }
            attributes.clear();
        }
    }
    pure
}

/// The name of the module that an item declares, whoever may see it.
fn module(item: &str) -> Option<&str> {
    let unseen = match item.strip_prefix("pub") {
        Some(rest) => rest.strip_prefix('(').and_then(|to| to.split_once(')')).map_or(rest, |(_, rest)| rest),
        None => item,
    };
    unseen.trim_start().strip_prefix("mod ")?.split([';', ' ', '{']).next()
}

/// Lines of code with their numbers: without comments, and without the modules of tests that stand in the file.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_for_tests = false;
    // The line that closes a module of tests.
    let mut until: Option<String> = None;
    (1..).zip(text.lines()).filter_map(move |(number, line)| {
        if let Some(end) = &until {
            if line == end {
                until = None;
            }
            return None;
        }
        let item = line.trim_start();
        if item.starts_with("#[cfg(test)]") {
            is_for_tests = true;
        } else if is_for_tests && !item.starts_with("#[") {
            is_for_tests = false;
            if module(item).is_some() && item.contains('{') {
                let indent = &line[..line.len() - item.len()];
                until = (!item.ends_with('}')).then(|| format!("{indent}}}"));
                return None;
            }
        }
        Some((number, line.split("//").next().unwrap_or_default()))
    })
}

/// Lines of a pure source file that are not pure. Comments may name what they like, and so may tests.
#[must_use]
pub fn impure_lines(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, code) in code(text) {
        for word in IMPURE {
            if code
                .match_indices(word)
                .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            {
                found.push(format!("{path}:{number}: `{word}` in pure code"));
            }
        }
    }
    found
}

/// Lines of a library by which it could be broken on purpose, but not through `seeded!`: nobody would see them beside the
/// others.
#[must_use]
pub fn stray_faults(path: &str, text: &str) -> Vec<String> {
    let lines = (1..).zip(text.lines());
    lines
        .filter(|(_, line)| line.split("//").next().is_some_and(|code| code.contains("opamp_faults")))
        .map(|(number, _)| format!("{path}:{number}: `opamp_faults` outside of `seeded!`"))
        .collect()
}

/// Words of hash tables, whose order differs from run to run.
const UNORDERED: &[&str] = &["HashMap", "HashSet"];

/// Words of arithmetic that rounds.
const ROUNDED: &[&str] = &["f32", "f64"];

/// Lines of code by which two runs, or two machines, could decide differently: the order of hash tables, and rounding unless
/// that is done once, when a plan is made. Tests may do both.
#[must_use]
pub fn unsteady_lines(path: &str, text: &str, may_round: bool) -> Vec<String> {
    let rounded = if may_round { &[][..] } else { ROUNDED };
    let words: Vec<&str> = UNORDERED.iter().chain(rounded).copied().collect();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (number, code) in code(text) {
        for word in code.split(|c: char| !is_part(c)).filter(|word| words.contains(word)) {
            found.push(format!("{path}:{number}: `{word}` where a rollout is decided"));
        }
    }
    found
}

/// Whether a file is written by a program: its first lines say so.
#[must_use]
pub fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains("@generated") || line.contains("Code generated"))
}

/// A source file that is too long.
#[must_use]
pub fn too_long(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX && !is_generated(text))
        .then(|| format!("{path} has {lines} lines, {LINES_MAX} are the limit"))
}

/// Lines that name a place which exists on one machine only.
#[must_use]
pub fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for home in HOMES {
            let needle = format!("/{home}/");
            // Inside a longer path or an address the same letters mean something else.
            let inside = |c: char| c.is_alphanumeric() || "._-/}>$~".contains(c);
            if line.match_indices(&needle).any(|(at, _)| !line[..at].ends_with(inside)) {
                found.push(format!("{path}:{}: a path below {needle}", number + 1));
            }
        }
    }
    found
}

/// Relative links of a Markdown text, without their anchors.
#[must_use]
pub fn relative_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_pure_code_is_found() {
        let text = "let a = 1;\nlet now = std::time::Instant::now();\n// Instant::now() is banned\nlet x = MyInstant::now();\n";
        assert_eq!(impure_lines("a.rs", text), ["a.rs:2: `Instant::now` in pure code"]);
    }

    #[test]
    fn tests_at_the_end_of_a_pure_file_may_read_files() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(impure_lines("a.rs", text), Vec::<String>::new());
        assert_eq!(impure_lines("a.rs", "use std::fs;\n").len(), 1);
    }

    #[test]
    fn what_stands_behind_tests_is_looked_at() {
        let declared = "#[cfg(test)]\nmod tests;\n\nuse std::fs;\nlet a = 1.0_f64;\n";
        assert_eq!(impure_lines("mod.rs", declared), ["mod.rs:4: `std::fs` in pure code"]);
        assert_eq!(
            unsteady_lines("mod.rs", "#[cfg(test)]\nmod tests;\nuse std::collections::HashMap;\n", false)
                .len(),
            1
        );
        let inline = "#[cfg(test)]\n#[allow(dead_code)]\npub(super) mod tests {\n    use std::fs;\n    mod inner {\n    }\n}\nuse std::fs;\n";
        assert_eq!(impure_lines("a.rs", inline), ["a.rs:8: `std::fs` in pure code"]);
    }

    #[test]
    fn modules_behind_a_feature_are_not_pure_ones() {
        let lib = "\
//! Docs about mod words.
pub mod session;
#[cfg(feature = \"net\")]
mod dispatch;
#[cfg(feature = \"net\")]
#[doc(hidden)]
/// Docs.
pub mod net {
}
#[doc(hidden)]
mod desired;
pub(crate) mod needs;
#[cfg(feature = \"collector\")]
pub mod collector;
#[cfg(test)]
mod tests;
";
        let pure: Vec<String> = pure_modules(lib).into_iter().collect();
        assert_eq!(pure, ["collector", "desired", "needs", "session"]);
    }

    #[test]
    fn a_file_past_the_limit_is_refused_unless_generated() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(too_long("a.rs", &long), Some("a.rs has 601 lines, 600 are the limit".to_owned()));
        assert_eq!(too_long("a.rs", &"x\n".repeat(LINES_MAX)), None);
        assert_eq!(too_long("a.rs", &format!("// @generated\n{long}")), None);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let home = HOMES[0];
        let text = format!("cd /{home}/someone/x\nsee https://example.com/{home}/page\n\"/{home}/b\"\n");
        let found = machine_paths("a.md", &text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a.md:1:") && found[1].starts_with("a.md:3:"));
    }

    #[test]
    fn a_library_that_can_be_broken_unseen_is_found() {
        let text = "//! cfg(opamp_faults)\nfn a() {}\n#[cfg(opamp_faults)]\nfn b() {}\nif seeded!(faults, LockLeak) {}\n";
        assert_eq!(stray_faults("a.rs", text), ["a.rs:3: `opamp_faults` outside of `seeded!`"]);
    }

    #[test]
    fn what_could_decide_differently_is_found() {
        let text = "//! HashMap\nuse std::collections::HashMap;\nlet a: f64 = 1.0_f64;\nlet hashed = HashSetting;\n#[cfg(test)]\nmod tests { use std::collections::HashSet; }\n";
        let strict = unsteady_lines("a.rs", text, false);
        assert_eq!(strict.len(), 2, "{strict:?}");
        assert!(strict[0].starts_with("a.rs:2: `HashMap`") && strict[1].starts_with("a.rs:3: `f64`"));
        assert_eq!(unsteady_lines("a.rs", text, true).len(), 1);
    }

    #[test]
    fn relative_links_are_found_and_others_are_not() {
        let text = "[a](docs/a.md#x) [b](https://example.com) [c](#anchor)\n```\n[d](d.md)\n```\n![e](e.png \"t\")\n";
        assert_eq!(relative_links(text), ["docs/a.md", "e.png"]);
    }
}
