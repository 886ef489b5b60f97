//! Connections to the broker. None of them mends itself: one that failed is dropped and another is made, so that what was
//! said on it is either answered or known to be unanswered.

use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::tcp::{AMQPUriTcpExt as _, AsyncTcpStream, TLSConfig};
use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Error, PublisherConfirm, runtime};
use parking_lot::Mutex;

/// AMQP's number for a message that is written to disk.
const PERSISTENT: u8 = 2;
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long a broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a broker may take to say goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// A broker that is silent for about twice as long is gone. In seconds; the URL may say something else.
const HEARTBEAT_SECONDS: u16 = 10;

/// One connection to the broker. Dropping it cuts it off, whatever state it is in.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    cut: Cut,
}

/// Cuts a connection off: what was not written by then never leaves.
#[derive(Clone, Default)]
struct Cut {
    socket: Arc<Mutex<Option<std::net::TcpStream>>>,
}

impl Cut {
    fn now(&self) {
        if let Some(socket) = self.socket.lock().take() {
            // It fails where there is nothing left to cut.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Reads the broker's URL: what is wrong with it, or what to connect to.
pub(crate) fn parse(url: &str) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.parse()?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(uri)
}

/// Host, port and virtual host, for people: no password is shown.
pub(crate) fn shown(uri: &AMQPUri) -> String {
    format!("{}:{}/{}", uri.authority.host, uri.authority.port, uri.vhost.trim_start_matches('/'))
}

impl Link {
    /// Connects; `name` is what the broker's own tools show.
    ///
    /// # Errors
    /// It cannot be reached in two seconds, or refuses.
    pub(crate) async fn connect(uri: &AMQPUri, name: &str) -> lapin::Result<Self> {
        let cut = Cut::default();
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Arc::clone(&cut.socket);
        let connecting = Connection::connector(
            uri.clone(),
            runtime::default_runtime()?,
            async move |uri, runtime| {
                let stream = uri.connect_with_config_async(TLSConfig::default(), &runtime).await?;
                if let AsyncTcpStream::Plain(stream) = &stream {
                    // A second handle of the same socket.
                    let handle = stream.get_ref().as_fd().try_clone_to_owned()?;
                    *socket.lock() = Some(handle.into());
                }
                Ok(stream)
            },
            properties,
        );
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(connection)) => Ok(Self { connection, cut }),
            Ok(Err(error)) => {
                cut.now();
                Err(error)
            }
            Err(_) => {
                cut.now();
                Err(Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))
            }
        }
    }

    /// Says goodbye, if the broker listens.
    pub(crate) async fn close(&self) {
        let goodbye = self.connection.close(200, "closing".into());
        // It is cut off in any case, once it is dropped.
        let _ = tokio::time::timeout(CLOSE_MAX, goodbye).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut.now();
    }
}

/// A channel on which the broker answers every message. Without asking for it each would count as confirmed.
pub(crate) async fn confirming_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Puts a message on disk before it is confirmed, and has it come back if there is no queue for it.
pub(crate) async fn publish(
    channel: &Channel,
    exchange: ShortString,
    key: ShortString,
    message: &[u8],
) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    channel.basic_publish(exchange, key, options, message, properties).await
}

/// Waits for an answer of the broker's. One that says nothing for five seconds has failed; what is asked of a connection
/// that ends meanwhile may never be answered at all.
pub(crate) async fn within<T>(asked: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    match tokio::time::timeout(ANSWER_MAX, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_its_password_is_not_shown() {
        let uri = parse("amqp://shop:secret@10.0.0.1:5673/%2f").unwrap();
        assert_eq!(shown(&uri), "10.0.0.1:5673/");
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT_SECONDS));
        assert_eq!(parse("amqp://localhost/?heartbeat=3").unwrap().query.heartbeat, Some(3));
        assert!(parse("http://localhost").is_err());
    }
}
