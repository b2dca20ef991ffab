//! Which part of a file a request asks for (RFC 9110 §14).

use http::{HeaderMap, HeaderValue, header};

/// Bytes `first..end` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) end: u64,
}

/// What to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it: nothing else was asked for, or nothing that this server has to understand.
    Whole,
    /// One part.
    Part(Span),
    /// A part that the file does not have.
    Unsatisfiable,
}

impl Span {
    /// A whole file.
    pub(super) fn whole(size: u64) -> Self {
        Span { first: 0, end: size }
    }

    /// How many bytes it has.
    pub(super) fn length(self) -> u64 {
        self.end - self.first
    }

    /// The `Content-Range` of this part of a file of `size` bytes.
    pub(super) fn content_range(self, size: u64) -> String {
        // A part has at least one byte.
        format!("bytes {}-{}/{size}", self.first, self.end - 1)
    }
}

/// Reads `Range` and `If-Range` of a GET for a file of `size` bytes whose content has this `etag`.
///
/// A range that is malformed, of another unit or of several parts is ignored, which RFC 9110 §14.2 allows and which costs a
/// greedy client more than this server. So is one whose `If-Range` names another content: the client gets the new file
/// as a whole instead of parts of two.
pub(super) fn select(headers: &HeaderMap, size: u64, etag: &HeaderValue) -> Selection {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Selection::Whole };
    if headers.get_all(header::IF_RANGE).iter().any(|condition| condition != etag) {
        return Selection::Whole;
    }
    let Some((first, last)) = range.to_str().ok().and_then(bounds) else { return Selection::Whole };
    let span = match (first, last) {
        (Some(first), Some(last)) if last < first => return Selection::Whole,
        (Some(first), last) => {
            Span { first, end: last.map_or(size, |last| last.saturating_add(1)).min(size) }
        }
        // The last so many bytes.
        (None, Some(length)) => Span { first: size.saturating_sub(length), end: size },
        (None, None) => return Selection::Whole,
    };
    if span.first < span.end { Selection::Part(span) } else { Selection::Unsatisfiable }
}

/// The numbers around the dash of a single byte range; none if it is no such thing.
fn bounds(value: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = value.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    Some((position(first)?, position(last)?))
}

/// A position that may be left out. One beyond what 64 bits hold is as far away as can be.
fn position(digits: &str) -> Option<Option<u64>> {
    if digits.is_empty() {
        return Some(None);
    }
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| Some(digits.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: HeaderValue = HeaderValue::from_static("\"abc\"");

    fn selected(size: u64, range: &str) -> Selection {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        select(&headers, size, &ETAG)
    }

    fn part(first: u64, end: u64) -> Selection {
        Selection::Part(Span { first, end })
    }

    #[test]
    fn a_single_range_selects_what_the_file_has_of_it() {
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=99-", part(99, 100)),
            ("bytes=0-", part(0, 100)),
            ("bytes=50-1000", part(50, 100)),
            ("bytes=-1", part(99, 100)),
            ("bytes=-1000", part(0, 100)),
            ("BYTES=5-5", part(5, 6)),
            ("bytes= 5-5 ", part(5, 6)),
            ("bytes=7-18446744073709551615", part(7, 100)),
            ("bytes=7-99999999999999999999999", part(7, 100)),
        ] {
            assert_eq!(selected(100, range), expected, "{range}");
        }
    }

    #[test]
    fn a_range_outside_of_the_file_cannot_be_satisfied() {
        for range in [
            "bytes=100-",
            "bytes=100-100",
            "bytes=-0",
            "bytes=18446744073709551615-",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(selected(100, range), Selection::Unsatisfiable, "{range}");
        }
        for range in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(selected(0, range), Selection::Unsatisfiable, "{range} of an empty file");
        }
    }

    #[test]
    fn what_is_no_single_byte_range_is_answered_with_the_whole_file() {
        for range in [
            "bytes=0-0,5-6",
            "bytes=5-4",
            "bytes=-",
            "bytes=",
            "bytes",
            "lines=0-1",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0x1-2",
            "bytes=1 -2",
        ] {
            assert_eq!(selected(100, range), Selection::Whole, "{range}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(select(&headers, 100, &ETAG), Selection::Whole);
        headers.append(header::RANGE, HeaderValue::from_static("bytes=0-0"));
        headers.append(header::RANGE, HeaderValue::from_static("bytes=5-6"));
        assert_eq!(select(&headers, 100, &ETAG), Selection::Whole, "two headers are two ranges");
    }

    #[test]
    fn a_range_of_another_content_is_answered_with_the_whole_file() {
        for (condition, expected) in [
            ("\"abc\"", part(3, 5)),
            ("\"abd\"", Selection::Whole),
            ("W/\"abc\"", Selection::Whole),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Selection::Whole),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_static("bytes=3-4"));
            headers.insert(header::IF_RANGE, condition.parse().unwrap());
            assert_eq!(select(&headers, 100, &ETAG), expected, "{condition}");
        }
    }

    #[test]
    fn a_part_says_where_it_belongs() {
        assert_eq!(Span { first: 3, end: 10 }.content_range(100), "bytes 3-9/100");
        assert_eq!((Span { first: 3, end: 10 }.length(), Span::whole(100).length()), (7, 100));
    }
}
