//! A blocking HTTP client of one connection: enough for tests and drills, and honest about what it does not know.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::message::{Response, read_response, write_request};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection, so nothing was sent: the request has certainly not happened.
    #[error("cannot connect to {address}")]
    NotSent {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The request, or a part of it, left, and no whole answer came: it may have happened.
    #[error("no whole answer to {request}")]
    Unknown {
        /// Method and path.
        request: String,
        /// Why.
        source: io::Error,
    },
}

/// One keep-alive connection, opened when first needed and again after it broke.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    key: Option<String>,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of the server at `address`, without a key, with a time limit of 30 s per read or write.
    #[must_use]
    pub fn new(address: SocketAddr) -> Client {
        Client { address, key: None, timeout: Duration::from_secs(30), connection: None }
    }

    /// Sends `Authorization: Bearer key` with every request.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Client {
        self.key = Some(key.into());
        self
    }

    /// Gives up a connect, read or write after this long.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// `GET path`.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&mut self, path: &str) -> Result<Response, ClientError> {
        self.request("GET", path, &[], None)
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Response, ClientError> {
        self.request("POST", path, &[], Some(body))
    }

    /// `POST path` with a JSON body and an idempotency key.
    ///
    /// # Errors
    /// No answer.
    pub fn post_with_key(&mut self, path: &str, key: &str, body: &Value) -> Result<Response, ClientError> {
        self.request("POST", path, &[("idempotency-key", key)], Some(body))
    }

    /// Any request; `headers` come after the client's own.
    ///
    /// # Errors
    /// No answer. The connection is dropped, and the next request opens a new one.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Response, ClientError> {
        let bytes = body.map(|body| body.to_string().into_bytes());
        let host = self.address.to_string();
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let mut all = vec![("host", host.as_str())];
        all.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        all.extend(body.map(|_| ("content-type", "application/json")));
        all.extend_from_slice(headers);
        let mut connection = self.connect()?;
        let line = format!("{method} {path}");
        let answer = write_request(connection.get_mut(), &line, &all, bytes.as_deref())
            .and_then(|()| read_response(&mut connection, method));
        match answer {
            Ok(response) => {
                if !response.closes() {
                    self.connection = Some(connection);
                }
                Ok(response)
            }
            Err(source) => Err(ClientError::Unknown { request: line, source }),
        }
    }

    fn connect(&mut self) -> Result<BufReader<TcpStream>, ClientError> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let address = self.address;
        let open = || {
            let stream = TcpStream::connect_timeout(&address, self.timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.timeout))?;
            stream.set_write_timeout(Some(self.timeout))?;
            Ok(BufReader::new(stream))
        };
        open().map_err(|source| ClientError::NotSent { address, source })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers every request on one connection with its number, then closes.
    fn counting_server(requests: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            for number in 0..requests {
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let body = number.to_string();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                reader.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn two_requests_use_one_connection() {
        let mut client = Client::new(counting_server(2));
        assert_eq!(client.get("/").unwrap().text(), "0");
        assert_eq!(client.get("/").unwrap().text(), "1");
    }

    #[test]
    fn a_connection_that_ends_before_the_answer_leaves_the_outcome_unknown() {
        let mut client = Client::new(counting_server(0));
        assert!(matches!(client.get("/"), Err(ClientError::Unknown { .. })));
    }

    #[test]
    fn nobody_listening_means_that_nothing_was_sent() {
        let mut client = Client::new(crate::free_port().unwrap());
        assert!(matches!(client.get("/"), Err(ClientError::NotSent { .. })));
    }
}
