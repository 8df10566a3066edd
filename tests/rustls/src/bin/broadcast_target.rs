// SPDX-License-Identifier: GPL-2.0-only

//! The same bytes for many connections: one thread writes each message, from
//! one place in memory, to all of them in turn, so that their records have the
//! same sequence number, address and length, with two cipher suites. In: the
//! options below. Out: the truth file of both ends. It must never send a
//! message for the first time to several connections before one is flushed:
//! nothing could tell then whose is whose.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use tlssnoop_rustls_targets::{Args, Result, Truth, finish, message, ready};

const USAGE: &str = "\
usage: broadcast_target --truth FILE [--tls 1.2|1.3] [--wrapped]";

const CONNECTIONS: usize = 13;
const MESSAGES: usize = 7;
const LEN: usize = 1009;

fn client(to: SocketAddr, configs: [Arc<ClientConfig>; 2], truth: &Truth) -> Result<()> {
    let mut ends = Vec::new();

    for number in 0..CONNECTIONS {
        let conn = ClientConnection::new(configs[number % 2].clone(), "localhost".try_into()?)?;
        let mut end = StreamOwned::new(conn, TcpStream::connect(to)?);
        while end.conn.is_handshaking() {
            end.conn.complete_io(&mut end.sock)?;
        }
        ends.push(end);
    }
    for number in 0..MESSAGES {
        let data = message("everybody", number, LEN);
        for end in &mut ends {
            let taken = end.conn.writer().write(&data)?;
            truth.write(end.sock.as_raw_fd(), &data[..taken]);
            if number % 2 == 0 {
                end.flush()?;
            }
        }
        for end in &mut ends {
            end.flush()?;
        }
    }
    for end in &mut ends {
        end.conn.send_close_notify();
        end.flush()?;
        if end.read(&mut [0])? != 0 {
            return Err("the server sent data".into());
        }
    }
    Ok(())
}

fn server(on: TcpListener, config: Arc<ServerConfig>, truth: &Truth) -> Result<()> {
    let mut ends = Vec::new();

    for _ in 0..CONNECTIONS {
        let conn = ServerConnection::new(config.clone())?;
        let mut end = StreamOwned::new(conn, on.accept()?.0);
        while end.conn.is_handshaking() {
            end.conn.complete_io(&mut end.sock)?;
        }
        ends.push(end);
    }
    for end in &mut ends {
        let mut data = Vec::new();
        let got = end.read_to_end(&mut data)?;
        truth.read(end.sock.as_raw_fd(), &data);
        if got != MESSAGES * LEN {
            return Err(format!("{got} bytes came").into());
        }
        end.conn.send_close_notify();
        end.flush()?;
    }
    Ok(())
}

fn run() -> Result<()> {
    let mut args = Args::default();
    if args.own()?.is_some() {
        return Err(USAGE.into());
    }
    let truth = Arc::new(args.truth("")?);
    let (server_config, certificate) = args.tls.server()?;
    let configs = [
        args.tls.with_suite("AES_128").client(certificate.clone())?,
        args.tls.with_suite("CHACHA20").client(certificate)?,
    ]
    .map(Arc::new);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    ready(args)?;

    let server_truth = truth.clone();
    let server = thread::spawn(move || server(listener, server_config.into(), &server_truth));
    client(address, configs, &truth)?;
    server.join().unwrap_or_else(|_| Err("panicked".into()))?;
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
