use std::collections::BTreeMap;

use super::*;
use crate::diff::{BodyDiff, DIFF_BYTES_MAX, DIFF_LINES_MAX, FileChange, FileDiff, diff};

fn file(body: impl Into<Bytes>, content_type: &str) -> pb::AgentConfigObject {
    pb::AgentConfigObject { body: body.into(), content_type: content_type.to_owned(), role: String::new() }
}

fn map<const N: usize>(files: [(&str, pb::AgentConfigObject); N]) -> pb::AgentConfigMap {
    pb::AgentConfigMap { config_map: files.map(|(name, file)| (name.to_owned(), file)).into_iter().collect() }
}

fn yaml(body: &'static str) -> pb::AgentConfigObject {
    file(body, "text/yaml")
}

#[test]
fn a_version_only_moves_forward_and_only_one_step() {
    use VersionState::{Archived, Draft, Published};
    for from in VersionState::ALL {
        for to in VersionState::ALL {
            let allowed = matches!((from, to), (Draft, Published) | (Published, Archived));
            assert_eq!(from.may_become(to), allowed, "{from} to {to}");
        }
    }
}

#[test]
fn the_empty_name_is_a_name_alone_and_among_others() {
    let limits = ConfigLimits::default();
    assert!(ConfigMap::new(map([("", yaml("a: 1"))]), &limits).is_ok());
    let two = ConfigMap::new(map([("", yaml("a: 1")), ("extra.yaml", yaml("b: 2"))]), &limits).unwrap();
    assert_eq!(two.map().config_map.len(), 2);
    assert_eq!(ConfigMap::new(pb::AgentConfigMap::default(), &limits), Err(ConfigError::Empty));
}

#[test]
fn bodies_and_content_types_come_back_as_they_were() {
    let body: &[u8] = b"\x00\xff\r\n\xc3";
    let files = map([("raw", file(body, "")), ("typed", file("x", "application/octet-stream; v=1"))]);
    let config = ConfigMap::new(files.clone(), &ConfigLimits::default()).unwrap();
    let again = ConfigMap::decode(config.encode()).unwrap();
    assert_eq!(again.map(), &files);
    assert_eq!(again.hash(), config.hash());
    assert_eq!(again.encode(), config.encode());
}

#[test]
fn the_hash_tells_configurations_apart_by_everything_in_them() {
    let hash = |files| ConfigMap::new(files, &ConfigLimits::default()).unwrap().hash().clone();
    let base = hash(map([("a", yaml("x"))]));
    assert_eq!(base, hash(map([("a", yaml("x"))])));
    let with_role = pb::AgentConfigObject { role: "main".to_owned(), ..yaml("x") };
    for other in [
        map([("b", yaml("x"))]),
        map([("a", yaml("y"))]),
        map([("a", file("x", "text/plain"))]),
        map([("a", with_role)]),
        map([("a", yaml("x")), ("b", yaml(""))]),
    ] {
        assert_ne!(base, hash(other));
    }
}

#[test]
fn everything_beyond_a_limit_is_refused_with_the_limit() {
    let limits = ConfigLimits {
        name_bytes_max: 8,
        files_max: 2,
        file_name_bytes_max: 4,
        attribute_bytes_max: 10,
        encoded_bytes_max: 100,
        comment_bytes_max: 5,
    };
    let refused = |files| ConfigMap::new(files, &limits).unwrap_err();
    assert!(matches!(
        refused(map([("a", yaml("")), ("b", yaml("")), ("c", yaml(""))])),
        ConfigError::TooManyFiles { count: 3, count_max: 2 }
    ));
    assert!(matches!(refused(map([("abcde", yaml(""))])), ConfigError::FileName { .. }));
    assert!(matches!(refused(map([("a\n", yaml(""))])), ConfigError::FileName { .. }));
    assert!(matches!(
        refused(map([("a", file("", "text/plain2"))])),
        ConfigError::FileAttribute { attribute: "content_type", .. }
    ));
    let role = pb::AgentConfigObject { role: "tab\t".to_owned(), ..yaml("") };
    assert!(matches!(refused(map([("a", role)])), ConfigError::FileAttribute { attribute: "role", .. }));
    assert!(matches!(
        refused(map([("a", file(vec![b'x'; 101], ""))])),
        ConfigError::TooLarge { bytes_max: 100, .. }
    ));
    assert!(matches!(limits.check_comment("abcdef"), Err(ConfigError::Comment { bytes: 6, bytes_max: 5 })));
    assert_eq!(limits.check_comment("abcde"), Ok(()));
    for name in ["edge", "0", "a.b_c-d"] {
        assert_eq!(limits.check_name(name), Ok(()), "{name}");
    }
    for name in ["", ".a", "-a", "a b", "a/b", "ä", "abcdefghi", ".."] {
        assert!(limits.check_name(name).is_err(), "{name}");
    }
}

#[test]
fn debug_output_never_shows_bodies() {
    let config = ConfigMap::new(map([("a", yaml("token: hunter2"))]), &ConfigLimits::default()).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && shown.contains("14"), "{shown}");
}

#[test]
fn a_diff_lists_what_changed_and_nothing_else() {
    let from = map([
        ("same", yaml("a: 1\n")),
        ("gone", yaml("x: 1\n")),
        ("body", yaml("one\ntwo\nthree\n")),
        ("type", file("b", "text/plain")),
        ("binary", file(b"\x00\x01".as_slice(), "")),
    ]);
    let to = map([
        ("same", yaml("a: 1\n")),
        ("", yaml("new: 1\n")),
        ("body", yaml("one\n2\nthree\n")),
        ("type", file("b", "text/yaml")),
        ("binary", file(b"\x00\x02\x03".as_slice(), "")),
    ]);
    let by_name: BTreeMap<String, FileDiff> =
        diff(&from, &to).into_iter().map(|d| (d.name.clone(), d)).collect();
    assert_eq!(by_name.keys().collect::<Vec<_>>(), ["", "binary", "body", "gone", "type"]);
    assert_eq!(by_name[""].change, FileChange::Added);
    assert_eq!(by_name[""].content_type, Some((String::new(), "text/yaml".to_owned())));
    assert_eq!(by_name["gone"].change, FileChange::Removed);
    assert_eq!(by_name["binary"].body, BodyDiff::Binary { before_bytes: 2, after_bytes: 3 });
    assert_eq!(by_name["type"].change, FileChange::Modified);
    assert_eq!(by_name["type"].body, BodyDiff::Unchanged);
    assert_eq!(by_name["type"].content_type, Some(("text/plain".to_owned(), "text/yaml".to_owned())));
    assert_eq!(
        by_name["body"].body,
        BodyDiff::Text {
            added: 1,
            removed: 1,
            unified: "@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n".to_owned()
        }
    );
}

#[test]
fn a_diff_of_huge_bodies_tells_the_sizes_only() {
    let large = "x\n".repeat(DIFF_LINES_MAX);
    let (from, to) = (map([("f", file(large.clone(), ""))]), map([("f", file("y\n", ""))]));
    let expected = BodyDiff::TooLarge { before_bytes: large.len(), after_bytes: 2 };
    assert_eq!(diff(&from, &to)[0].body, expected);
    let one_line = map([("f", file("z".repeat(DIFF_BYTES_MAX + 1), ""))]);
    assert!(matches!(diff(&from, &one_line)[0].body, BodyDiff::TooLarge { .. }));
}
