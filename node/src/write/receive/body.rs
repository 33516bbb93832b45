//! Bodies: received under the memory budget and decompressed up to the size limit, never beyond.

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Code;

use super::failure::Failure;
use crate::write::admit::Ticket;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
    /// The zlib format, as HTTP has it.
    Deflate,
}

impl Encoding {
    pub(super) const ACCEPTED: &'static str = "gzip, zstd, deflate, identity";

    /// The encoding of a `Content-Encoding` or `grpc-encoding` header.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "zstd" => Some(Encoding::Zstd),
            "deflate" => Some(Encoding::Deflate),
            _ => None,
        }
    }
}

/// Largest window of a zstd frame, as a power of two: 8 MiB, what RFC 9659 lets a sender use.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The output of decompression grows in steps of at least this.
const STEP: usize = 32 << 10;

/// How long a refused body is read and thrown away.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Receives a whole body of at most `bytes_max` bytes.
pub(super) async fn receive(
    body: &mut Body,
    bytes_max: usize,
    ticket: &mut Ticket,
    body_timeout: Duration,
) -> Result<Bytes, Failure> {
    let deadline = Instant::now() + body_timeout;
    let mut whole = Whole::default();
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            let message = format!("the body did not arrive within {} s", body_timeout.as_secs_f64());
            Failure::receive(Code::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT, message)
        })?;
        let Some(frame) = frame else { return Ok(whole.into_bytes()) };
        let frame = frame.map_err(|error| {
            Failure::receive(Code::Cancelled, StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > bytes_max {
            ticket.check_message(whole.len() + data.len())?;
        }
        ticket.charge(data.len())?;
        whole.push(data);
    }
}

/// Reads on and throws away, within bounds: a client that is still sending would otherwise see a reset
/// connection instead of the answer.
pub(super) async fn drain(body: &mut Body, bytes_max: usize) {
    let drained = async {
        let mut left = bytes_max;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > left {
                return;
            }
            left -= length;
        }
    };
    // Running out of time is as good an end as any other.
    timeout(DRAIN_TIME, drained).await.ok();
}

/// Frames put together; a single one is not copied.
#[derive(Default)]
struct Whole {
    first: Bytes,
    joined: BytesMut,
}

impl Whole {
    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn push(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&data);
    }

    fn into_bytes(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

/// The uncompressed message. Stops with an error as soon as it is over the limit or the memory budget.
pub(super) fn decompress<'a>(
    encoding: Encoding,
    body: &'a [u8],
    ticket: &mut Ticket,
) -> Result<Cow<'a, [u8]>, Failure> {
    let message = match encoding {
        Encoding::Identity => {
            ticket.check_message(body.len())?;
            return Ok(Cow::Borrowed(body));
        }
        Encoding::Gzip => read_all(flate2::bufread::MultiGzDecoder::new(body), body.len(), ticket, "gzip")?,
        Encoding::Deflate => {
            read_all(flate2::bufread::ZlibDecoder::new(body), body.len(), ticket, "deflate")?
        }
        Encoding::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(body).map_err(|error| broken("zstd", &error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| broken("zstd", &error))?;
            read_all(decoder, body.len(), ticket, "zstd")?
        }
    };
    Ok(Cow::Owned(message))
}

fn broken(name: &str, error: &std::io::Error) -> Failure {
    Failure::invalid(format!("the body is not valid {name}: {error}"))
}

fn read_all(
    mut decoder: impl Read,
    compressed: usize,
    ticket: &mut Ticket,
    name: &str,
) -> Result<Vec<u8>, Failure> {
    let bytes_max = match oteld_env::mutant("bomb-not-limited") {
        true => usize::MAX - 1,
        false => ticket.message_bytes_max(),
    };
    let mut message = Vec::new();
    let mut filled = 0;
    loop {
        if filled == message.len() {
            ticket.check_message(filled)?;
            // One byte beyond the limit is room enough to see that there is more.
            let grow = filled.max(compressed.saturating_mul(2)).max(STEP).min(bytes_max + 1 - filled);
            ticket.charge(grow)?;
            message.resize(filled + grow, 0);
        }
        match decoder.read(&mut message[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(name, &error)),
        }
    }
    ticket.check_message(filled)?;
    message.truncate(filled);
    Ok(message)
}
