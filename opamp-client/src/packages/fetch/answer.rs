//! What an answer to a request for a file, or for the rest of it, means.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use opamp_proto::Wall;

use crate::failure::{Failure, peer_text};
use crate::retry;

/// What to do with an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The file from its beginning, or the rest of it; and its length, if that is known.
    Content { from: u64, total: Option<u64> },
    /// Everything is there already.
    Complete,
    /// What is there does not belong to what the server has: begin anew.
    Anew,
    /// Look there.
    Redirect(String),
    /// Come back later, after so long if the server says so.
    Later(String, Option<Duration>),
    /// It will not work.
    Never(String),
}

/// What is known of the file whose start is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The strong validator the server gave for it (RFC 9110 §8.8.3).
    pub(super) etag: Option<String>,
    pub(super) total: Option<u64>,
}

impl Known {
    /// What an answer says of its file. Weak validators are none: the bytes may differ.
    pub(super) fn of(headers: &HeaderMap, total: Option<u64>) -> Self {
        let etag = headers.get(header::ETAG).and_then(|value| value.to_str().ok());
        // What is longer than this is no use of a validator.
        let strong = etag.filter(|etag| etag.starts_with('"') && etag.len() <= 256);
        Self { etag: strong.map(str::to_owned), total }
    }

    pub(super) fn to_file(&self) -> String {
        let total = self.total.map_or_else(String::new, |total| total.to_string());
        format!("opamp-download 1\n{total}\n{}\n", self.etag.as_deref().unwrap_or_default())
    }

    /// What was noted; nothing if that was not written to its end.
    pub(super) fn from_file(text: &str) -> Self {
        let mut lines = text.strip_suffix('\n').unwrap_or_default().split('\n');
        match [lines.next(), lines.next(), lines.next()] {
            [Some("opamp-download 1"), Some(total), Some(etag)] => {
                Self { etag: (!etag.is_empty()).then(|| etag.to_owned()), total: total.parse().ok() }
            }
            _ => Self::default(),
        }
    }
}

/// Reads an answer to a request for what follows the first `have` bytes of a file.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, have: u64, known: &Known, now: Wall) -> Answer {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let coding = text(header::CONTENT_ENCODING).unwrap_or("identity").trim().to_ascii_lowercase();
    if status.is_success() && coding != "identity" && !coding.is_empty() {
        return Answer::Never(format!("the server coded the file as {:?}, unasked", peer_text(&coding)));
    }
    match status.as_u16() {
        200 => {
            let total = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            Answer::Content { from: 0, total }
        }
        206 => {
            let range = text(header::CONTENT_RANGE).and_then(content_range);
            let now = Known::of(headers, range.and_then(|(_, total)| total));
            let other = |old: bool| {
                if old {
                    Answer::Anew
                } else {
                    Answer::Never("the server sends a part that was not asked for".to_owned())
                }
            };
            match range {
                Some((Some(from), total)) if from == have && !differs(known, &now) => {
                    Answer::Content { from, total }
                }
                _ => other(have > 0),
            }
        }
        301 | 302 | 303 | 307 | 308 => match text(header::LOCATION) {
            Some(location) => Answer::Redirect(location.to_owned()),
            None => Answer::Never(format!("the server answered {} without a location", status.as_u16())),
        },
        416 if have > 0 => match text(header::CONTENT_RANGE).and_then(content_range) {
            Some((None, Some(total))) if total == have => Answer::Complete,
            _ => Answer::Anew,
        },
        408 | 425 | 429 | 500.. => {
            let after = text(header::RETRY_AFTER).and_then(|value| retry::retry_after(value, now));
            Answer::Later(said(status), after)
        }
        _ => Answer::Never(said(status)),
    }
}

/// Whether what the server has now is another file than the one whose start is there.
fn differs(known: &Known, now: &Known) -> bool {
    let differ = |one: Option<&str>, other: Option<&str>| one.is_some() && other.is_some() && one != other;
    differ(known.etag.as_deref(), now.etag.as_deref())
        || (known.total.is_some() && now.total.is_some() && known.total != now.total)
}

/// Start (if there is one) and length (if it is known) in a `Content-Range` (RFC 9110 §14.4).
fn content_range(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    if range == "*" {
        return Some((None, total));
    }
    let (from, to) = range.split_once('-')?;
    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to && total.is_none_or(|total| to < total)).then_some((Some(from), total))
}

fn said(status: StatusCode) -> String {
    let failure = Failure::from_status(status.as_u16(), None);
    let hint = match status.as_u16() {
        401 | 403 => "check the headers the offer comes with",
        404 | 410 => "check the address in the offer",
        500.. => "look into the log of the download server",
        _ => "check what answers at the address in the offer",
    };
    format!("{} ({hint})", failure.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], have: u64, known: &Known) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        read(StatusCode::from_u16(status).unwrap(), &headers, have, known, Wall(0))
    }

    fn known() -> Known {
        Known { etag: Some("\"a\"".into()), total: Some(100) }
    }

    #[test]
    fn the_rest_is_taken_only_if_it_is_the_rest_of_the_same_file() {
        let part =
            |range: &str, etag: &str| answer(206, &[("content-range", range), ("etag", etag)], 40, &known());
        assert_eq!(part("bytes 40-99/100", "\"a\""), Answer::Content { from: 40, total: Some(100) });
        assert_eq!(part("bytes 40-99/*", "\"a\""), Answer::Content { from: 40, total: None });
        for (range, etag) in [
            ("bytes 40-99/100", "\"b\""),
            ("bytes 40-119/120", "\"a\""),
            ("bytes 39-99/100", "\"a\""),
            ("bytes 0-99/100", "\"a\""),
            ("bytes 99-40/100", "\"a\""),
            ("bytes 40-100/100", "\"a\""),
            ("lines 40-99/100", "\"a\""),
            ("bytes */100", "\"a\""),
        ] {
            assert_eq!(part(range, etag), Answer::Anew, "{range} {etag}");
        }
        assert_eq!(answer(206, &[], 40, &known()), Answer::Anew, "several ranges, or none");
        assert!(
            matches!(answer(206, &[], 0, &Known::default()), Answer::Never(_)),
            "nobody asked for a part"
        );
    }

    #[test]
    fn a_server_that_ignores_ranges_begins_anew_by_itself() {
        let whole = answer(200, &[("content-length", "100")], 40, &known());
        assert_eq!(whole, Answer::Content { from: 0, total: Some(100) });
    }

    #[test]
    fn a_range_beyond_the_end_means_that_all_is_there_or_that_the_file_is_another() {
        assert_eq!(answer(416, &[("content-range", "bytes */40")], 40, &known()), Answer::Complete);
        assert_eq!(answer(416, &[("content-range", "bytes */30")], 40, &known()), Answer::Anew);
        assert_eq!(answer(416, &[], 40, &known()), Answer::Anew);
        assert!(matches!(answer(416, &[], 0, &Known::default()), Answer::Never(_)));
    }

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let busy = answer(503, &[("retry-after", "7")], 0, &Known::default());
        assert!(matches!(busy, Answer::Later(_, Some(after)) if after == Duration::from_secs(7)), "{busy:?}");
        for status in [408, 429, 500, 502] {
            assert!(matches!(answer(status, &[], 0, &Known::default()), Answer::Later(..)), "{status}");
        }
        for status in [204, 304, 400, 401, 403, 404, 410] {
            assert!(matches!(answer(status, &[], 0, &Known::default()), Answer::Never(_)), "{status}");
        }
        let coded = answer(200, &[("content-encoding", "gzip")], 0, &Known::default());
        assert!(matches!(coded, Answer::Never(_)));
    }

    #[test]
    fn what_was_noted_is_read_again_and_half_of_it_is_nothing() {
        for known in [known(), Known::default(), Known { total: Some(0), etag: None }] {
            assert_eq!(Known::from_file(&known.to_file()), known);
        }
        let whole = known().to_file();
        for cut in 0..whole.len() {
            assert_eq!(Known::from_file(&whole[..cut]), Known::default(), "{cut}");
        }
    }

    #[test]
    fn weak_validators_are_none() {
        let of = |etag: &str| {
            let headers = [(header::ETAG, etag.parse().unwrap())].into_iter().collect();
            Known::of(&headers, None).etag
        };
        assert_eq!(of("\"a\"").as_deref(), Some("\"a\""));
        assert_eq!(of("W/\"a\""), None);
        assert_eq!(of("a"), None);
    }
}
