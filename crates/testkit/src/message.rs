//! The little of HTTP/1.1 that a test client needs: write a request, read an answer.

use std::io::{self, BufRead, Read, Write};

use serde_json::Value;

/// Nothing that the server answers in a test is larger.
const BODY_BYTES_MAX: usize = 256 << 20;
const LINE_BYTES_MAX: u64 = 64 << 10;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    /// As sent, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, written in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 shows as replacement characters.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, or `Value::Null` where it is not JSON, so that an assertion shows what is missing.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whether the server will close the connection after this answer.
    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Writes one request in one piece, so that a kill between two writes cannot cut it here.
pub(crate) fn write_request(
    stream: &mut impl Write,
    line: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> io::Result<()> {
    let mut message = format!("{line} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = body {
        message.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        message.extend_from_slice(body);
    } else {
        message.extend_from_slice(b"\r\n");
    }
    stream.write_all(&message)?;
    stream.flush()
}

/// Reads one answer.
pub(crate) fn read_response(stream: &mut impl BufRead, method: &str) -> io::Result<Response> {
    let mut status = read_status(stream)?;
    let mut headers = read_headers(stream)?;
    while (100..200).contains(&status) {
        status = read_status(stream)?;
        headers = read_headers(stream)?;
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(response);
    }
    response.body = if response.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        read_chunks(stream)?
    } else if let Some(length) = response.header("content-length") {
        let length = length.parse().map_err(|_| damaged("content-length is not a number"))?;
        read_exactly(stream, length)?
    } else {
        let mut body = Vec::new();
        stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut body)?;
        body
    };
    Ok(response)
}

fn read_status(stream: &mut impl BufRead) -> io::Result<u16> {
    let line = read_line(stream)?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    status.and_then(|status| status.parse().ok()).ok_or_else(|| damaged("no HTTP/1 status line"))
}

fn read_headers(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| damaged("a header has no colon"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the answer"));
    }
    if !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended inside the answer"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read_exactly(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        return Err(damaged("the body is larger than any answer of the server"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| damaged("a chunk has no size"))?;
        if size == 0 {
            while !read_line(stream)?.is_empty() {}
            return Ok(body);
        }
        if body.len().saturating_add(size) > BODY_BYTES_MAX {
            return Err(damaged("the body is larger than any answer of the server"));
        }
        body.extend(read_exactly(stream, size)?);
        read_line(stream)?;
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> io::Result<Response> {
        read_response(&mut text.as_bytes(), "GET")
    }

    #[test]
    fn an_answer_with_a_length_is_read_to_its_end_and_no_further() {
        let mut bytes = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nX: a\r\n\r\n{}HTTP".as_slice();
        let response = read_response(&mut bytes, "POST").unwrap();
        assert_eq!((response.status, response.text().as_str(), response.header("x")), (202, "{}", Some("a")));
        assert_eq!(bytes, b"HTTP");
    }

    #[test]
    fn chunks_are_joined() {
        let text =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(text).unwrap().text(), "abcde");
    }

    #[test]
    fn an_interim_answer_is_passed_over() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(parse(text).unwrap().status, 204);
    }

    #[test]
    fn an_answer_that_was_cut_is_an_error_and_never_a_short_answer() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde";
        for length in 0..whole.len() {
            let part = &whole[..length];
            assert!(parse(part).is_err(), "{part:?} was taken for a whole answer");
        }
        assert_eq!(parse(whole).unwrap().text(), "abcde");
    }
}
