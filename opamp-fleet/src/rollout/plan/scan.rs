//! What a configuration says line by line, whatever its format: what it sends to, and which keys give secrets a value.
//!
//! YAML with its flow style, JSON and properties are read alike: a line is cut into pieces at brackets and commas, and in a
//! piece a key is followed by `:` or `=` and its value. What follows a key without a value, in its line or in the next
//! ones, belongs to that key until another one comes. Strings are not told apart from what is around them.
//!
//! A destination is everything after `://`, and each value of a key that ends in one of [`DESTINATIONS`]. Others are not
//! found if they are written without `://`.

use std::borrow::Cow;

/// Ends of keys whose values are destinations.
const DESTINATIONS: [&str; 5] = ["endpoint", "endpoints", "brokers", "hosts", "servers"];

/// Schemes after which the host stands in the path.
const IN_PATH: [&str; 3] = ["dns", "passthrough", "xds"];

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// It sends to what begins like `user@host:port/path`.
    Destination(&'a str),
    /// The key of this name has a secret for its value, in plain text.
    Secret(&'a str),
}

/// Reads one file, line by line.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The key of a destination whose values may go on.
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Open {
    has_value: bool,
    /// Whether a bracket was opened after it.
    in_list: bool,
}

impl Scan {
    /// Reads the next line; it has been [`unescaped`].
    pub(super) fn line<'a>(&mut self, line: &'a str) -> Vec<Said<'a>> {
        let mut said = Vec::new();
        if line.trim_start().starts_with('#') {
            return said;
        }
        let is_item = line.trim_start().starts_with('-');
        self.open = self.open.filter(|open| !open.has_value || open.in_list || is_item);
        for (piece, end) in pieces(line) {
            self.piece(piece, &mut said);
            match (end, &mut self.open) {
                ('[', Some(open)) => open.in_list = true,
                (']' | '}', open) => *open = None,
                _ => {}
            }
        }
        said.extend(addresses(line).map(Said::Destination));
        said
    }

    fn piece<'a>(&mut self, piece: &'a str, said: &mut Vec<Said<'a>>) {
        let keys = keys(piece);
        let reference = piece.rfind("${");
        let secret = keys.iter().find(|(key, value, _)| {
            let is_filled_in = reference.is_some_and(|at| at + value.len() >= piece.len());
            !is_filled_in && is_secret(key, value)
        });
        said.extend(secret.map(|(key, ..)| Said::Secret(key)));
        let value = if let Some((_, value, _)) = keys.iter().find(|(key, ..)| is_destination(key)) {
            self.open = Some(Open::default());
            *value
        } else if keys.iter().any(|(.., is_key)| *is_key) {
            self.open = None;
            return;
        } else {
            piece
        };
        let (Some(open), value) = (&mut self.open, plain(value)) else { return };
        if !value.is_empty() {
            open.has_value = true;
            if is_host_like(value) {
                said.push(Said::Destination(value));
            }
        }
    }
}

/// The line with escaped characters in place of their escapes, as far as they can stand in a key or a destination.
pub(super) fn unescaped(line: &str) -> Cow<'_, str> {
    if !line.contains('\\') {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { break };
        let digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let number = rest.get(1..1 + digits).filter(|_| digits > 0);
        let number = number.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if let Some(char) = number.and_then(char::from_u32) {
            text.push(char);
            rest = &rest[1 + digits..];
        } else {
            if kind.is_ascii_alphanumeric() {
                text.push('\\');
            }
            text.push(kind);
            rest = &rest[kind.len_utf8()..];
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The pieces of a line between brackets and commas, each with what ends it.
fn pieces(line: &str) -> Vec<(&str, char)> {
    let mut pieces = Vec::new();
    let mut from = 0;
    for (at, char) in outside(line) {
        if matches!(char, '{' | '}' | '[' | ']' | ',') {
            pieces.push((&line[from..at], char));
            from = at + char.len_utf8();
        }
    }
    pieces.push((&line[from..], '\n'));
    pieces
}

/// What stands before each `:` and `=` of a piece, what comes after it, and whether that has to be a key with its value: a
/// host with its port is none.
fn keys(piece: &str) -> Vec<(&str, &str, bool)> {
    let signs = outside(piece).filter(|(_, char)| matches!(char, ':' | '='));
    let split = signs.map(|(at, sign)| (&piece[..at], &piece[at + 1..], sign));
    split
        .map(|(before, after, sign)| {
            let is_key = sign == '='
                || before.ends_with(['"', '\''])
                || after.chars().next().is_none_or(char::is_whitespace);
            (last_word(before), after, is_key)
        })
        .filter(|(key, ..)| !key.is_empty())
        .collect()
}

/// The characters of a text with their positions, without those of references such as `${env:NAME}`.
fn outside(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut skipped = 0;
    text.char_indices().filter(move |(at, char)| {
        if *at >= skipped && *char == '$' {
            skipped = *at + reference(&text[*at..]);
        }
        *at >= skipped
    })
}

/// How long the reference is that a text begins with; 0 if it begins with none.
fn reference(text: &str) -> usize {
    let Some(inner) = text.strip_prefix("${") else { return 0 };
    let end = inner.find(|char: char| char.is_whitespace() || "{}\"',".contains(char));
    end.filter(|end| inner[*end..].starts_with('}')).map_or(0, |end| "${".len() + end + 1)
}

/// The word that a text ends with, in quotes or not.
fn last_word(text: &str) -> &str {
    let text = text.trim_end_matches(is_around);
    let before = text.char_indices().rev().find(|(_, char)| !is_in_word(*char));
    &text[before.map_or(0, |(at, char)| at + char.len_utf8())..]
}

fn is_in_word(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '_' | '-' | '.')
}

/// What may stand around a key or a value.
fn is_around(char: char) -> bool {
    char.is_whitespace() || matches!(char, '"' | '\'')
}

/// A value without what stands around it: quotes, the sign of an item, a tag or an anchor; empty if it comes in the next
/// lines.
fn plain(value: &str) -> &str {
    let mut value = value.trim_matches(is_around);
    while let Some(rest) = value.strip_prefix('-') {
        value = rest.trim_start_matches(is_around);
    }
    while value.starts_with(['&', '!']) {
        let end = value.find(char::is_whitespace).unwrap_or(value.len());
        value = value[end..].trim_start_matches(is_around);
    }
    if value.starts_with(['#', '|', '>']) { "" } else { value }
}

fn is_destination(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    DESTINATIONS.iter().any(|end| key.ends_with(end))
}

/// Whether a value names a host. Those with `://` in them are found by that.
fn is_host_like(value: &str) -> bool {
    const WORDS: [&str; 8] = ["true", "false", "yes", "no", "on", "off", "null", "~"];
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && !value.contains("://") && !WORDS.contains(&&*value.to_ascii_lowercase())
}

fn is_secret(key: &str, value: &str) -> bool {
    // Whether there is a value is seen in its first words: it may be as long as the file.
    const START: usize = 256;
    let value = value.trim_start_matches(is_around);
    let start = &value[..value.floor_char_boundary(START)];
    crate::secrets::is_secret(key) && !plain(start).is_empty()
}

/// What follows each `://`.
fn addresses(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").map(|(at, sign)| {
        let rest = &line[at + sign.len()..];
        let scheme = last_word(&line[..at]).to_ascii_lowercase();
        let path = rest.split_once('/').filter(|_| IN_PATH.contains(&&*scheme));
        path.map_or(rest, |(_, path)| path)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Vec<(bool, String)> {
        let mut scan = Scan::default();
        let mut all = Vec::new();
        for line in text.lines() {
            let line = unescaped(line);
            all.extend(scan.line(&line).into_iter().map(|said| match said {
                Said::Destination(value) => (true, value.to_owned()),
                Said::Secret(key) => (false, key.to_owned()),
            }));
        }
        all
    }

    fn destinations(text: &str) -> Vec<String> {
        said(text).into_iter().filter(|(is_destination, _)| *is_destination).map(|(_, value)| value).collect()
    }

    #[test]
    fn values_go_on_in_lists_and_in_the_next_lines_until_another_key_comes() {
        for text in [
            "brokers: a:1,b:2",
            "brokers: [a:1, 'b:2']",
            "x: { brokers: [a:1, b:2], retries: 5 }",
            "brokers:\n  - a:1\n  # a comment\n  - \"b:2\"\nother: c:3",
            "\"brokers\": [\n\"a:1\",\n\"b:2\"\n],\n\"other\": [\"c:3\"]",
            "brokers: &these\n- a:1\n- !!str b:2\n- other: c:3",
        ] {
            assert_eq!(destinations(text), ["a:1", "b:2"], "{text}");
        }
        assert_eq!(destinations("endpoint: >-\n  a:1\n  b:2"), ["a:1"]);
        assert_eq!(destinations("endpoint = a:1\n[output]\nname = b"), ["a:1"]);
    }

    #[test]
    fn what_is_no_host_is_no_destination() {
        for text in
            ["check_endpoints: true", "max_hosts: 12", "endpoint:", "servers: ~", "endpoint: { a: b }"]
        {
            assert!(destinations(text).is_empty(), "{text}: {:?}", destinations(text));
        }
    }

    #[test]
    fn a_host_may_stand_in_the_path() {
        assert_eq!(destinations("endpoint: dns:///a:1"), ["a:1"]);
        assert_eq!(destinations("endpoint: dns://localhost/a:1"), ["a:1"]);
        assert_eq!(destinations("url: unix:///run/a.sock"), ["/run/a.sock"]);
    }

    #[test]
    fn a_key_is_told_and_nothing_else() {
        assert_eq!(said("url: me:hunter2@x?token=hunter2"), [(false, "token".to_owned())]);
        assert_eq!(said("a: { password: hunter2, b: c }"), [(false, "password".to_owned())]);
        assert!(said("x: ${secret:token}, y: ${env:TOKEN:-}").is_empty());
        assert!(said("password: prefix-${env:PASSWORD}").is_empty());
        assert_eq!(said("url: ${env:URL}?token=hunter2"), [(false, "token".to_owned())]);
        assert_eq!(said(&format!("password:{}hunter2", " ".repeat(1_000))), [(false, "password".to_owned())]);
    }

    #[test]
    fn escapes_hide_nothing() {
        for (line, expected) in [
            (r"https:\/\/a", "https://a"),
            (r"https:\u002f\x2Fa", "https://a"),
            (r#"\"endpoint\""#, "\"endpoint\""),
            (r"C:\users \u00zz \", r"C:\users \u00zz "),
            ("ü\\ü", "üü"),
        ] {
            assert_eq!(unescaped(line), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "[a\\PC\n\\\\{}\\[\\],:='\"$ #&!|-]{0,120}") {
            let _ = said(&text);
        }

        #[test]
        fn however_deep_a_destination_is_it_is_found(
            around in prop::collection::vec(0usize..7, 0..9),
            end in prop::sample::select(vec!["endpoint: x.y:1", "\"endpoint\":\"x.y:1\"", "endpoint: [x.y:1]"]),
        ) {
            let mut text = format!("{{{end}}}");
            for how in around {
                text = match how {
                    0 => format!("{{a: {text}}}"),
                    1 => format!("[b, {text}]"),
                    2 => format!("{{\"c\":{text},\"d\":[1,2]}}"),
                    3 => format!("{{e: ${{env:F}}, g: {text}, h: 'i'}}"),
                    4 => format!("{{ hosts: [\n{text}\n] }}"),
                    5 => format!("{{j: {{k: l}}, m:\n  {text}}}"),
                    _ => format!("[{{n: \"o\"}},\n# p\n{text}]"),
                };
            }
            prop_assert_eq!(destinations(&text).iter().filter(|found| **found == "x.y:1").count(), 1, "{}", text);
        }
    }

    #[test]
    fn long_lines_are_read_in_one_go() {
        let parts = [
            "endpoint:",
            "${",
            "a,",
            "\"",
            "=",
            "{",
            "[",
            "\\",
            "://",
            "- ",
            "! ",
            "token=",
            "token=#",
            "token=&",
            "token=-",
            "token= ",
            "token=\"",
            "token:${",
        ];
        // Whoever reads the rest of the line for each part of it reads 10,000,000,000 characters here.
        for (part, end) in parts.iter().flat_map(|part| [(part, ""), (part, "${x}")]) {
            let line = format!("{}{end}", part.repeat(400_000 / part.len()));
            let line = unescaped(&line);
            let _ = Scan::default().line(&line);
        }
    }
}
