//! The private servers do what the tests that use them believe: they lose what they should, and nothing else.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use yoink_testkit::{
    Mode, Postgres, Proxy, RedisClient, RedisCluster, RedisError, RedisServer, SqlError, SqlSession,
};

/// Longer than anything takes, and shorter than anybody waits.
const LONG: Duration = Duration::from_secs(20);
/// After this long without an answer, there is none.
const SHORT: Duration = Duration::from_millis(300);

fn wait_until(awaited: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < until, "not in {LONG:?}: {awaited}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn text(server: &RedisServer, parts: &[&str]) -> Option<String> {
    server.command(parts).unwrap().text()
}

fn number(server: &RedisServer, parts: &[&str]) -> Option<i64> {
    server.command(parts).unwrap().integer()
}

#[test]
fn redis_starts_with_settings_that_lose_nothing() {
    let server = RedisServer::builder()
        .config("maxmemory 32mb")
        .config("maxmemory-policy allkeys-lru")
        .start()
        .unwrap();
    let setting = |name| server.command(&["CONFIG", "GET", name]).unwrap().items()[1].text().unwrap();
    assert_eq!(setting("appendonly"), "yes");
    assert_eq!(setting("appendfsync"), "always");
    assert_eq!(setting("no-appendfsync-on-rewrite"), "no");
    assert_eq!(setting("save"), "");
    assert_eq!(setting("maxmemory"), "33554432");
    assert_eq!(setting("maxmemory-policy"), "allkeys-lru", "an extra line wins");
    assert_eq!(
        RedisServer::start().unwrap().command(&["CONFIG", "GET", "maxmemory-policy"]).unwrap().items()[1]
            .text()
            .unwrap(),
        "noeviction"
    );
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
}

#[test]
fn a_redis_that_cannot_start_says_why() {
    let error = RedisServer::builder().config("no-such-setting 1").start().unwrap_err();
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[test]
fn redis_keeps_what_it_acknowledged_through_kills_and_restarts() {
    let mut server = RedisServer::start().unwrap();
    let first = server.info("run_id").unwrap();
    for round in 1..=5 {
        assert_eq!(number(&server, &["INCR", "acknowledged"]), Some(round));
        let port = server.port();
        server.kill();
        let error = server.command(&["PING"]).unwrap_err();
        assert!(matches!(error, RedisError::NotSent { .. }), "{error}");
        server.restart().unwrap();
        assert_eq!(server.port(), port);
    }
    assert_eq!(text(&server, &["GET", "acknowledged"]).as_deref(), Some("5"));
    server.restart().unwrap();
    assert_eq!(text(&server, &["GET", "acknowledged"]).as_deref(), Some("5"), "SIGTERM loses nothing either");
    assert_ne!(server.info("run_id").unwrap(), first, "it is another process");
}

#[test]
fn a_truncated_append_only_file_loses_its_end_and_no_more() {
    let mut server = RedisServer::start().unwrap();
    server.command(&["SET", "first", "1"]).unwrap();
    let before = std::fs::metadata(server.aof().unwrap()).unwrap().len();
    server.command(&["SET", "second", "2"]).unwrap();
    assert!(server.truncate_aof(1).unwrap_err().to_string().contains("must be down"));
    server.kill();
    let length = std::fs::metadata(server.aof().unwrap()).unwrap().len();
    assert_eq!(server.truncate_aof(length - before).unwrap(), before);
    assert!(server.truncate_aof(before + 1).is_err(), "longer than the file");
    server.restart().unwrap();
    assert_eq!(text(&server, &["GET", "first"]).as_deref(), Some("1"));
    assert_eq!(text(&server, &["GET", "second"]), None);
    server.command(&["SET", "third", "3"]).unwrap();
    server.kill();
    server.truncate_aof(3).unwrap();
    server.restart().unwrap();
    assert_eq!(text(&server, &["GET", "third"]), None, "a command that was cut in its middle is dropped");
}

#[test]
fn a_paused_redis_answers_nothing_until_it_goes_on() {
    let mut server = RedisServer::start().unwrap();
    server.stop().unwrap();
    let mut client = RedisClient::connect(server.address(), SHORT).unwrap();
    let error = client.command(&["INCR", "late"]).unwrap_err();
    assert!(matches!(error, RedisError::Unknown { .. }), "{error}");
    server.cont();
    wait_until("the command that was sent to a paused server", || text(&server, &["GET", "late"]).is_some());
    server.stop().unwrap();
    server.terminate().unwrap();
    assert_eq!(server.pid(), None, "a paused server can be ended");
}

#[test]
fn a_promoted_replica_has_lost_exactly_what_did_not_reach_it() {
    let mut primary = RedisServer::start().unwrap();
    let edge = Proxy::start(primary.address()).unwrap();
    let clients = Proxy::start(primary.address()).unwrap();
    let mut replica = RedisServer::builder().replica_of(edge.address()).start().unwrap();
    replica.wait_in_sync().unwrap();
    let mut client = RedisClient::connect(clients.address(), LONG).unwrap();
    client.command(&["SET", "sold", "1"]).unwrap();
    assert_eq!(client.command(&["WAIT", "1", "10000"]).unwrap().integer(), Some(1));
    assert!(replica.command(&["SET", "sold", "9"]).is_err(), "a replica is not written to");

    edge.set(Mode::BlackHole).unwrap();
    client.command(&["SET", "sold", "2"]).unwrap();
    primary.kill();
    replica.promote().unwrap();
    clients.retarget(replica.address());
    assert!(client.command(&["GET", "sold"]).is_err(), "the old connection died with the primary");
    let mut client = RedisClient::connect(clients.address(), LONG).unwrap();
    assert_eq!(client.command(&["GET", "sold"]).unwrap().text().as_deref(), Some("1"));
    client.command(&["SET", "sold", "3"]).unwrap();
    replica.kill();
    replica.restart().unwrap();
    assert_eq!(
        text(&replica, &["GET", "sold"]).as_deref(),
        Some("3"),
        "promoted for good, and it keeps a log"
    );
    assert_eq!(replica.info("role").unwrap().as_deref(), Some("master"));
}

#[test]
fn a_cluster_answers_on_all_slots_also_after_a_node_was_killed() {
    let mut cluster = RedisCluster::start().unwrap();
    assert_eq!(cluster.urls().len(), 3);
    let key = |number: u32| format!("key {number}");
    for number in 0..600 {
        cluster.command(&["SET", &key(number), &number.to_string()]).unwrap();
    }
    let sizes: Vec<_> =
        cluster.nodes().iter().map(|node| node.command(&["DBSIZE"]).unwrap().integer().unwrap()).collect();
    assert_eq!(sizes.iter().sum::<i64>(), 600);
    assert!(sizes.iter().all(|size| *size > 100), "{sizes:?}");

    cluster.nodes_mut()[1].kill();
    cluster.nodes_mut()[1].restart().unwrap();
    cluster.wait_until_well().unwrap();
    for number in 0..600 {
        let value = cluster.command(&["GET", &key(number)]).unwrap().text();
        assert_eq!(value, Some(number.to_string()));
    }
    assert!(cluster.command(&["MGET", "a", "b", "c"]).is_err(), "keys of several slots are refused");
}

fn postgres_with_table() -> Postgres {
    let server = Postgres::start().unwrap();
    server.session("postgres").unwrap().query("CREATE TABLE sold (number int PRIMARY KEY)").unwrap();
    server
}

fn count(server: &Postgres) -> String {
    server.session("postgres").unwrap().value("SELECT count(*) FROM sold").unwrap().unwrap()
}

#[test]
fn postgres_starts_with_settings_that_lose_nothing() {
    let server =
        Postgres::builder().config("work_mem = '1MB'").config("max_connections = 20").start().unwrap();
    let mut session = server.session("postgres").unwrap();
    let mut setting = |name| session.value(&format!("SHOW {name}")).unwrap().unwrap();
    assert_eq!(setting("fsync"), "on");
    assert_eq!(setting("synchronous_commit"), "on");
    assert_eq!(setting("work_mem"), "1MB");
    assert_eq!(setting("max_connections"), "20", "an extra line wins");
    let url = server.create_database("shop").unwrap();
    assert_eq!(url, format!("postgres://postgres@127.0.0.1:{}/shop", server.port()));
    let mut shop = server.session("shop").unwrap();
    assert_eq!(shop.value("SELECT current_database()").unwrap().as_deref(), Some("shop"));
    let error = server.create_database("shop").unwrap_err();
    assert!(matches!(&error, SqlError::Refused { code, .. } if code == "42P04"), "{error}");
    assert_eq!(
        shop.query("SELECT 1, NULL, 'a'").unwrap(),
        [[Some("1".to_owned()), None, Some("a".to_owned())]]
    );
}

#[test]
fn a_postgres_that_cannot_start_says_why() {
    let error = Postgres::builder().config("no_such_setting = 1").start().unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn postgres_keeps_committed_rows_and_only_those_through_kills() {
    let mut server = postgres_with_table();
    for round in 1..=3 {
        let mut open = server.session("postgres").unwrap();
        open.query(&format!("BEGIN; INSERT INTO sold VALUES ({})", -round)).unwrap();
        server.session("postgres").unwrap().query(&format!("INSERT INTO sold VALUES ({round})")).unwrap();
        let port = server.port();
        server.kill();
        assert!(open.query("COMMIT").is_err(), "its session is gone");
        server.restart().unwrap();
        assert_eq!((count(&server), server.port()), (round.to_string(), port));
    }
}

#[test]
fn a_crashed_backend_takes_all_sessions_with_it_and_no_committed_row() {
    let mut server = postgres_with_table();
    let postmaster = server.pid();
    let mut bystander = server.session("postgres").unwrap();
    bystander.query("INSERT INTO sold VALUES (1)").unwrap();
    bystander.query("BEGIN; INSERT INTO sold VALUES (2)").unwrap();
    server.crash_backend().unwrap();
    assert!(bystander.query("COMMIT").is_err(), "its session is gone");
    assert_eq!(server.pid(), postmaster, "the postmaster is the same");
    assert_eq!(count(&server), "1");
}

#[test]
fn a_paused_postgres_answers_nothing_until_it_goes_on() {
    let mut server = postgres_with_table();
    let mut session = SqlSession::connect(server.address(), "postgres", SHORT).unwrap();
    server.stop().unwrap();
    let error = session.query("INSERT INTO sold VALUES (1)").unwrap_err();
    assert!(matches!(error, SqlError::Unknown { .. }), "{error}");
    server.cont();
    wait_until("the row that was sent to a paused server", || count(&server) == "1");
    server.terminate().unwrap();
    assert_eq!(server.pid(), None);
    server.restart().unwrap();
    assert_eq!(count(&server), "1");
    server.stop().unwrap();
    server.kill();
    server.restart().unwrap();
    assert_eq!(count(&server), "1", "a paused server can be killed");
}

/// Says back what it hears, on as many connections as come.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut heard = stream.try_clone().unwrap();
                std::io::copy(&mut heard, &mut stream).ok();
                stream.shutdown(std::net::Shutdown::Write).ok();
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn said_back(stream: &mut TcpStream, words: &[u8]) -> Vec<u8> {
    stream.write_all(words).unwrap();
    let mut heard = vec![0; words.len()];
    stream.read_exact(&mut heard).unwrap();
    heard
}

/// All that still arrives before the connection ends.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    // A connection that was cut may end with a reset; what arrived before counts.
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    heard
}

#[test]
fn the_proxy_passes_everything_and_counts_it() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    assert_eq!(said_back(&mut stream, b"hello"), b"hello");
    let large = vec![7; 1_000_000];
    let mut writer = stream.try_clone().unwrap();
    let sent = large.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert_eq!(rest(&mut stream), large, "an end of one direction leaves the other open");
    writing.join().unwrap();
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.request_bytes, counts.reply_bytes), (1, 1_000_005, 1_000_005));
    assert_eq!(counts.cuts, 0);
}

#[test]
fn the_proxy_cuts_an_answer_at_every_chosen_byte_and_redis_has_done_the_work() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let whole = b":1\r\n";
    for bytes in 0..=whole.len() {
        let mut stream = connect(&proxy);
        proxy.set(Mode::CutReplyAfter(bytes as u64)).unwrap();
        stream.write_all(b"*2\r\n$4\r\nINCR\r\n$6\r\nreply").unwrap();
        stream.write_all(format!("{bytes}\r\n").as_bytes()).unwrap();
        assert_eq!(rest(&mut stream), &whole[..bytes]);
        assert_eq!(text(&server, &["GET", &format!("reply{bytes}")]).as_deref(), Some("1"));
        assert_eq!((proxy.mode(), proxy.counts().cuts), (Mode::Pass, bytes as u64 + 1), "it happens once");
    }
}

#[test]
fn the_proxy_cuts_a_request_at_every_chosen_byte_and_nobody_hears_an_answer() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let request = b"*2\r\n$4\r\nINCR\r\n$4\r\nsold\r\n";
    for bytes in 0..=request.len() {
        let mut stream = connect(&proxy);
        proxy.set(Mode::CutRequestAfter(bytes as u64)).unwrap();
        stream.write_all(request).unwrap();
        assert_eq!(rest(&mut stream), b"", "{bytes}");
    }
    // Only the last of them was whole.
    wait_until("the request that was whole", || text(&server, &["GET", "sold"]).is_some());
    assert_eq!(text(&server, &["GET", "sold"]).as_deref(), Some("1"));
    assert_eq!(proxy.counts().request_bytes, (0..=request.len() as u64).sum::<u64>());
    assert_eq!(proxy.counts().cuts, request.len() as u64 + 1);
}

#[test]
fn bytes_until_a_cut_are_counted_over_connections_and_only_one_is_cut() {
    let proxy = Proxy::start(echo()).unwrap();
    let (mut first, mut second) = (connect(&proxy), connect(&proxy));
    proxy.set(Mode::CutRequestAfter(7)).unwrap();
    assert_eq!(said_back(&mut first, b"1234"), b"1234");
    assert_eq!(proxy.mode(), Mode::CutRequestAfter(3));
    second.write_all(b"56789").unwrap();
    assert_eq!(rest(&mut second), b"");
    assert_eq!(said_back(&mut first, b"still here"), b"still here");
}

#[test]
fn a_black_hole_keeps_everything_until_it_ends() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut old = connect(&proxy);
    assert_eq!(said_back(&mut old, b"before"), b"before");
    proxy.set(Mode::BlackHole).unwrap();
    let mut new = connect(&proxy);
    for stream in [&mut old, &mut new] {
        stream.write_all(b"during").unwrap();
        stream.set_read_timeout(Some(SHORT)).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "nothing arrives");
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    assert_eq!(proxy.counts().request_bytes, 6);
    proxy.set(Mode::Pass).unwrap();
    for stream in [&mut old, &mut new] {
        let mut heard = [0; 6];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"during");
    }
}

#[test]
fn a_proxy_that_refuses_lets_nobody_in_and_throws_nobody_out() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut old = connect(&proxy);
    assert_eq!(said_back(&mut old, b"before"), b"before");
    for _ in 0..3 {
        proxy.set(Mode::Refuse).unwrap();
        let error = TcpStream::connect(proxy.address()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(said_back(&mut old, b"during"), b"during");
        proxy.set(Mode::Pass).unwrap();
        assert_eq!(said_back(&mut connect(&proxy), b"after"), b"after");
    }
    assert!(proxy.cut_all() >= 1);
    assert_eq!(rest(&mut old), b"");
}

#[test]
fn a_delay_holds_both_directions() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    assert_eq!(said_back(&mut stream, b"quick"), b"quick");
    proxy.set(Mode::Delay(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    assert_eq!(said_back(&mut stream, b"slow"), b"slow");
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[test]
fn a_proxy_sends_new_connections_to_its_new_target_and_ends_those_that_find_nobody() {
    let (first, second) = (RedisServer::start().unwrap(), RedisServer::start().unwrap());
    first.command(&["SET", "name", "first"]).unwrap();
    second.command(&["SET", "name", "second"]).unwrap();
    let proxy = Proxy::start(first.address()).unwrap();
    let name = |client: &mut RedisClient| client.command(&["GET", "name"]).unwrap().text().unwrap();
    let mut old = RedisClient::connect(proxy.address(), LONG).unwrap();
    assert_eq!(name(&mut old), "first");
    proxy.retarget(second.address());
    assert_eq!(name(&mut old), "first", "open connections stay");
    let mut new = RedisClient::connect(proxy.address(), LONG).unwrap();
    assert_eq!(name(&mut new), "second");
    let gone = second.address();
    drop(second);
    assert!(new.command(&["GET", "name"]).is_err());
    assert!(RedisClient::connect(gone, LONG).is_err());
    let mut nobody = RedisClient::connect(proxy.address(), LONG).unwrap();
    assert!(nobody.command(&["GET", "name"]).is_err());
}

/// Set in the process that [`servers_end_with_a_process_that_is_killed`] starts: this very test once more.
const IS_VICTIM: &str = "YOINK_TESTKIT_IS_VICTIM";

#[test]
fn servers_end_with_a_process_that_is_killed() {
    if std::env::var_os(IS_VICTIM).is_some() {
        let (redis, postgres) = (RedisServer::start().unwrap(), Postgres::start().unwrap());
        println!("servers: {} {}", redis.address(), postgres.address());
        println!("folders: {} {}", redis.folder().display(), postgres.folder().display());
        thread::sleep(LONG);
        return;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers_end_with_a_process_that_is_killed", "--nocapture"])
        .env(IS_VICTIM, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut words_after = |word: &str| {
        let line = lines.find_map(|line| line.split_once(word).map(|(_, rest)| rest.to_owned())).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let servers: Vec<SocketAddr> = words_after("servers:").iter().map(|word| word.parse().unwrap()).collect();
    let folders = words_after("folders:");
    for server in &servers {
        TcpStream::connect(server).unwrap();
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    for server in &servers {
        wait_until("the end of a server", || TcpStream::connect(server).is_err());
    }
    // PostgreSQL removes it as the last thing that it does, after its shared memory, unless it is killed itself.
    let last = std::path::Path::new(&folders[1]).join("data/postmaster.pid");
    wait_until("the end of PostgreSQL in good order", || !last.exists());
    // A killed process cannot tidy up after itself, so we do, once the last backend has noticed.
    for folder in &folders {
        wait_until("the end of all who write into it", || std::fs::remove_dir_all(folder).is_ok());
    }
}
