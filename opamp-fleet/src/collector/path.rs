//! Paths into a configuration, and whose values are secret.

use super::parse::Node;
use crate::secrets::is_hidden;

/// Longest value that is shown, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Longest path that is shown, in bytes.
const PATH_BYTES_MAX: usize = 512;

/// One step into a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Index(usize),
    Key(&'a str),
}

/// The way to a value, from the component or setting on.
#[derive(Clone, Debug, Default)]
pub(super) struct Path<'a>(Vec<Part<'a>>);

impl<'a> Path<'a> {
    pub(super) fn push(&mut self, part: Part<'a>) {
        self.0.push(part);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    /// Whether what stands there must not be shown.
    fn is_secret(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Key(key) if is_hidden(key)))
    }

    /// A value there, as it may be shown: in one line and not too long, without secrets. References to variables are
    /// shown: they name a secret and are none.
    pub(super) fn shown(&self, node: &Node) -> String {
        let text = match node {
            Node::Bool(value) => return value.to_string(),
            Node::Null => return "nothing".to_owned(),
            Node::List(items) => return counted(items.len(), "item"),
            Node::Map(entries) => return counted(entries.len(), "key"),
            Node::Number(text) | Node::Text(text) => text,
        };
        if !is_reference(text) && (self.is_secret() || has_credentials(text)) {
            return "(secret)".to_owned();
        }
        let mut chars = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut shown: String = chars.by_ref().take(SHOWN_CHARS_MAX).collect();
        if chars.next().is_some() {
            shown.push('…');
        }
        shown
    }

    /// The way as text, its first [`PATH_BYTES_MAX`] bytes.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (number, part) in self.0.iter().enumerate() {
            if text.len() > PATH_BYTES_MAX {
                break;
            }
            match part {
                Part::Index(index) => text.push_str(&format!("[{index}]")),
                Part::Key(key) => {
                    text.push_str(if number == 0 { "" } else { "." });
                    text.push_str(&key[..key.floor_char_boundary(PATH_BYTES_MAX)]);
                }
            }
        }
        if text.len() > PATH_BYTES_MAX {
            text.truncate(text.floor_char_boundary(PATH_BYTES_MAX));
            text.push('…');
        }
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Whether the text is nothing but references such as `${env:TOKEN}`, and says what is meant without saying it.
fn is_reference(text: &str) -> bool {
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    // A default after `:-` is a value.
    inner.is_some_and(|inner| !inner.contains(['{', '}']) && !inner.contains(":-"))
}

/// Whether the text is an address with a user's name or password in it.
fn has_credentials(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.contains('@')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keys: &[&str], text: &str) -> String {
        let mut path = Path::default();
        keys.iter().for_each(|key| path.push(Part::Key(key)));
        path.shown(&Node::Text(text.to_owned()))
    }

    #[test]
    fn a_path_is_written_as_people_write_it() {
        let mut path = Path::default();
        for part in [Part::Key("tls"), Part::Key("certs"), Part::Index(2), Part::Key("name")] {
            path.push(part);
        }
        assert_eq!(path.text(), "tls.certs[2].name");
        path.pop();
        assert_eq!(path.text(), "tls.certs[2]");
        let long = "ö".repeat(300);
        path.push(Part::Key(&long));
        assert!(path.text().starts_with("tls.certs[2].öö") && path.text().ends_with("ö…"));
        assert!(path.text().len() <= PATH_BYTES_MAX + '…'.len_utf8());
    }

    #[test]
    fn secrets_are_never_shown_whatever_their_name_is_written_like() {
        for key in [
            "password",
            "Passwd",
            "api_key",
            "api-key",
            "apiKey",
            "bearer_token",
            "client_secret",
            "Authorization",
            "headers",
            "key_pem",
            "connection_string",
            "encryption_key",
            "datasource",
            "privateKey",
            "licenseKey",
            "encryptionKey",
            "signingKey",
            "accountKey",
        ] {
            assert_eq!(shown(&[key], "hunter2"), "(secret)", "{key}");
            assert_eq!(shown(&[key, "deeper"], "hunter2"), "(secret)", "{key}");
        }
        assert_eq!(shown(&["endpoint"], "https://me:hunter2@example.com/v1"), "(secret)");
        assert_eq!(shown(&["password"], "${env:PASSWORD:-hunter2}"), "(secret)");
        assert_eq!(shown(&["password"], "${env:A}hunter2${env:B}"), "(secret)");
    }

    #[test]
    fn what_is_no_secret_is_shown_in_one_line_that_is_not_too_long() {
        assert_eq!(shown(&["password"], "${env:PASSWORD}"), "${env:PASSWORD}");
        assert_eq!(shown(&["endpoint"], "https://example.com/a@b"), "https://example.com/a@b");
        assert_eq!(shown(&["key_file"], "/etc/key.pem"), "/etc/key.pem");
        assert_eq!(shown(&["key"], "service.name"), "service.name");
        assert_eq!(shown(&["query"], "a\nb"), "a b");
        let long = shown(&["query"], &"é".repeat(200));
        assert_eq!(long.chars().count(), 121);
    }
}
