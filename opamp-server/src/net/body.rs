//! Request and response bodies: limits that hold after inflation, memory, compression, media types.

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::pin::Pin;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;

use super::admission::budget::{Budget, Charge};

/// A body that comes in one piece is not charged up to this size, for it is not kept across a wait.
const UNCHARGED_BYTES: usize = 64 << 10;
/// An answer is not charged up to this size: the socket takes it.
const UNCHARGED_ANSWER_BYTES: usize = 4 << 10;
/// What a body holds while it is inflated, beside what came out: window, tables, output buffer.
const INFLATE_BYTES: usize = 80 << 10;

/// The content type of both bodies.
pub(crate) const PROTOBUF: &str = "application/x-protobuf";

/// Why a request body could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Over the limit, before or after decompression.
    Oversize,
    /// A content coding other than gzip and identity.
    UnknownCoding(String),
    /// There is no room for it now.
    NoRoom,
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

/// A request body, and what it is charged for.
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    charge: Charge,
}

impl Body {
    /// Charges for it, because it is kept across a wait from now on; false if there is no room.
    pub(crate) fn keep(&mut self) -> bool {
        let lacking = self.bytes.capacity().saturating_sub(self.charge.bytes());
        lacking == 0 || self.charge.grow(lacking)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What agents say is nobody's to print.
        f.debug_struct("Body").field("len", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// Reads a whole request body of at most `limit` bytes, inflating as it arrives (R-HTTP-14, R-HTTP-21).
///
/// `budget` is charged for what has arrived and is not whole, as soon as it is waited for, and for what is large.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    limit: usize,
    budget: &Budget,
) -> Result<Body, BodyError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let coding = coding(headers)?;
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(BodyError::Oversize);
    }
    let limited = Limited::new(limit, budget).ok_or(BodyError::NoRoom)?;
    let mut body = std::pin::pin!(body);
    // What inflates it is made when there is something to inflate.
    let Some(first) = next(body.as_mut()).await? else { return Sink::new(coding, limited).finish() };
    let mut sink = Sink::new(coding, limited);
    sink.write_all(&first)?;
    drop(first);
    while !body.is_end_stream() {
        if !sink.keep() {
            return Err(BodyError::NoRoom);
        }
        let Some(data) = next(body.as_mut()).await? else { break };
        sink.write_all(&data)?;
    }
    sink.finish()
}

/// The next data of a body.
async fn next<B>(mut body: Pin<&mut B>) -> Result<Option<Bytes>, BodyError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|error| broken(&*error.into()))?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// Why no more of a body arrives. The TLS layer may have had no room for a record of it.
fn broken(error: &(dyn Error + 'static)) -> BodyError {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let no_room = causes.any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
    });
    if no_room { BodyError::NoRoom } else { BodyError::Broken }
}

/// An answer that is charged for until the peer has taken it; none if there is no room.
pub(crate) fn charged(answer: Bytes, budget: &Budget) -> Option<Bytes> {
    struct Charged {
        answer: Bytes,
        _charge: Charge,
    }
    impl AsRef<[u8]> for Charged {
        fn as_ref(&self) -> &[u8] {
            &self.answer
        }
    }
    if answer.len() <= UNCHARGED_ANSWER_BYTES {
        return Some(answer);
    }
    let charge = budget.try_charge(answer.len())?;
    Some(Bytes::from_owner(Charged { answer, _charge: charge }))
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

/// What came out, and why there is not more.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    charge: Charge,
    over: bool,
    no_room: bool,
}

impl Sink {
    fn new(coding: Coding, limited: Limited) -> Self {
        match coding {
            Coding::Identity => Self::Plain(limited),
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(limited))),
        }
    }

    fn write_all(&mut self, data: &[u8]) -> Result<(), BodyError> {
        // One inflation step is bounded: at most 64 KiB of input, about 64 MiB of output, cut at the limit.
        for chunk in data.chunks(64 << 10) {
            let result = match self {
                Self::Plain(limited) => limited.write_all(chunk),
                Self::Gzip(decoder) => decoder.write_all(chunk),
            };
            self.checked(result)?;
        }
        Ok(())
    }

    /// Charges for all that is held, because it is going to be waited for; false if there is no room.
    fn keep(&mut self) -> bool {
        match self {
            Self::Plain(limited) => limited.charge_to(limited.bytes.capacity()),
            Self::Gzip(decoder) => {
                let limited = decoder.get_mut();
                limited.charge_to(limited.bytes.capacity() + INFLATE_BYTES)
            }
        }
    }

    fn finish(mut self) -> Result<Body, BodyError> {
        let result = match &mut self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
        };
        self.checked(result)?;
        Ok(match &mut self {
            Self::Plain(limited) => limited.take_body(),
            Self::Gzip(decoder) => decoder.get_mut().take_body(),
        })
    }

    fn checked(&self, result: std::io::Result<()>) -> Result<(), BodyError> {
        let limited = match self {
            Self::Plain(limited) => limited,
            Self::Gzip(decoder) => decoder.get_ref(),
        };
        match (result, self) {
            _ if limited.over => Err(BodyError::Oversize),
            _ if limited.no_room => Err(BodyError::NoRoom),
            (Ok(()), _) => Ok(()),
            (Err(_), Self::Gzip(_)) => Err(BodyError::NotGzip),
            (Err(_), Self::Plain(_)) => Err(BodyError::Broken),
        }
    }
}

impl Limited {
    fn new(limit: usize, budget: &Budget) -> Option<Self> {
        let charge = budget.try_charge(0)?;
        Some(Self { bytes: Vec::new(), limit, charge, over: false, no_room: false })
    }

    /// Makes room for more, charging for it if it is much. Capacity, not length, is what is held.
    fn make_room(&mut self, more: usize) -> bool {
        let len = self.bytes.len() + more;
        if len <= self.bytes.capacity() {
            return true;
        }
        let capacity = len.max(self.bytes.capacity() * 2).min(self.limit);
        if capacity > UNCHARGED_BYTES && !self.charge_to(capacity) {
            return false;
        }
        self.bytes.reserve_exact(capacity - self.bytes.len());
        true
    }

    fn charge_to(&mut self, bytes: usize) -> bool {
        let lacking = bytes.saturating_sub(self.charge.bytes());
        lacking == 0 || self.charge.grow(lacking)
    }

    fn take_body(&mut self) -> Body {
        let (bytes, mut charge) = (std::mem::take(&mut self.bytes), self.charge.take());
        // What inflated it goes with the sink.
        charge.shrink(charge.bytes().saturating_sub(bytes.capacity()));
        Body { bytes, charge }
    }
}

impl std::io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if data.len() > self.limit - self.bytes.len() {
            self.over = true;
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        // Once is enough, also for the counter: inflating tries again when it is given up.
        if self.no_room || !self.make_room(data.len()) {
            self.no_room = true;
            return Err(std::io::ErrorKind::OutOfMemory.into());
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

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn read_now(headers: &HeaderMap, body: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
        let (body, budget) = (Full::new(Bytes::copy_from_slice(body)), Budget::new(usize::MAX));
        let read = run(read(headers, body, limit, &budget)).map(|body| body.bytes);
        assert_eq!(budget.current(), 0, "nothing is charged for what is gone");
        read
    }

    /// A body whose pieces come one by one, and what the budget is charged while the next one is waited for.
    struct Pieces {
        pieces: std::vec::IntoIter<Vec<u8>>,
        budget: Budget,
        charged: Vec<usize>,
    }

    impl http_body::Body for &mut Pieces {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            let charged = self.budget.current();
            self.charged.push(charged);
            let piece = self.pieces.next();
            std::task::Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece.into()))))
        }

        fn is_end_stream(&self) -> bool {
            self.pieces.len() == 0
        }
    }

    /// What was charged before each piece, and what came of it.
    fn in_pieces(
        coding: Option<&str>,
        pieces: Vec<Vec<u8>>,
        max: usize,
    ) -> (Vec<usize>, Result<Body, BodyError>, Budget) {
        let headers = coding.map(|coding| headers(&[(header::CONTENT_ENCODING, coding)])).unwrap_or_default();
        let budget = Budget::new(max);
        let mut pieces = Pieces { pieces: pieces.into_iter(), budget: budget.clone(), charged: Vec::new() };
        let read = run(read(&headers, &mut pieces, 64 << 20, &budget));
        (pieces.charged, read, budget)
    }

    #[test]
    fn what_has_arrived_is_charged_while_the_rest_is_waited_for() {
        let (charged, body, budget) = in_pieces(None, vec![vec![1; 100], vec![2; 100], vec![3; 100]], 1_000);
        assert_eq!(charged, [0, 100, 200]);
        let body = body.unwrap();
        assert_eq!((body.bytes.len(), body.bytes[299]), (300, 3));
        assert_eq!(budget.current(), 200, "what came last was not waited with");
        drop(body);
        assert_eq!((budget.current(), budget.denied()), (0, 0));
    }

    #[test]
    fn what_there_is_no_room_for_is_refused_and_nothing_of_it_is_kept() {
        let (_, body, budget) = in_pieces(None, vec![vec![1; 600], vec![2; 600], vec![3; 1]], 1_000);
        assert_eq!(body.unwrap_err(), BodyError::NoRoom);
        assert_eq!((budget.current(), budget.peak(), budget.denied()), (0, 600, 1));
        let large = gzip(&vec![0; 10 << 20]).to_vec();
        let (_, body, budget) = in_pieces(Some("gzip"), vec![large], 1 << 20);
        assert_eq!(body.unwrap_err(), BodyError::NoRoom, "what it inflates to counts");
        assert!((budget.current(), budget.denied()) == (0, 1) && budget.peak() <= 1 << 20);
    }

    #[test]
    fn a_small_body_that_comes_at_once_is_read_however_full_the_budget_is() {
        let (_, body, budget) = in_pieces(None, vec![vec![1; 60 << 10]], 0);
        let mut body = body.unwrap();
        assert!(!body.keep(), "but it is not kept across a wait");
        assert_eq!((body.bytes.len(), budget.denied()), (60 << 10, 1));
        assert!(in_pieces(None, vec![vec![1; 1]], 0).1.is_ok());
        assert_eq!(in_pieces(None, vec![vec![1; 65 << 10]], 0).1.unwrap_err(), BodyError::NoRoom);
    }

    #[test]
    fn inflating_is_charged_for_what_it_takes_and_only_while_it_lasts() {
        let zipped = gzip(&[7; 5_000]).to_vec();
        let (first, second) = zipped.split_at(zipped.len() / 2);
        let (charged, body, budget) = in_pieces(Some("gzip"), vec![first.to_vec(), second.to_vec()], 1 << 20);
        assert!(charged[1] >= INFLATE_BYTES, "{charged:?}");
        let body = body.unwrap();
        assert_eq!(body.bytes, [7; 5_000]);
        assert!(budget.current() <= body.bytes.capacity());
    }

    #[test]
    fn a_body_that_the_layer_below_had_no_room_for_is_told_from_one_that_broke() {
        /// As HTTP stacks wrap what went wrong below.
        #[derive(Debug)]
        struct Wrapped(io::Error);
        impl fmt::Display for Wrapped {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the body could not be read")
            }
        }
        impl Error for Wrapped {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let failing = |kind: io::ErrorKind| {
            let failed = futures::stream::iter([Err::<http_body::Frame<Bytes>, _>(Wrapped(kind.into()))]);
            let body = http_body_util::StreamBody::new(failed);
            run(read(&HeaderMap::new(), body, 100, &Budget::new(100))).unwrap_err()
        };
        assert_eq!(failing(io::ErrorKind::OutOfMemory), BodyError::NoRoom);
        assert_eq!(failing(io::ErrorKind::ConnectionReset), BodyError::Broken);
    }

    #[test]
    fn an_announced_length_costs_nothing() {
        let announced = headers(&[(header::CONTENT_LENGTH, "67108864")]);
        let budget = Budget::new(1_000);
        let mut pieces = Pieces {
            pieces: vec![vec![1; 10], vec![2; 10]].into_iter(),
            budget: budget.clone(),
            charged: Vec::new(),
        };
        let body = run(read(&announced, &mut pieces, 64 << 20, &budget)).unwrap();
        assert!(pieces.charged == [0, 10] && body.bytes.capacity() < 100);
    }

    #[test]
    fn a_large_answer_is_charged_for_until_it_is_taken() {
        let budget = Budget::new(10_000);
        let answer = charged(Bytes::from(vec![1; 8_000]), &budget).unwrap();
        let part = answer.slice(7_000..);
        drop(answer);
        assert_eq!((budget.current(), part.len()), (8_000, 1_000));
        assert!(charged(Bytes::from(vec![1; 8_000]), &budget).is_none());
        assert!(charged(Bytes::from(vec![1; 4_096]), &budget).is_some());
        drop(part);
        assert_eq!(budget.current(), 0);
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
