//! A server under measurement: started for one run, on a port of its own, and ended with it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const ADMIN_KEY: &str = "bench-admin-key-0123456789abcdef0123456789";

/// Ends with its owner.
pub(super) struct Server {
    child: Child,
    pub(super) address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// The handler that does nothing.
    pub(super) fn reference(binaries: &Path) -> Result<Self> {
        let mut child = Command::new(binaries.join("yoink-reference"))
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the reference")?;
        let stdout = child.stdout.take().context("the reference has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://").map(str::to_owned);
        let mut server = Self { child, address: String::new() };
        server.address = address.context("the reference did not say where it listens")?;
        Ok(server)
    }

    /// Yoink on a fresh data folder, with product "plenty" (nearly endless) and product "gone" (sold out).
    pub(super) fn yoink(binaries: &Path, data: &Path) -> Result<Self> {
        if data.exists() {
            fs::remove_dir_all(data).with_context(|| format!("cannot empty {}", data.display()))?;
        }
        Self::serve(binaries, |command| command.arg("--data").arg(data))
    }

    /// Yoink on Redis and PostgreSQL, with the same products. Those that are there stay as they are.
    pub(super) fn yoink_on_redis(binaries: &Path, redis: &str, postgres: &str) -> Result<Self> {
        Self::migrate(binaries, postgres)?;
        Self::serve(binaries, |command| {
            command.args(["--engine", "redis", "--redis", redis, "--postgres", postgres])
        })
    }

    /// Yoink on RabbitMQ, with the same products; it decides nothing itself.
    pub(super) fn yoink_on_rabbitmq(binaries: &Path, urls: &[&str]) -> Result<Self> {
        let server = Self::serve(binaries, |command| {
            command.args(["--engine", "rabbitmq", "--workers", "0"]).args(urls)
        })?;
        server.wait_until_gone()?;
        Ok(server)
    }

    /// Waits until the only unit of "gone" is seen to be sold.
    fn wait_until_gone(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            let body = r#"{"customer_id":"second","product_id":"gone"}"#;
            if self.post("/v1/orders", body)? == 409 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the only unit was not sold within 10 s")
    }

    fn serve(binaries: &Path, on: impl FnOnce(&mut Command) -> &mut Command) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(binaries.join("yoink"));
        command.args(["serve", "--dev", "--listen", &address]);
        let child = on(&mut command)
            .env("YOINK_ADMIN_KEY", ADMIN_KEY)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start yoink")?;
        let server = Self { child, address };
        server.open_products()?;
        Ok(server)
    }

    pub(super) fn migrate(binaries: &Path, postgres: &str) -> Result<()> {
        let migrated =
            Command::new(binaries.join("yoink")).args(["migrate", "--postgres", postgres]).output()?;
        if !migrated.status.success() {
            bail!("yoink migrate failed: {}", String::from_utf8_lossy(&migrated.stderr));
        }
        Ok(())
    }

    fn open_products(&self) -> Result<()> {
        self.wait_until_ready()?;
        self.create("plenty", 1_000_000_000)?;
        self.create("gone", 1)?;
        let body = r#"{"customer_id":"first","product_id":"gone"}"#;
        match self.post("/v1/orders", body)? {
            // 409: it was bought when these products were made.
            202 | 409 => Ok(()),
            status => bail!("the only unit could not be bought: {status}"),
        }
    }

    /// Resident memory in MiB.
    pub(super) fn rss_mib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / 1024)
    }

    fn wait_until_ready(&self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if self.request("GET", "/readyz", "").is_ok_and(|status| status == 200) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("yoink was not ready within 10 s")
    }

    fn create(&self, id: &str, stock: u64) -> Result<()> {
        let body = format!(
            r#"{{"id":"{id}","name":"{id}","price":{{"amount":19999,"currency":"EUR"}},"stock":{stock}}}"#
        );
        match self.post("/v1/admin/products", &body)? {
            201 => Ok(()),
            status => bail!("product {id} could not be created: {status}"),
        }
    }

    fn post(&self, path: &str, body: &str) -> Result<u16> {
        self.request("POST", path, body)
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Result<u16> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {ADMIN_KEY}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.with_context(|| format!("{method} {path} was not answered in HTTP"))
    }
}

/// A worker of the rabbitmq engine. Ends with its owner.
pub(super) struct Worker {
    child: Child,
}

impl Worker {
    pub(super) fn on_rabbitmq(binaries: &Path, urls: &[&str]) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let child = Command::new(binaries.join("yoink"))
            .args(["worker", "--engine", "rabbitmq", "--listen", &listen])
            .args(urls)
            .env("YOINK_ADMIN_KEY", ADMIN_KEY)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start a worker")?;
        Ok(Self { child })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // As for a server.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
