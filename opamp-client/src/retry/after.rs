//! What a server says about coming back: `Retry-After` of HTTP and `retry_info` of OpAMP.

use std::time::{Duration, UNIX_EPOCH};

use opamp_proto::Wall;

/// The wait that a `Retry-After` header asks for: a number of seconds, or a date in any of the three forms of HTTP
/// (RFC 9110 §10.2.3, §5.6.7). A date that has passed means no wait; `None` is for text that is neither.
#[must_use]
pub fn retry_after(value: &str, now: Wall) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is as good as for ever; the caller has a bound.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let ms = date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Some(Wall(u64::try_from(ms).unwrap_or(u64::MAX)).since(now))
}

/// The wait that `RetryInfo.retry_after_nanoseconds` asks for; 0 is the same as not set.
#[must_use]
pub fn retry_info(nanoseconds: u64) -> Option<Duration> {
    (nanoseconds != 0).then(|| Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const THEN: Wall = Wall(784_111_777_000);

    #[test]
    fn retry_after_is_read_as_seconds_and_as_date() {
        assert_eq!(retry_after("120", THEN), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(" 0 ", THEN), Some(Duration::ZERO));
        for date in
            ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"]
        {
            assert_eq!(retry_after(date, THEN), Some(Duration::from_secs(60)), "{date}");
        }
    }

    #[test]
    fn a_date_that_has_passed_means_no_wait() {
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:36 GMT", THEN), Some(Duration::ZERO));
    }

    #[test]
    fn other_text_means_nothing_and_absurd_numbers_do_not_overflow() {
        for text in ["", "soon", "-1", "1.5", "+3", "12 s", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(retry_after(text, THEN), None, "{text}");
        }
        assert!(retry_after("99999999999999999999999", THEN).is_some_and(|wait| wait.as_secs() > 1 << 30));
    }

    #[test]
    fn retry_info_counts_nanoseconds() {
        assert_eq!(retry_info(30_000_000_000), Some(Duration::from_secs(30)));
        assert_eq!(retry_info(0), None);
    }
}
