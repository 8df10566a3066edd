// SPDX-License-Identifier: GPL-2.0-only

//! The part of the matrix programs that is the same for each generation of
//! rustls: one connection after the other over loopback, with each provider,
//! version of TLS and cipher, client and server in one process. In: a
//! certificate and its key, both DER. Out: the truth file of both ends. Each end
//! compares what it reads with what the other was to send. It must compile with
//! rustc 1.63 and never call rustls itself.

#[path = "../../rustls/src/target.rs"]
#[allow(dead_code)] // other targets need more of it
mod target;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::io::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use target::{finish, message, ready, Args, Truth, EDGES};
pub use target::{Result, Version};

const USAGE: &str = "usage: matrix_target --truth FILE CERTIFICATE KEY";

pub const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];
const SUITES: [&str; 2] = ["AES_128", "CHACHA20"];
/// More than rustls buffers, if it has a limit.
const LONGEST: usize = 200_001;
const READS: [usize; 4] = [65536, 1, 8192, 100];

/// What a connection is to be made of.
#[derive(Clone)]
pub struct Session {
    /// One of the names that the program gave to run().
    pub provider: &'static str,
    pub version: Version,
    /// What the names of its cipher suites contain.
    pub suite: &'static str,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// One end of a TLS connection.
pub trait Stream: Read + Write {
    /// Says that nothing more will be written; no more than reads may follow.
    fn close(&mut self) -> Result<()>;

    /// The plaintext lengths of the records that a write made of `taken` bytes, unless all but
    /// the last are as long as TLS allows.
    fn records(&mut self, taken: usize) -> Vec<usize> {
        vec![taken]
    }
}

pub type Open = fn(&Session, TcpStream) -> Result<Box<dyn Stream>>;

/// A role in a connection and how rustls takes it.
#[derive(Clone, Copy)]
struct Role {
    me: &'static str,
    peer: &'static str,
    open: Open,
}

fn lengths() -> impl Iterator<Item = usize> {
    EDGES
        .into_iter()
        .filter(|&len| len < LONGEST)
        .chain([LONGEST, 7])
}

/// The messages of one end in one session, which no other has.
fn messages(sender: &str, session: &Session) -> Vec<Vec<u8>> {
    let tls = if session.version == Version::Tls12 {
        "1.2"
    } else {
        "1.3"
    };
    let sender = format!("{sender} {} {tls} {}", session.provider, session.suite);

    lengths()
        .enumerate()
        .map(|(number, len)| message(&sender, number, len))
        .collect()
}

fn send(role: Role, session: &Session, end: &mut End) -> Result<()> {
    for data in messages(role.me, session) {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let taken = end.tls.write(rest)?;
            for len in end.tls.records(taken) {
                let (record, behind) = rest.split_at(len);
                end.truth.write(end.fd, record);
                rest = behind;
            }
        }
    }
    Ok(end.tls.flush()?)
}

fn receive(role: Role, session: &Session, end: &mut End) -> Result<()> {
    let expected = messages(role.peer, session).concat();
    let mut rest = &expected[..];

    for size in READS.into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let mut buf = vec![0; size];
        let got = end.tls.read(&mut buf)?;
        end.truth.read(end.fd, &buf[..got]);
        if got == 0 || !rest.starts_with(&buf[..got]) {
            return Err(format!("wrong data, {} bytes before the end", rest.len()).into());
        }
        rest = &rest[got..];
    }
    Ok(())
}

struct End {
    tls: Box<dyn Stream>,
    fd: i32,
    truth: Arc<Truth>,
}

/// The client's messages first, then the server's: no end waits for one that does not read.
fn talk(role: Role, session: &Session, tcp: TcpStream, truth: Arc<Truth>) -> Result<()> {
    tcp.set_nodelay(true)?;
    let fd = tcp.as_raw_fd();
    let mut end = End {
        tls: (role.open)(session, tcp)?,
        fd,
        truth,
    };

    if role.me == "client" {
        send(role, session, &mut end)?;
        receive(role, session, &mut end)?;
    } else {
        receive(role, session, &mut end)?;
        send(role, session, &mut end)?;
    }
    end.tls.close()?;
    match end.tls.read(&mut [0]) {
        Ok(0) => (),
        // rustls 0.19 says so
        Err(why) if why.kind() == io::ErrorKind::ConnectionAborted => (),
        Ok(_) => return Err("data behind the last message".into()),
        Err(why) => return Err(why.into()),
    }
    end.truth.close(fd);
    Ok(())
}

fn sessions(
    providers: &[&'static str],
    versions: &[Version],
    certificate: &[u8],
    key: &[u8],
) -> Vec<Session> {
    let mut sessions = Vec::new();

    for &provider in providers {
        for &version in versions {
            for suite in SUITES {
                let (certificate, key) = (certificate.to_vec(), key.to_vec());
                sessions.push(Session {
                    provider,
                    version,
                    suite,
                    certificate,
                    key,
                });
            }
        }
    }
    sessions
}

fn exchange(
    providers: &[&'static str],
    versions: &[Version],
    client: Open,
    server: Open,
) -> Result<()> {
    let mut args = Args::default();
    let certificate = fs::read(args.own()?.ok_or(USAGE)?)?;
    let key = fs::read(args.own()?.ok_or(USAGE)?)?;
    let truth = Arc::new(args.truth("")?);
    let sessions = sessions(providers, versions, &certificate, &key);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    ready(args)?;

    let client = Role {
        me: "client",
        peer: "server",
        open: client,
    };
    let server = Role {
        me: "server",
        peer: "client",
        open: server,
    };
    for session in &sessions {
        let (at, theirs) = (session.clone(), truth.clone());
        let tcp = TcpStream::connect(address)?;
        let accepted = listener.accept()?.0;
        let other = thread::spawn(move || talk(server, &at, accepted, theirs));
        // If this end fails, the socket closes and the other ends as well.
        let mine = talk(client, session, tcp, truth.clone());
        let other = other.join().unwrap_or_else(|_| Err("panicked".into()));
        for (end, result) in [("client", mine), ("server", other)] {
            let of = format!("{end}, {}, {}", session.provider, session.suite);
            result.map_err(|why| format!("{of}: {why}"))?;
        }
    }
    truth.save()
}

/// The whole program. Where a version comes twice, its sessions come again.
pub fn run(
    providers: &[&'static str],
    versions: &[Version],
    client: Open,
    server: Open,
) -> ExitCode {
    finish(exchange(providers, versions, client, server))
}
