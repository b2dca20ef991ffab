//! Bodies of answers: limits that hold after inflation. And of requests: compression.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};

/// Inflated at a time. So much input gives about 64 MiB at most, which the limit cuts.
const STEP_BYTES: usize = 64 << 10;

/// Why an answer's body could not be read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The connection broke.
    Broken(hyper::Error),
    /// A content coding other than gzip and identity, or gzip that is none.
    Coding(String),
    /// Over the limit, before or after decompression.
    Oversize,
}

/// Reads a whole body of at most `limit` bytes, inflating as it arrives (R-HTTP-24).
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    limit: usize,
) -> Result<Vec<u8>, BodyError> {
    let mut sink = Sink::new(headers, limit)?;
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::Oversize);
    }
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            for chunk in data.chunks(STEP_BYTES) {
                sink.write(chunk)?;
            }
        }
    }
    sink.finish()
}

/// `data` as gzip; `None` if that does not make it smaller.
pub(crate) fn gzip(data: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 2), Compression::fast());
    let compressed = encoder.write_all(data).and_then(|()| encoder.finish()).ok()?;
    (compressed.len() < data.len()).then(|| compressed.into())
}

/// Collects a body up to a limit on what comes out.
enum Sink {
    Gzip(Box<MultiGzDecoder<Limited>>),
    Plain(Limited),
}

struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    over: bool,
}

impl Sink {
    fn new(headers: &HeaderMap, limit: usize) -> Result<Self, BodyError> {
        let limited = Limited { bytes: Vec::new(), limit, over: false };
        let coding = headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
        match coding.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Plain(limited)),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(limited)))),
            other => Err(BodyError::Coding(format!(
                "the content coding {:?} was not asked for",
                crate::failure::peer_text(other)
            ))),
        }
    }

    fn write(&mut self, data: &[u8]) -> Result<(), BodyError> {
        let (result, over) = match self {
            Self::Gzip(decoder) => (decoder.write_all(data), decoder.get_ref().over),
            Self::Plain(limited) => (limited.write_all(data), limited.over),
        };
        checked(result, over)
    }

    fn finish(self) -> Result<Vec<u8>, BodyError> {
        match self {
            Self::Plain(limited) => Ok(limited.bytes),
            Self::Gzip(mut decoder) => {
                let result = decoder.try_finish();
                let limited = decoder.get_mut();
                checked(result, limited.over)?;
                Ok(std::mem::take(&mut limited.bytes))
            }
        }
    }
}

impl io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.limit - self.bytes.len() {
            self.over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn checked(result: io::Result<()>, over: bool) -> Result<(), BodyError> {
    match result {
        _ if over => Err(BodyError::Oversize),
        Ok(()) => Ok(()),
        Err(error) => Err(BodyError::Coding(format!("the body is not the gzip it should be: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflated(data: &[u8], limit: usize) -> Result<usize, BodyError> {
        let headers = [(header::CONTENT_ENCODING, "gzip".parse().unwrap())].into_iter().collect();
        let mut sink = Sink::new(&headers, limit)?;
        for chunk in data.chunks(STEP_BYTES) {
            sink.write(chunk)?;
        }
        Ok(sink.finish()?.len())
    }

    #[test]
    fn the_limit_holds_after_inflation() {
        let bomb = gzip(&vec![0; 50 << 20]).unwrap();
        assert!(bomb.len() < 500_000);
        assert!(matches!(inflated(&bomb, 1_000), Err(BodyError::Oversize)));
        let exact = gzip(&[7; 1_000]).unwrap();
        assert_eq!(inflated(&exact, 1_000).unwrap(), 1_000);
        assert!(matches!(inflated(&exact, 999), Err(BodyError::Oversize)));
    }

    #[test]
    fn what_is_no_gzip_and_what_is_cut_is_refused() {
        assert!(matches!(inflated(b"plain", 1_000), Err(BodyError::Coding(_))));
        let whole = gzip(&[7; 1_000]).unwrap();
        assert!(matches!(inflated(&whole[..whole.len() - 1], 1_000), Err(BodyError::Coding(_))));
    }

    #[test]
    fn what_does_not_become_smaller_stays_plain() {
        assert!(gzip(b"short").is_none());
    }
}
