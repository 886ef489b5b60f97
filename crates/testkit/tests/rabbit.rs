//! The private RabbitMQ server does what the tests that use it believe.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::time::timeout;
use yoink_testkit::{Proxy, RabbitServer};

/// Longer than anything takes, and shorter than anybody waits.
const LONG: Duration = Duration::from_secs(20);
/// After this long without an answer, there is none.
const SHORT: Duration = Duration::from_millis(300);
const QUEUE: &str = "orders";
const PERSISTENT: u8 = 2;

async fn connect(url: &str) -> (Connection, Channel) {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    let connection = timeout(LONG, connecting).await.unwrap().unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, kind: &str) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), options, arguments).await.unwrap();
}

/// Publishes a persistent message, and waits for the broker's word that it has it.
async fn publish(channel: &Channel, body: &str) {
    let confirmation = begin_to_publish(channel, body).await;
    let confirmed = timeout(LONG, confirmation).await.unwrap().unwrap();
    assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
}

async fn begin_to_publish(channel: &Channel, body: &str) -> lapin::PublisherConfirm {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let publishing = channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties);
    publishing.await.unwrap()
}

/// The processes that work in `folder`, or did when there was one.
fn processes_in(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| works_in(*pid, folder)).collect()
}

fn works_in(pid: u32, folder: &Path) -> bool {
    // The kernel adds a word to the name of a folder that is gone.
    let place = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    place.to_string_lossy().starts_with(&*folder.to_string_lossy())
}

/// The pids of the Erlang port daemons of this machine.
fn port_daemons() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "epmd")
    };
    numbers.filter(is_one).collect()
}

#[tokio::test]
async fn a_confirmed_message_of_a_quorum_queue_outlives_kills_and_restarts() {
    let mut server = RabbitServer::start().unwrap();
    let (url, first) = (server.url(), server.pid());
    let (_connection, channel) = connect(&url).await;
    declare(&channel, "quorum").await;
    server.sync_declarations().unwrap();
    publish(&channel, "first").await;
    server.kill();
    assert_eq!(server.pid(), None);
    assert!(std::net::TcpStream::connect(server.address()).is_err());
    server.restart().unwrap();
    assert_ne!(server.pid(), first, "it is another process");
    assert_eq!(server.url(), url, "in the same place");

    let (_connection, channel) = connect(&url).await;
    assert_eq!(server.queue_messages(QUEUE).unwrap(), (1, 0));
    publish(&channel, "second").await;
    server.restart().unwrap();
    let (_connection, channel) = connect(&url).await;
    for body in ["first", "second"] {
        let got = channel.basic_get(QUEUE.into(), BasicGetOptions::default()).await.unwrap().unwrap();
        assert_eq!(got.delivery.data, body.as_bytes());
        assert_eq!(server.queue_messages(QUEUE).unwrap().1, 1, "delivered and not acknowledged");
        got.delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn queues_are_counted_purged_and_deleted() {
    let server = RabbitServer::builder()
        .config("raft.wal_max_size_bytes = 67108864")
        .config("channel_max = 77")
        .start()
        .unwrap();
    let setting =
        |of, name| server.eval(&format!("{{ok, V}} = application:get_env({of}, {name}), V")).unwrap();
    assert_eq!(setting("rabbit", "channel_max"), "77");
    assert_eq!(setting("ra", "wal_max_size_bytes"), "67108864", "an extra line wins");
    let (_connection, channel) = connect(&server.url()).await;
    for kind in ["quorum", "classic"] {
        declare(&channel, kind).await;
        for body in ["a", "b", "c"] {
            publish(&channel, body).await;
        }
        let got = channel.basic_get(QUEUE.into(), BasicGetOptions::default()).await.unwrap();
        assert_eq!(server.queue_messages(QUEUE).unwrap(), (2, 1), "{kind}");
        assert_eq!(server.purge(QUEUE).unwrap(), 2, "{kind}");
        assert_eq!(server.queue_messages(QUEUE).unwrap(), (0, 1), "{kind}");
        got.unwrap().delivery.ack(BasicAckOptions::default()).await.unwrap();
        publish(&channel, "d").await;
        assert_eq!(server.delete_queue(QUEUE).unwrap(), 1, "{kind}");
        let error = server.queue_messages(QUEUE).unwrap_err();
        assert!(error.to_string().contains("not_found"), "{error}");
    }
}

#[tokio::test]
async fn a_memory_alarm_holds_messages_back_until_it_ends() {
    let mut server = RabbitServer::start().unwrap();
    let (_connection, channel) = connect(&server.url()).await;
    declare(&channel, "quorum").await;
    publish(&channel, "before").await;
    server.set_memory_alarm(true).unwrap();
    let mut confirmation = begin_to_publish(&channel, "during").await;
    assert!(timeout(SHORT, &mut confirmation).await.is_err(), "no confirmation while the alarm lasts");
    assert_eq!(server.queue_messages(QUEUE).unwrap(), (1, 0), "the message is not even taken");
    server.set_memory_alarm(false).unwrap();
    let confirmed = timeout(LONG, confirmation).await.unwrap().unwrap();
    assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    assert_eq!(server.queue_messages(QUEUE).unwrap(), (2, 0));
}

#[tokio::test]
async fn a_paused_server_answers_nothing_until_it_goes_on() {
    let mut server = RabbitServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let (_connection, channel) = connect(&server.url_at(proxy.address())).await;
    declare(&channel, "quorum").await;
    server.pause().unwrap();
    let mut confirmation = begin_to_publish(&channel, "late").await;
    assert!(timeout(SHORT, &mut confirmation).await.is_err());
    let error = server.queue_messages(QUEUE).unwrap_err();
    assert!(error.to_string().contains("must run"), "{error}");
    server.resume();
    timeout(LONG, confirmation).await.unwrap().unwrap();
    assert_eq!(server.queue_messages(QUEUE).unwrap(), (1, 0));
    server.pause().unwrap();
    server.terminate().unwrap();
    assert_eq!(server.pid(), None, "a paused server can be ended");
}

#[test]
fn two_servers_run_side_by_side_and_leave_nothing_behind() {
    let daemons_before = port_daemons();
    let servers = [RabbitServer::start().unwrap(), RabbitServer::start().unwrap()];
    let flags = servers[0].ctl(&["--silent", "list_feature_flags", "name", "state"]).unwrap();
    for flag in ["quorum_queue", "stream_queue"] {
        assert!(flags.contains(&format!("{flag}\tenabled")), "{flags}");
    }
    let error = servers[1].ctl(&["no_such_command"]).unwrap_err();
    assert!(error.to_string().contains("no_such_command"), "{error}");
    let nodes: Vec<_> = servers.iter().map(|server| server.eval("[node() | nodes()]").unwrap()).collect();
    assert_ne!(nodes[0], nodes[1]);
    assert!(!nodes[0].contains(','), "it knows no other node: {}", nodes[0]);

    let folders: Vec<_> = servers.iter().map(|server| server.folder().to_path_buf()).collect();
    let processes: Vec<_> = folders.iter().map(|folder| processes_in(folder)).collect();
    for (server, processes) in servers.iter().zip(&processes) {
        assert!(processes.contains(&server.pid().unwrap()));
        assert!(processes.len() > 1, "its helpers work in its folder, too: {processes:?}");
    }
    assert_eq!(port_daemons(), daemons_before, "no port daemon was needed");
    drop(servers);
    for (folder, processes) in folders.iter().zip(&processes) {
        assert!(!folder.exists());
        let left: Vec<_> = processes.iter().filter(|pid| works_in(**pid, folder)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let begun = Instant::now();
    let error = RabbitServer::builder().config("no_such_setting = 1").start().unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    assert!(begun.elapsed() < LONG);
}
