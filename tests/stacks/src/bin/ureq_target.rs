// SPDX-License-Identifier: GPL-2.0-only

//! A client on ureq that asks three servers in turn over connections that are
//! kept alive; the servers are threads of this program. In: the number of
//! rounds. Out: the truth file, by the servers: ureq shows neither its calls
//! nor its sockets, so what a server reads is what ureq wrote to the socket
//! that the server's peer is. It must never write a line that no record was for.

use std::io::{BufRead, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tlssnoop_rustls_targets::{Args, Result, Truth, fd_of, finish, message, ready};
use ureq::Agent;
use ureq::config::IpFamily;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const USAGE: &str =
    "usage: ureq_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] ROUNDS";
const SERVERS: usize = 3;

fn length(round: usize) -> usize {
    [200, 1, 16384, 50000, 200][round % 5]
}

/// A server's end of a connection, and the client's socket.
struct End {
    stream: StreamOwned<ServerConnection, std::net::TcpStream>,
    fd: RawFd,
    client: RawFd,
    truth: Arc<Truth>,
    unread: Vec<u8>,
}

impl End {
    /// One record more; false at the end of the connection.
    fn read(&mut self) -> Result<bool> {
        let record = match self.stream.fill_buf() {
            // ureq does not say goodbye.
            Err(why) if why.kind() == ErrorKind::UnexpectedEof => Vec::new(),
            record => record?.to_vec(),
        };
        self.stream.consume(record.len());
        self.truth.read(self.fd, &record);
        self.truth.write(self.client, &record);
        self.unread.extend_from_slice(&record);
        Ok(!record.is_empty())
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.stream.write_all(data)?;
        self.truth.write(self.fd, data);
        self.truth.read(self.client, data);
        Ok(())
    }

    /// The head of the next request; None at the end of the connection.
    fn head(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.unread.drain(..at + 4).collect();
                return Ok(Some(String::from_utf8(head)?.to_lowercase()));
            }
            if !self.read()? {
                return match self.unread.len() {
                    0 => Ok(None),
                    _ => Err("half a request".into()),
                };
            }
        }
    }

    fn serve(&mut self, number: usize) -> Result<()> {
        for round in 0.. {
            let Some(head) = self.head()? else {
                break;
            };
            let size: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .ok_or("a request without a length")?
                .parse()?;
            while self.unread.len() < size {
                self.read()?;
            }
            let body: Vec<u8> = self.unread.drain(..size).collect();
            if body != message(&format!("client to {number}"), round, length(round)) {
                return Err(format!("server {number}: request {round} is another one").into());
            }
            let answer = message(&format!("server {number}"), round, length(round + 1));
            self.write(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                    answer.len()
                )
                .as_bytes(),
            )?;
            self.write(&answer)?;
        }
        Ok(())
    }
}

fn serve(
    on: TcpListener,
    number: usize,
    config: Arc<ServerConfig>,
    truth: Arc<Truth>,
) -> Result<()> {
    let (tcp, peer) = on.accept()?;
    tcp.set_nodelay(true)?;
    let mut end = End {
        fd: tcp.as_raw_fd(),
        client: fd_of(peer)?,
        stream: StreamOwned::new(ServerConnection::new(config)?, tcp),
        truth,
        unread: Vec::new(),
    };
    end.serve(number)
}

fn ask(agent: &Agent, servers: &[SocketAddr], rounds: usize) -> Result<()> {
    for round in 0..rounds {
        for (number, server) in servers.iter().enumerate() {
            let body = message(&format!("client to {number}"), round, length(round));
            let mut response = agent
                .post(format!("https://localhost:{}/{round}", server.port()))
                .send(&body)?;
            let answer = response.body_mut().read_to_vec()?;
            if answer != message(&format!("server {number}"), round, length(round + 1)) {
                return Err(format!("server {number}: answer {round} is another one").into());
            }
        }
    }
    Ok(())
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let rounds = args.own()?.ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
    let truth = Arc::new(args.truth("")?);
    let (config, certificate) = args.tls.server()?;
    let config = Arc::new(config);
    let trusted = Certificate::from_der(&certificate).to_owned();
    let agent: Agent = Agent::config_builder()
        .ip_family(IpFamily::Ipv4Only)
        .tls_config(
            TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&[trusted]))
                .build(),
        )
        .build()
        .into();
    let mut listeners = Vec::new();
    for _ in 0..SERVERS {
        listeners.push(TcpListener::bind(("127.0.0.1", 0))?);
    }
    let addresses: std::io::Result<Vec<_>> =
        listeners.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses?;
    ready(args)?;

    let threads = listeners.into_iter().enumerate().map(|(number, listener)| {
        let (config, truth) = (config.clone(), truth.clone());
        thread::spawn(move || serve(listener, number, config, truth))
    });
    let threads: Vec<_> = threads.collect();
    ask(&agent, &addresses, rounds)?;
    drop(agent);
    for thread in threads {
        thread.join().map_err(|_| "a server panicked")??;
    }
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
