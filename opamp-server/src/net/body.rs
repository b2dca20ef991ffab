//! Request and response bodies: limits that hold after inflation, compression, media types.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;

/// The content type of both bodies.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";

/// Why a request body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Over the limit, before or after decompression.
    Oversize,
    /// A content coding other than gzip and identity.
    UnknownCoding(String),
    /// Not gzip although it says so.
    NotGzip,
    /// The peer went away, or broke HTTP.
    Broken,
}

/// The content coding of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Identity,
}

/// Reads a whole request body of at most `limit` bytes, inflating as it arrives (R-HTTP-14, R-HTTP-21).
pub(crate) async fn read<B>(headers: &HeaderMap, body: B, limit: usize) -> Result<Vec<u8>, BodyError>
where
    B: http_body::Body<Data = Bytes>,
{
    let coding = coding(headers)?;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(BodyError::Oversize);
    }
    let mut sink = Sink::new(coding, limit);
    let mut body = std::pin::pin!(body);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        if let Ok(data) = frame.into_data() {
            // One inflation step is bounded: at most 64 KiB of input, about 64 MiB of output, cut at the limit.
            for chunk in data.chunks(64 << 10) {
                sink.write(chunk)?;
            }
        }
    }
    sink.finish()
}

/// Whether `Content-Type` names the protobuf media type; parameters are fine (R-HTTP-10).
pub(crate) fn is_protobuf(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(PROTOBUF))
}

/// Whether `Accept-Encoding` allows gzip (R-HTTP-17).
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = None;
    for item in values.flat_map(|value| value.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|parameter| {
            parameter.strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
        });
        if is_gzip(name) {
            return !refused;
        }
        if name == "*" {
            any = Some(!refused);
        }
    }
    any.unwrap_or(false)
}

/// `data` as gzip.
pub(crate) fn gzip(data: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 2), Compression::fast());
    // Writing into a vector does not fail; should it, an empty body would be a lie, so the plain one goes out.
    match encoder.write_all(data).and_then(|()| encoder.finish()) {
        Ok(compressed) => compressed.into(),
        Err(_) => Bytes::copy_from_slice(data),
    }
}

/// The coding's name, and its old one (RFC 9110 §8.4.1.3).
fn is_gzip(name: &str) -> bool {
    name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip")
}

fn coding(headers: &HeaderMap) -> Result<Coding, BodyError> {
    let mut coding = Coding::Identity;
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| BodyError::UnknownCoding("?".to_owned()))?.trim();
        coding = match (value, coding) {
            (value, coding) if value.is_empty() || value.eq_ignore_ascii_case("identity") => coding,
            (value, Coding::Identity) if is_gzip(value) => Coding::Gzip,
            (value, _) => return Err(BodyError::UnknownCoding(value.chars().take(40).collect())),
        };
    }
    Ok(coding)
}

/// Collects a body up to a limit on what comes out.
enum Sink {
    Plain(Limited),
    Gzip(Box<MultiGzDecoder<Limited>>),
}

struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    over: bool,
}

impl Sink {
    fn new(coding: Coding, limit: usize) -> Self {
        let limited = Limited { bytes: Vec::new(), limit, over: false };
        match coding {
            Coding::Identity => Self::Plain(limited),
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(limited))),
        }
    }

    fn write(&mut self, data: &[u8]) -> Result<(), BodyError> {
        let (result, over) = match self {
            Self::Plain(limited) => (limited.write_all(data), limited.over),
            Self::Gzip(decoder) => (decoder.write_all(data), decoder.get_ref().over),
        };
        self.checked(result, over)
    }

    fn finish(self) -> Result<Vec<u8>, BodyError> {
        match self {
            Self::Plain(limited) => Ok(limited.bytes),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Ok(()) if !decoder.get_ref().over => Ok(std::mem::take(&mut decoder.get_mut().bytes)),
                _ if decoder.get_ref().over => Err(BodyError::Oversize),
                _ => Err(BodyError::NotGzip),
            },
        }
    }

    fn checked(&self, result: std::io::Result<()>, over: bool) -> Result<(), BodyError> {
        match (result, over, self) {
            (_, true, _) => Err(BodyError::Oversize),
            (Ok(()), ..) => Ok(()),
            (Err(_), _, Self::Gzip(_)) => Err(BodyError::NotGzip),
            (Err(_), _, Self::Plain(_)) => Err(BodyError::Broken),
        }
    }
}

impl std::io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if data.len() > self.limit - self.bytes.len() {
            self.over = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn read_now(headers: &HeaderMap, body: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
        let body = Full::new(Bytes::copy_from_slice(body));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(headers, body, limit))
    }

    #[test]
    fn the_limit_holds_before_and_after_inflation() {
        let plain = HeaderMap::new();
        assert_eq!(read_now(&plain, &[1; 10], 10), Ok(vec![1; 10]));
        assert_eq!(read_now(&plain, &[1; 11], 10), Err(BodyError::Oversize));
        let zipped = headers(&[(header::CONTENT_ENCODING, "gzip")]);
        assert_eq!(read_now(&zipped, &gzip(&[1; 1000]), 1000), Ok(vec![1; 1000]));
        assert_eq!(read_now(&zipped, &gzip(&[1; 1001]), 1000), Err(BodyError::Oversize));
        assert_eq!(read_now(&zipped, &gzip(&vec![0; 50 << 20]), 1000), Err(BodyError::Oversize));
        let lying = headers(&[(header::CONTENT_LENGTH, "99")]);
        assert_eq!(read_now(&lying, &[1; 3], 10), Err(BodyError::Oversize));
    }

    #[test]
    fn codings_are_honoured_or_named() {
        let zipped = headers(&[(header::CONTENT_ENCODING, "GZIP")]);
        assert_eq!(read_now(&zipped, b"not gzip at all", 100), Err(BodyError::NotGzip));
        let cut = gzip(&[7; 100]);
        assert_eq!(read_now(&zipped, &cut[..cut.len() - 1], 100), Err(BodyError::NotGzip));
        let brotli = headers(&[(header::CONTENT_ENCODING, "br")]);
        assert_eq!(read_now(&brotli, b"x", 100), Err(BodyError::UnknownCoding("br".into())));
    }

    #[test]
    fn media_types_take_parameters_and_any_case() {
        for value in ["application/x-protobuf", "Application/X-Protobuf; charset=utf-8"] {
            assert!(is_protobuf(&headers(&[(header::CONTENT_TYPE, value)])), "{value}");
        }
        for value in ["application/json", "application/x-protobufs", "text/application/x-protobuf"] {
            assert!(!is_protobuf(&headers(&[(header::CONTENT_TYPE, value)])), "{value}");
        }
    }

    #[test]
    fn gzip_is_used_only_where_it_is_accepted() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("*", true),
            ("*;q=0", false),
            ("identity", false),
            ("*;q=1, gzip;q=0", false),
        ] {
            assert_eq!(accepts_gzip(&headers(&[(header::ACCEPT_ENCODING, value)])), expected, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
