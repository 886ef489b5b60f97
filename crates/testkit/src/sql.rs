//! A blocking PostgreSQL client of one connection: text in, text out, and independent of the one under test.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PROTOCOL_3_0: i32 = 196_608;
/// More than any answer a test asks for.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqlError {
    /// No session, so nothing was sent.
    #[error("cannot connect to PostgreSQL at {address}")]
    NotSent {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The statement, or a part of it, left, and no whole answer came: it may have happened.
    #[error("no whole answer from PostgreSQL to `{statement}`")]
    Unknown {
        /// The statement.
        statement: String,
        /// Why.
        source: io::Error,
    },
    /// PostgreSQL answered with an error.
    #[error("PostgreSQL refused `{statement}`: {code} {message}")]
    Refused {
        /// The statement; empty for the connection itself.
        statement: String,
        /// The SQLSTATE, five characters.
        code: String,
        /// PostgreSQL's words.
        message: String,
    },
}

/// The rows of an answer: for each row its columns as text, `None` for NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// One session as the user `postgres`. After a failure to read or write it is closed, and later statements fail too.
#[derive(Debug)]
pub struct SqlSession {
    stream: Option<BufReader<TcpStream>>,
    backend_pid: i32,
}

/// What ended an exchange before its time.
enum Broken {
    Io(io::Error),
    Refused { code: String, message: String },
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Io(error)
    }
}

impl SqlSession {
    /// Connects to `database`. Gives up this, and every read and write, after `timeout`.
    ///
    /// # Errors
    /// No connection, or PostgreSQL refuses it, for example because it is starting up.
    pub fn connect(address: SocketAddr, database: &str, timeout: Duration) -> Result<SqlSession, SqlError> {
        let connect = || -> io::Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| SqlError::NotSent { address, source })?;
        let mut session = SqlSession { stream: Some(BufReader::new(stream)), backend_pid: 0 };
        let started = session.send(&startup(database)).map_err(Broken::Io).and_then(|()| session.answer());
        match started {
            Ok(_) => Ok(session),
            Err(Broken::Io(source)) => Err(SqlError::NotSent { address, source }),
            Err(Broken::Refused { code, message }) => {
                Err(SqlError::Refused { statement: String::new(), code, message })
            }
        }
    }

    /// Runs one or more statements, separated by semicolons, and gives the rows of all of them.
    ///
    /// # Errors
    /// PostgreSQL refuses one of them, or there is no answer.
    pub fn query(&mut self, statement: &str) -> Result<Rows, SqlError> {
        let request = message(b'Q', &[statement.as_bytes(), b"\0"].concat());
        match self.send(&request).map_err(Broken::Io).and_then(|()| self.answer()) {
            Ok(rows) => Ok(rows),
            Err(Broken::Io(source)) => {
                self.stream = None;
                Err(SqlError::Unknown { statement: statement.to_owned(), source })
            }
            Err(Broken::Refused { code, message }) => {
                Err(SqlError::Refused { statement: statement.to_owned(), code, message })
            }
        }
    }

    /// The first column of the first row.
    ///
    /// # Errors
    /// As [`SqlSession::query`].
    pub fn value(&mut self, statement: &str) -> Result<Option<String>, SqlError> {
        Ok(self.query(statement)?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// The process that serves this session.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?.get_mut().write_all(bytes)
    }

    /// Reads until PostgreSQL is ready for the next statement.
    fn answer(&mut self) -> Result<Rows, Broken> {
        let stream = self.stream.as_mut().ok_or(io::Error::from(io::ErrorKind::NotConnected))?;
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            let (kind, body) = match (read_message(stream), refused.take()) {
                // After a fatal error it closes the connection, and the error is the answer.
                (Err(_), Some(refused)) => return Err(refused),
                (read, earlier) => {
                    refused = earlier;
                    read?
                }
            };
            let mut fields = Fields { rest: &body };
            match kind {
                b'R' if fields.int()? != 0 => return Err(invalid("wants a password").into()),
                b'K' => self.backend_pid = fields.int()?,
                b'D' => rows.push(fields.row()?),
                b'E' => refused = Some(fields.error()),
                b'Z' => return refused.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }
}

impl Drop for SqlSession {
    fn drop(&mut self) {
        // Politely, so that its log does not speak of a client that vanished.
        self.send(&message(b'X', &[])).ok();
    }
}

fn startup(database: &str) -> Vec<u8> {
    let words = format!("user\0postgres\0database\0{database}\0application_name\0yoink-testkit\0\0");
    // The first message of all has no kind.
    message(0, &[&PROTOCOL_3_0.to_be_bytes(), words.as_bytes()].concat()).split_off(1)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn read_message(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut kind = [0];
    let mut length = [0; 4];
    stream.read_exact(&mut kind)?;
    stream.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).ok().and_then(|length| length.checked_sub(4));
    let length = length.filter(|length| *length <= MESSAGE_BYTES_MAX).ok_or_else(|| invalid("bad length"))?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let [kind] = kind;
    Ok((kind, body))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The rest of a message.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| invalid("message is too short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn int(&mut self) -> io::Result<i32> {
        let bytes = self.take(4)?.try_into().map_err(|_| invalid("message is too short"))?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn row(&mut self) -> io::Result<Vec<Option<String>>> {
        let columns = self.take(2)?.iter().fold(0, |number, byte| number * 256 + usize::from(*byte));
        (0..columns)
            .map(|_| match usize::try_from(self.int()?) {
                Ok(length) => Ok(Some(String::from_utf8_lossy(self.take(length)?).into_owned())),
                Err(_negative) => Ok(None),
            })
            .collect()
    }

    /// Fields of an error: a letter each, and text that ends with a zero.
    fn error(&self) -> Broken {
        let text = String::from_utf8_lossy(self.rest);
        let field =
            |letter| text.split('\0').find_map(|field| field.strip_prefix(letter)).unwrap_or_default();
        Broken::Refused { code: field('C').to_owned(), message: field('M').to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_with_its_nulls() {
        let body = [&[0, 2][..], &3_i32.to_be_bytes(), b"abc", &(-1_i32).to_be_bytes()].concat();
        let row = Fields { rest: &body }.row().unwrap();
        assert_eq!(row, [Some("abc".to_owned()), None]);
        assert!(Fields { rest: &body[..body.len() - 1] }.row().is_err());
    }
}
