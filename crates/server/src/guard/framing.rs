//! Where requests begin and end, looked at before hyper reads them.
//!
//! hyper takes a line that ends with LF alone, merges equal `Content-Length`s and lets `Transfer-Encoding` win over
//! them. A proxy in front that reads such bytes otherwise sees other requests in them than we do, and somebody else's
//! request can be hidden there. So these heads are refused: a byte that no head may have is put in the place of the line's
//! end, and hyper answers 400 in its turn and closes the connection.

/// What no head may hold.
const POISON: u8 = 0;

/// Follows the bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct HeadWatch {
    place: Place,
    head: Head,
    /// A line whose end has not arrived yet. hyper gives up on a head that is too long, so it stays short.
    begun: Vec<u8>,
    complaint: Option<&'static str>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Head,
    Body {
        bytes_left: u64,
    },
    /// The connection ends after this request, whatever else is sent: see [`crate::edge::answer`].
    Last,
}

/// What is known of the head that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    has_request_line: bool,
    body: Option<BodyEnd>,
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug)]
enum BodyEnd {
    Length(u64),
    /// In chunks, or in a way that hyper refuses.
    Unknown,
}

impl HeadWatch {
    /// Looks at what has arrived, and spoils a head that could be read in two ways.
    pub(crate) fn look(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Last => return,
                Place::Body { bytes_left } => {
                    let count = usize::try_from(bytes_left).unwrap_or(usize::MAX).min(bytes.len());
                    self.place = place_in_body(bytes_left.saturating_sub(count as u64));
                    bytes.split_at_mut(count).1
                }
                Place::Head => {
                    let Some(line_bytes) = first_line(bytes) else {
                        self.begun.extend_from_slice(bytes);
                        return;
                    };
                    let (line, rest) = bytes.split_at_mut(line_bytes);
                    if let Err(complaint) = self.read_line(line) {
                        self.complaint = Some(complaint);
                        self.place = Place::Last;
                        if let Some(end) = line.last_mut() {
                            *end = POISON;
                        }
                        return;
                    }
                    rest
                }
            };
        }
    }

    /// What was wrong with the head that was spoilt.
    pub(crate) fn complaint(&self) -> Option<&'static str> {
        self.complaint
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if self.begun.is_empty() {
            return self.read_whole_line(line);
        }
        let mut whole = std::mem::take(&mut self.begun);
        whole.extend_from_slice(line);
        self.read_whole_line(&whole)
    }

    fn read_whole_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err("end every line of the head with CR LF");
        };
        if !self.head.has_request_line {
            // Empty lines before a request are skipped.
            self.head.has_request_line = !line.is_empty();
            return Ok(());
        }
        if line.is_empty() {
            self.place = match std::mem::take(&mut self.head).body {
                None => Place::Head,
                Some(BodyEnd::Length(bytes)) => place_in_body(bytes),
                Some(BodyEnd::Unknown) => Place::Last,
            };
            return Ok(());
        }
        let body = if let Some(value) = value_of(line, b"content-length:") {
            let bytes = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok());
            bytes.map_or(BodyEnd::Unknown, BodyEnd::Length)
        } else if value_of(line, b"transfer-encoding:").is_some() {
            BodyEnd::Unknown
        } else {
            return Ok(());
        };
        match self.head.body.replace(body) {
            None => Ok(()),
            Some(_) => Err("Content-Length or Transfer-Encoding: send one of them, once"),
        }
    }
}

fn place_in_body(bytes_left: u64) -> Place {
    match bytes_left {
        0 => Place::Head,
        bytes_left => Place::Body { bytes_left },
    }
}

/// How many bytes the first line has, its LF included.
fn first_line(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|end| end + 1)
}

fn value_of<'line>(line: &'line [u8], name: &[u8]) -> Option<&'line [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    // The last byte, which is the colon, tells most headers apart.
    (start.last() == name.last() && start.eq_ignore_ascii_case(name)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether these bytes pass, whole and in pieces of every size.
    #[track_caller]
    fn passes(bytes: &[u8]) -> bool {
        let pass = |piece_bytes: usize| {
            let mut watch = HeadWatch::default();
            let mut seen = bytes.to_vec();
            seen.chunks_mut(piece_bytes).for_each(|piece| watch.look(piece));
            assert_eq!(seen == bytes, watch.complaint().is_none());
            seen == bytes
        };
        let whole = pass(bytes.len());
        for piece_bytes in 1..bytes.len() {
            assert_eq!(pass(piece_bytes), whole, "in pieces of {piece_bytes}");
        }
        whole
    }

    #[test]
    fn what_can_be_read_in_one_way_only_passes_as_it_is() {
        assert!(passes(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(passes(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"));
        let body = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\n\n\n\n";
        assert!(passes(body), "a body may hold what it likes");
        assert!(passes(&[&body[..], body].concat()));
        assert!(passes(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_spoilt() {
        let first = b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\n\n\n\n\n";
        for head in [
            &b"GET / HTTP/1.1\nhost: x\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nhost: x\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\n\n",
            b"\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\ncontent-length: 4\r\nContent-Length: 4\r\n\r\nbody",
            b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\ntransfer-encoding: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert!(!passes(head), "{:?}", String::from_utf8_lossy(head));
            assert!(!passes(&[&first[..], head].concat()), "behind a first request");
        }
    }
}
