//! A blocking Redis client of one connection: enough for tests and drills, and independent of the one under test.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// More than any answer a test asks for.
const LENGTH_MAX: i64 = 512 * 1024 * 1024;
/// Answers are nested no deeper than this.
const DEPTH_MAX: u32 = 16;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedisError {
    /// No connection, so nothing was sent: the command has certainly not happened.
    #[error("cannot connect to Redis at {address}")]
    NotSent {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The command, or a part of it, left, and no whole answer came: it may have happened.
    #[error("no whole answer from Redis to {command}")]
    Unknown {
        /// Its first word.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// Redis answered with an error.
    #[error("Redis refused {command}: {message}")]
    Refused {
        /// Its first word.
        command: String,
        /// Redis' words; the first of them is a code such as `ERR` or `MOVED`.
        message: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// There is nothing.
    Nil,
    /// A status, such as `OK`.
    Status(String),
    /// A number.
    Integer(i64),
    /// A string of any bytes.
    Bytes(Vec<u8>),
    /// Several answers.
    Array(Vec<Reply>),
    /// An error inside of an array, as `EXEC` gives it.
    Error(String),
}

impl Reply {
    /// The number, also if it came as text.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        match self {
            Reply::Integer(number) => Some(*number),
            _ => self.text()?.parse().ok(),
        }
    }

    /// The text of a status or of a string; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Status(text) => Some(text.clone()),
            Reply::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// The answers in an array; empty if it is none.
    #[must_use]
    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) => items,
            _ => &[],
        }
    }
}

/// One connection. After a failure it is closed, and every later command fails too.
#[derive(Debug)]
pub struct RedisClient {
    stream: Option<BufReader<TcpStream>>,
}

impl RedisClient {
    /// Connects. Gives up this, and every read and write, after `timeout`.
    ///
    /// # Errors
    /// [`RedisError::NotSent`].
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<RedisClient, RedisError> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| RedisError::NotSent { address, source })?;
        Ok(RedisClient { stream: Some(BufReader::new(stream)) })
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// Redis refuses, or there is no answer.
    pub fn command<P: AsRef<[u8]>>(&mut self, parts: &[P]) -> Result<Reply, RedisError> {
        let name = || String::from_utf8_lossy(parts.first().map_or(&[][..], AsRef::as_ref)).into_owned();
        match self.exchange(&encode(parts)) {
            Ok(Reply::Error(message)) => Err(RedisError::Refused { command: name(), message }),
            Ok(reply) => Ok(reply),
            Err(source) => {
                self.stream = None;
                Err(RedisError::Unknown { command: name(), source })
            }
        }
    }

    fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.get_mut().write_all(request)?;
        read_reply(stream, DEPTH_MAX)
    }
}

fn encode<P: AsRef<[u8]>>(parts: &[P]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", parts.len()).into_bytes();
    for part in parts.iter().map(AsRef::as_ref) {
        request.extend(format!("${}\r\n", part.len()).into_bytes());
        request.extend(part);
        request.extend(b"\r\n");
    }
    request
}

fn read_reply(stream: &mut impl BufRead, depth: u32) -> io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let Some(line) = line.strip_suffix("\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, format!("not an answer of Redis: {line:?}"));
    let (kind, rest) = line.split_at_checked(1).ok_or_else(invalid)?;
    let number = || rest.parse::<i64>().ok().filter(|number| *number <= LENGTH_MAX).ok_or_else(invalid);
    Ok(match kind {
        "+" => Reply::Status(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(rest.parse().map_err(|_| invalid())?),
        "$" => match usize::try_from(number()?) {
            Ok(length) => Reply::Bytes(read_bytes(stream, length)?),
            Err(_negative) => Reply::Nil,
        },
        "*" => match usize::try_from(number()?) {
            Ok(_) if depth == 0 => return Err(invalid()),
            Ok(length) => {
                Reply::Array((0..length).map(|_| read_reply(stream, depth - 1)).collect::<io::Result<_>>()?)
            }
            Err(_negative) => Reply::Nil,
        },
        _ => return Err(invalid()),
    })
}

fn read_bytes(stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_answer_is_read() {
        let mut bytes = &b"*6\r\n+OK\r\n:-3\r\n$4\r\na\r\nb\r\n$-1\r\n*-1\r\n-ERR no\r\n"[..];
        let all = vec![
            Reply::Status("OK".to_owned()),
            Reply::Integer(-3),
            Reply::Bytes(b"a\r\nb".to_vec()),
            Reply::Nil,
            Reply::Nil,
            Reply::Error("ERR no".to_owned()),
        ];
        assert_eq!(read_reply(&mut bytes, DEPTH_MAX).unwrap(), Reply::Array(all));
        assert!(bytes.is_empty());
    }

    #[test]
    fn an_answer_that_was_cut_is_no_answer() {
        let whole = b"*2\r\n$2\r\nab\r\n+OK\r\n";
        for length in 0..whole.len() {
            assert!(read_reply(&mut &whole[..length], DEPTH_MAX).is_err(), "{length}");
        }
    }

    #[test]
    fn a_command_is_written_with_its_lengths() {
        assert_eq!(encode(&["GET", "a b"]), b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n");
    }
}
