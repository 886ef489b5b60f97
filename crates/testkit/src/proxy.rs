//! A TCP proxy for one edge between two processes, which fails as it is told to.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::reserved_port::ReservedPort;

const CHUNK_BYTES: usize = 64 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the proxy does. All modes but [`Mode::Refuse`] hold for connections that are open already, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    Pass,
    /// New connections are refused, as if nobody listened. Open ones go on; [`Proxy::cut_all`] ends them.
    Refuse,
    /// Connections are accepted and stay open, and nothing arrives in either direction. What was sent arrives when
    /// another mode is set, unless the connection was cut.
    BlackHole,
    /// Each piece is held for so long, in either direction, before it passes.
    Delay(Duration),
    /// A request is lost: so many bytes from now on pass from clients to the server, counted over all connections, and
    /// then the connection that carried the last of them is cut. The client hears nothing any more, even if the
    /// request was whole. With 0, the cut happens when the next byte arrives. Happens once, then everything passes.
    CutRequestAfter(u64),
    /// An answer is lost: the same in the direction from the server to clients.
    CutReplyAfter(u64),
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// Bytes that passed from clients to the server.
    pub request_bytes: u64,
    /// Bytes that passed from the server to clients.
    pub reply_bytes: u64,
    /// Connections that were cut, at a chosen byte or by [`Proxy::cut_all`].
    pub cuts: u64,
}

/// A proxy on a loopback port of its own. Two threads for each connection. Dropped, it ends all connections.
#[derive(Debug)]
pub struct Proxy {
    acceptor: Mutex<Option<Acceptor>>,
    shared: Arc<Shared>,
    port: ReservedPort,
}

impl Proxy {
    /// Starts a proxy in front of `server`, which need not be there yet.
    ///
    /// # Errors
    /// The operating system has no port or thread left.
    pub fn start(server: SocketAddr) -> io::Result<Proxy> {
        let port = ReservedPort::new()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                mode: Mode::Pass,
                server,
                is_closing: false,
                counts: Counts::default(),
                connections: HashMap::new(),
            }),
            changed: Condvar::new(),
        });
        let acceptor = Acceptor::start(port.address(), Arc::clone(&shared))?;
        Ok(Proxy { acceptor: Mutex::new(Some(acceptor)), shared, port })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of [`Proxy::address`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// Sets the mode, from the next byte on.
    ///
    /// # Errors
    /// After [`Mode::Refuse`], the operating system does not let it listen again.
    pub fn set(&self, mode: Mode) -> io::Result<()> {
        let mut acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner);
        if mode == Mode::Refuse {
            *acceptor = None;
        } else if acceptor.is_none() {
            *acceptor = Some(Acceptor::start(self.address(), Arc::clone(&self.shared))?);
        }
        self.shared.state().mode = mode;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// The mode. After a cut it is [`Mode::Pass`]; before, it says how many bytes are still to pass.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.shared.state().mode
    }

    /// Connects new clients to another server, as a fail-over does. Open connections stay where they are.
    pub fn retarget(&self, server: SocketAddr) {
        self.shared.state().server = server;
    }

    /// Cuts all connections that are open now, and says how many.
    pub fn cut_all(&self) -> usize {
        let mut state = self.shared.state();
        let open = std::mem::take(&mut state.connections);
        state.counts.cuts += open.len() as u64;
        drop(state);
        open.values().for_each(Connection::end);
        self.shared.changed.notify_all();
        open.len()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().is_closing = true;
        self.cut_all();
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The thread that accepts connections. Dropped, it stops listening.
#[derive(Debug)]
struct Acceptor {
    listener: TcpListener,
    is_ending: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Acceptor {
    fn start(address: SocketAddr, shared: Arc<Shared>) -> io::Result<Acceptor> {
        let listener = TcpListener::bind(address)?;
        let accepting = listener.try_clone()?;
        let is_ending = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&is_ending);
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            while !ending.load(Ordering::SeqCst) {
                // A connection that broke before it was accepted is nobody's loss.
                let Ok((client, _)) = accepting.accept() else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(client).ok());
            }
        })?;
        Ok(Acceptor { listener, is_ending, thread: Some(thread) })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::SeqCst);
        // Wakes the thread: on Linux, accept fails on a socket that was shut down.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    server: SocketAddr,
    is_closing: bool,
    counts: Counts,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: Option<TcpStream>,
}

impl Connection {
    fn end(&self) {
        for stream in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Reply,
}

/// What becomes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// It passes.
    Whole,
    /// So many bytes of it pass, and then the connection ends.
    Cut(u64),
    /// The connection has been cut meanwhile.
    Gone,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one connection until it ends.
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let id = self.enter(client.try_clone()?);
        let carried = self.connect(id).and_then(|server| self.carry(id, &client, &server));
        if let Some(connection) = self.state().connections.remove(&id) {
            connection.end();
        }
        carried
    }

    fn enter(&self, client: TcpStream) -> u64 {
        let mut state = self.state();
        state.counts.connections += 1;
        let id = state.counts.connections;
        state.connections.insert(id, Connection { client, server: None });
        id
    }

    fn connect(&self, id: u64) -> io::Result<TcpStream> {
        // In a black hole nobody learns whether there is a server.
        if self.pass(id, Direction::Request, 0) == Passage::Gone {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let address = self.state().server;
        let server = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        let copy = server.try_clone()?;
        match self.state().connections.get_mut(&id) {
            Some(connection) => connection.server = Some(copy),
            None => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        Ok(server)
    }

    fn carry(&self, id: u64, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        thread::scope(|scope| {
            scope.spawn(|| self.pump(id, Direction::Reply, server, client));
            self.pump(id, Direction::Request, client, server);
        });
        Ok(())
    }

    /// Carries one direction until it ends. An end of one direction, in good order, leaves the other open.
    fn pump(&self, id: u64, direction: Direction, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length) = from.read(&mut buffer) {
            let piece = buffer.get(..length).unwrap_or_default();
            match self.pass(id, direction, length as u64) {
                Passage::Whole if length == 0 => {
                    to.shutdown(Shutdown::Write).ok();
                    return;
                }
                Passage::Whole if to.write_all(piece).is_ok() => {}
                Passage::Whole | Passage::Gone => break,
                Passage::Cut(bytes) => {
                    let rest = usize::try_from(bytes).ok().and_then(|bytes| piece.get(..bytes));
                    to.write_all(rest.unwrap_or_default()).ok();
                    break;
                }
            }
        }
        for stream in [from, to] {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Decides about a piece of `bytes`, when the mode lets it; 0 is an end or a beginning.
    fn pass(&self, id: u64, direction: Direction, bytes: u64) -> Passage {
        let mut state = self.state();
        loop {
            if state.is_closing || !state.connections.contains_key(&id) {
                return Passage::Gone;
            }
            match state.mode {
                Mode::BlackHole => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Mode::Delay(delay) => {
                    let is_held = |state: &mut State| {
                        state.mode == Mode::Delay(delay) && state.connections.contains_key(&id)
                    };
                    let waited = self.changed.wait_timeout_while(state, delay, is_held);
                    let (after, result) = waited.unwrap_or_else(PoisonError::into_inner);
                    state = after;
                    if result.timed_out() && !state.is_closing {
                        return state.let_pass(direction, bytes);
                    }
                }
                _ => return state.decide(id, direction, bytes),
            }
        }
    }
}

impl State {
    /// Decides about a piece that need not wait.
    fn decide(&mut self, id: u64, direction: Direction, bytes: u64) -> Passage {
        let left = match (self.mode, direction) {
            (Mode::CutRequestAfter(left), Direction::Request) => left,
            (Mode::CutReplyAfter(left), Direction::Reply) => left,
            _ => return self.let_pass(direction, bytes),
        };
        if bytes > 0 && bytes >= left {
            self.mode = Mode::Pass;
            self.counts.cuts += 1;
            // IMPORTANT: it is gone before the server gets the rest of its request, so that no answer to it can pass.
            self.connections.remove(&id);
            self.let_pass(direction, left);
            return Passage::Cut(left);
        }
        self.mode = match direction {
            Direction::Request => Mode::CutRequestAfter(left - bytes),
            Direction::Reply => Mode::CutReplyAfter(left - bytes),
        };
        self.let_pass(direction, bytes)
    }

    fn let_pass(&mut self, direction: Direction, bytes: u64) -> Passage {
        match direction {
            Direction::Request => self.counts.request_bytes += bytes,
            Direction::Reply => self.counts.reply_bytes += bytes,
        }
        Passage::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_passes_once_it_is_decided_that_the_request_is_lost() {
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
        let shared = &proxy.shared;
        let [cut, other] = [(); 2].map(|()| shared.enter(TcpStream::connect(proxy.address()).unwrap()));
        proxy.set(Mode::CutRequestAfter(3)).unwrap();
        assert_eq!(shared.pass(cut, Direction::Reply, 9), Passage::Whole);
        assert_eq!(shared.pass(cut, Direction::Request, 2), Passage::Whole);
        assert_eq!(shared.pass(cut, Direction::Request, 2), Passage::Cut(1));
        assert_eq!(shared.pass(cut, Direction::Reply, 9), Passage::Gone);
        assert_eq!(shared.pass(other, Direction::Reply, 9), Passage::Whole);
    }
}
