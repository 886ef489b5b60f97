//! A private RabbitMQ server that may be killed, paused and brought into need of memory.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::leash;
use crate::orphans::wait_for_orphans;
use crate::rabbit_program::Node;
use crate::reserved_port::ReservedPort;
use crate::service::{ServerError, Service, cannot, is_stopped};

const PROGRAM: &str = "rabbitmq-server";
/// What a question whether the server is there may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What RabbitMQ needs in order to be small. Quorum queues sync what they confirm, without being asked.
const SETTINGS: &str = "\
raft.wal_max_size_bytes = 33554432
log.console.level = info
";

/// Waits up to five seconds until it runs and each quorum queue has a leader, and says whether that is so. It waits in
/// one question and looks into a table: a queue that is disturbed before it has a leader, by a question of its own or
/// by nodes that come and go, waits anew for another leader to show itself before it elects one.
const WAIT_FOR_COMPLETE_START: &str = "\
HasLeader = fun(Q) -> amqqueue:get_type(Q) =/= rabbit_quorum_queue orelse \
ra_leaderboard:lookup_leader(element(1, amqqueue:get_pid(Q))) =/= undefined end, \
Wait = fun Wait(Tries) -> \
case rabbit:is_running() andalso lists:all(HasLeader, rabbit_amqqueue:list()) of \
true -> true; \
false when Tries > 0 -> timer:sleep(50), Wait(Tries - 1); \
false -> false end end, \
Wait(100)";

/// A fraction of the machine's memory that every server exceeds.
const TINY: f64 = 0.000_001;
/// A fraction of the machine's memory that no private server comes near.
const PLENTY: f64 = 0.8;

/// How to start a RabbitMQ server. It has no plugins, the virtual host `/`, and the user `guest` with the password
/// `guest`.
#[derive(Clone, Debug, Default)]
pub struct RabbitBuilder {
    lines: Vec<String>,
}

impl RabbitBuilder {
    /// One more line of `rabbitmq.conf`, such as `heartbeat = 5`. It wins against the defaults and earlier lines.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> RabbitBuilder {
        self.lines.push(line.into());
        self
    }

    /// Starts it on a free loopback port and waits until it has started completely. Takes about two seconds of
    /// processor time.
    ///
    /// # Errors
    /// [`ServerError`] with the end of its log.
    pub fn start(self) -> Result<RabbitServer, ServerError> {
        let reserve = || ReservedPort::new().map_err(cannot("reserve a port for RabbitMQ"));
        let folder = TempDir::with_prefix("yoink-rabbitmq-").map_err(cannot("make a folder for RabbitMQ"))?;
        // Its processes are found by the folder they work in, which the kernel knows without links.
        let root = folder.path().canonicalize().map_err(cannot("find the folder of RabbitMQ"))?;
        let service = Service::new(PROGRAM, root.join("rabbitmq.log"), leash::KILL);
        let (port, distribution_port) = (reserve()?, reserve()?);
        let node = Node::prepare(root, distribution_port.port())?;
        let mut server =
            RabbitServer { service, port, node, _distribution_port: distribution_port, _folder: folder };
        server.write_settings(&self.lines)?;
        server.start_again()?;
        Ok(server)
    }
}

/// A private RabbitMQ server with a data folder of its own. Dropped, it is killed with everything that it started, and
/// its folder removed.
#[derive(Debug)]
pub struct RabbitServer {
    service: Service,
    port: ReservedPort,
    node: Node,
    _distribution_port: ReservedPort,
    _folder: TempDir,
}

impl RabbitServer {
    /// A builder with the defaults.
    #[must_use]
    pub fn builder() -> RabbitBuilder {
        RabbitBuilder::default()
    }

    /// Starts one with the defaults.
    ///
    /// # Errors
    /// As [`RabbitBuilder::start`].
    pub fn start() -> Result<RabbitServer, ServerError> {
        RabbitServer::builder().start()
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The same for somebody who connects to `address`, for example to a [`crate::Proxy`] in front of it.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("amqp://guest:guest@{address}/%2f")
    }

    /// Where it listens. The same after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The port of [`RabbitServer::address`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.service.pid().and_then(|pid| u32::try_from(pid.as_raw_pid()).ok())
    }

    /// Its folder, in which it and all that it starts work. It holds `rabbitmq.conf`, `rabbitmq.log` and the data
    /// folder `mnesia`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.node.folder()
    }

    /// SIGKILL, and waits until it is gone, with its helpers, which notice that by themselves. Call
    /// [`RabbitServer::sync_declarations`] before if a quorum queue is younger than a few seconds.
    pub fn kill(&mut self) {
        self.service.kill();
        wait_for_orphans(self.node.folder());
    }

    /// SIGTERM, upon which it closes its connections and queues. Waits until it has ended, at most 30 s.
    ///
    /// # Errors
    /// [`ServerError::NotInTime`].
    pub fn terminate(&mut self) -> Result<(), ServerError> {
        self.service.end(Signal::TERM)?;
        wait_for_orphans(self.node.folder());
        Ok(())
    }

    /// Starts it again on the same folder and port, and waits until all its queues serve again. If it still runs, it
    /// is ended first with SIGTERM.
    ///
    /// # Errors
    /// [`ServerError`] with the end of its log.
    pub fn restart(&mut self) -> Result<(), ServerError> {
        self.terminate()?;
        self.start_again()
    }

    /// Pauses it with SIGSTOP: connections stay, nothing answers.
    ///
    /// # Errors
    /// It is down.
    pub fn pause(&mut self) -> Result<(), ServerError> {
        self.service.stop()
    }

    /// Lets it go on after [`RabbitServer::pause`].
    pub fn resume(&self) {
        self.service.signal(Signal::CONT);
    }

    /// Runs `rabbitmqctl` with `arguments`, for example `["list_queues", "name", "messages"]`, and gives what it wrote.
    /// Takes about a second. Its numbers about quorum queues may be five seconds old;
    /// [`RabbitServer::queue_messages`] asks the queue itself.
    ///
    /// # Errors
    /// The server is down or paused, or `rabbitmqctl` fails.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, ServerError> {
        self.must_answer("be asked by rabbitmqctl")?;
        self.node.ctl(arguments)
    }

    /// Has the server evaluate Erlang expressions, separated by commas and without a full stop at the end, and gives
    /// the value of the last one as Erlang writes it. Takes milliseconds.
    ///
    /// # Errors
    /// The server is down or paused, or an expression fails.
    pub fn eval(&self, expressions: &str) -> Result<String, ServerError> {
        self.must_answer("evaluate anything")?;
        self.node.eval(expressions)
    }

    /// Says above which fraction of the machine's memory the server takes no more messages. Without this it is 0.4.
    /// Lost by a restart.
    ///
    /// # Errors
    /// As [`RabbitServer::eval`].
    pub fn set_memory_watermark(&self, fraction: f64) -> Result<(), ServerError> {
        // Erlang knows no number like 1e-6.
        self.eval(&format!("ok = vm_memory_monitor:set_vm_memory_high_watermark({fraction:.9})")).map(drop)
    }

    /// Makes the server believe that its memory is used up, or not any more, and waits until it does. Meanwhile it
    /// reads nothing from connections that publish, and tells clients so with `connection.blocked`.
    ///
    /// # Errors
    /// As [`RabbitServer::eval`], or it does not believe so after 30 s.
    pub fn set_memory_alarm(&mut self, is_on: bool) -> Result<(), ServerError> {
        self.set_memory_watermark(if is_on { TINY } else { PLENTY })?;
        let node = &self.node;
        let alarms = "[memory || {resource_limit, memory, _} <- rabbit:alarms()] =/= []";
        self.service.wait_until("the memory alarm to be as told", || {
            node.eval(alarms).is_ok_and(|answer| answer == is_on.to_string())
        })
    }

    /// Has the server write to its files which quorum queues exist, and waits until it has. It does so by itself, but only
    /// some time after it has said that a queue is declared. A server that is killed before has forgotten whose log is
    /// whose: its quorum queues come back empty, without the messages that it confirmed, and elect no leader.
    ///
    /// # Errors
    /// As [`RabbitServer::eval`].
    pub fn sync_declarations(&self) -> Result<(), ServerError> {
        self.eval("[ok = dets:sync(Table) || Table <- dets:all()]").map(drop)
    }

    /// How many messages of `queue` wait to be delivered, and how many are delivered and not acknowledged. Messages
    /// that a quorum queue still has to dead-letter are in neither number.
    ///
    /// # Errors
    /// As [`RabbitServer::eval`]; above all, there is no such queue in the virtual host `/`.
    pub fn queue_messages(&self, queue: &str) -> Result<(u64, u64), ServerError> {
        let asked = format!(
            "{}, case amqqueue:get_type(Q) of \
             rabbit_quorum_queue -> \
             Ask = fun(F) -> {{ok, {{_, N}}, _}} = ra:leader_query(amqqueue:get_pid(Q), F), N end, \
             {{Ask(fun rabbit_fifo:query_messages_ready/1), Ask(fun rabbit_fifo:query_messages_checked_out/1)}}; \
             _ -> \
             [{{_, Ready}}, {{_, Unacknowledged}}] = \
             rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]), {{Ready, Unacknowledged}} \
             end",
            look_up(queue)
        );
        let answer = self.eval(&asked)?;
        pair(&answer).ok_or(ServerError::Rabbit { asked, answer })
    }

    /// Removes the messages of `queue` that wait to be delivered, and gives their number.
    ///
    /// # Errors
    /// As [`RabbitServer::queue_messages`].
    pub fn purge(&self, queue: &str) -> Result<u64, ServerError> {
        self.count(format!("{}, {{ok, N}} = rabbit_amqqueue:purge(Q), N", look_up(queue)))
    }

    /// Deletes `queue`, whoever uses it, and gives the number of messages that waited in it.
    ///
    /// # Errors
    /// As [`RabbitServer::queue_messages`].
    pub fn delete_queue(&self, queue: &str) -> Result<u64, ServerError> {
        let delete = "{ok, N} = rabbit_amqqueue:delete(Q, false, false, <<\"testkit\">>), N";
        self.count(format!("{}, {delete}", look_up(queue)))
    }

    fn count(&self, asked: String) -> Result<u64, ServerError> {
        let answer = self.eval(&asked)?;
        answer.parse().map_err(|_| ServerError::Rabbit { asked, answer })
    }

    /// Refuses `action` while nothing would answer: `erl_call` would wait for ever.
    fn must_answer(&self, action: &'static str) -> Result<(), ServerError> {
        let pid = self.service.must_run(action)?;
        match is_stopped(pid) {
            true => Err(ServerError::NotRunning { server: PROGRAM, action }),
            false => Ok(()),
        }
    }

    fn start_again(&mut self) -> Result<(), ServerError> {
        self.service.spawn(&mut self.node.server(self.port.port()))?;
        let (address, node) = (self.port.address(), &self.node);
        self.service.wait_until("a complete start", || {
            // It listens nearly at the end of its start. Asking is dear, so it is not done before.
            TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok()
                && node.eval(WAIT_FOR_COMPLETE_START).is_ok_and(|answer| answer == "true")
        })
    }

    fn write_settings(&self, lines: &[String]) -> Result<(), ServerError> {
        let mut settings = format!("listeners.tcp.1 = {}\n{SETTINGS}", self.address());
        for line in lines {
            settings.push_str(line);
            settings.push('\n');
        }
        std::fs::write(self.folder().join("rabbitmq.conf"), settings).map_err(cannot("write rabbitmq.conf"))
    }
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An Erlang expression that binds `Q` to the queue `name` of the virtual host `/`.
fn look_up(name: &str) -> String {
    // As numbers, so that no name can be anything but a name.
    let bytes: Vec<_> = name.bytes().map(|byte| byte.to_string()).collect();
    format!("{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<{}>>))", bytes.join(","))
}

/// The numbers of `{A, B}`.
fn pair(answer: &str) -> Option<(u64, u64)> {
    let (first, second) = answer.strip_prefix('{')?.strip_suffix('}')?.split_once(", ")?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_numbers_is_read_and_nothing_else() {
        assert_eq!(pair("{12, 0}"), Some((12, 0)));
        assert_eq!(pair("{12, x}"), None);
        assert_eq!(pair("ok"), None);
    }

    #[test]
    fn a_queue_is_looked_up_by_bytes() {
        assert!(look_up("a\">>").ends_with("<<97,34,62,62>>))"), "{}", look_up("a\">>"));
    }
}
