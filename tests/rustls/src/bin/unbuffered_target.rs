// SPDX-License-Identifier: GPL-2.0-only

//! rustls without buffers of its own over loopback: the program keeps what comes
//! and what goes, and asks what is to be done next. A client and a server thread
//! in one process. In: the options below. Out: the truth file of both ends. The
//! client's messages go first, then the server's; each end compares what it reads
//! with what the other was to send. It must never ask rustls for more before it has
//! done what was asked for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use tlssnoop_rustls_targets::{Args, EDGES, Result, Truth, finish, message, ready};

const USAGE: &str = "\
usage: unbuffered_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] [--wrapped]";

const READ: usize = 4099;

/// What the two kinds of connections have in common.
trait Connection {
    type Data;
    fn next<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn next<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn next<'c, 'i>(&'c mut self, received: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(received)
    }
}

/// Lets `fill` put bytes at the end of `buf`, with as much room as it says it needs.
fn grow(
    buf: &mut Vec<u8>,
    mut fill: impl FnMut(&mut [u8]) -> std::result::Result<usize, Option<usize>>,
) -> Result<()> {
    let (used, mut room) = (buf.len(), 0);
    loop {
        buf.resize(used + room, 0);
        match fill(&mut buf[used..]) {
            Ok(filled) => {
                buf.truncate(used + filled);
                return Ok(());
            }
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => return Err("rustls encodes nothing".into()),
        }
    }
}

struct End<C> {
    conn: C,
    tcp: TcpStream,
    received: Vec<u8>,
    to_send: Vec<u8>,
    /// Messages that are not sent yet.
    messages: Vec<Vec<u8>>,
    /// What is still to be read.
    expected: Vec<u8>,
    reads_first: bool,
    truth: Arc<Truth>,
}

impl<C: Connection> End<C> {
    fn new(conn: C, tcp: TcpStream, me: &str, peer: &str, truth: Arc<Truth>) -> Result<Self> {
        let messages = |of: &str| {
            EDGES
                .iter()
                .enumerate()
                .map(|(n, &len)| message(of, n, len))
                .collect()
        };
        let expected: Vec<Vec<u8>> = messages(peer);
        let mut own: Vec<Vec<u8>> = messages(me);
        own.reverse();
        tcp.set_nodelay(true)?;
        Ok(Self {
            conn,
            tcp,
            received: Vec::new(),
            to_send: Vec::new(),
            messages: own,
            expected: expected.concat(),
            reads_first: me == "server",
            truth,
        })
    }

    /// One step of the connection; false: it is over.
    fn step(&mut self, closing: &mut bool) -> Result<bool> {
        let fd = self.tcp.as_raw_fd();
        let mut receive = false;
        let mut over = false;
        let UnbufferedStatus {
            mut discard, state, ..
        } = self.conn.next(&mut self.received);

        match state? {
            ConnectionState::EncodeTlsData(mut state) => {
                grow(&mut self.to_send, |room| {
                    state.encode(room).map_err(|why| match why {
                        EncodeError::InsufficientSize(why) => Some(why.required_size),
                        _ => None,
                    })
                })?;
            }
            ConnectionState::TransmitTlsData(state) => {
                self.tcp.write_all(&self.to_send)?;
                self.to_send.clear();
                state.done();
            }
            ConnectionState::BlockedHandshake => receive = true,
            ConnectionState::ReadTraffic(mut state) => {
                while let Some(record) = state.next_record() {
                    let record = record?;
                    discard += record.discard;
                    self.truth.read(fd, record.payload);
                    if !self.expected.starts_with(record.payload) {
                        return Err("wrong data".into());
                    }
                    self.expected.drain(..record.payload.len());
                }
            }
            ConnectionState::WriteTraffic(mut state) => {
                let mut encrypt = |data: Option<&[u8]>| {
                    grow(&mut self.to_send, |room| {
                        let result = match data {
                            Some(data) => state.encrypt(data, room),
                            None => state.queue_close_notify(room),
                        };
                        result.map_err(|why| match why {
                            EncryptError::InsufficientSize(why) => Some(why.required_size),
                            _ => None,
                        })
                    })
                };
                if self.reads_first && !self.expected.is_empty() {
                    receive = true;
                } else if let Some(data) = self.messages.pop() {
                    encrypt(Some(&data))?;
                    self.truth.write(fd, &data);
                } else if self.expected.is_empty() && !*closing {
                    encrypt(None)?;
                    *closing = true;
                } else {
                    receive = true;
                }
                self.tcp.write_all(&self.to_send)?;
                self.to_send.clear();
            }
            ConnectionState::PeerClosed => (),
            ConnectionState::Closed => over = true,
            state => return Err(format!("not expected: {state:?}").into()),
        }
        self.received.drain(..discard);
        if receive {
            let used = self.received.len();
            self.received.resize(used + READ, 0);
            let got = self.tcp.read(&mut self.received[used..])?;
            self.received.truncate(used + got);
            if got == 0 {
                return Err("the connection ended early".into());
            }
        }
        Ok(!over)
    }

    fn run(mut self) -> Result<()> {
        let mut closing = false;
        while self.step(&mut closing)? {}
        if !self.expected.is_empty() {
            return Err(format!("{} bytes did not come", self.expected.len()).into());
        }
        self.truth.close(self.tcp.as_raw_fd());
        Ok(())
    }
}

fn client(to: SocketAddr, config: Arc<ClientConfig>, truth: Arc<Truth>) -> Result<()> {
    let conn = UnbufferedClientConnection::new(config, "localhost".try_into()?)?;
    End::new(conn, TcpStream::connect(to)?, "client", "server", truth)?.run()
}

fn server(on: TcpListener, config: Arc<ServerConfig>, truth: Arc<Truth>) -> Result<()> {
    let conn = UnbufferedServerConnection::new(config)?;
    End::new(conn, on.accept()?.0, "server", "client", truth)?.run()
}

fn run() -> Result<()> {
    let mut args = Args::default();
    if args.own()?.is_some() {
        return Err(USAGE.into());
    }
    let truth = Arc::new(args.truth("")?);
    let (server_config, certificate) = args.tls.server()?;
    let client_config = args.tls.client(certificate)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    ready(args)?;

    let server_truth = truth.clone();
    let server = thread::spawn(move || server(listener, server_config.into(), server_truth));
    client(address, client_config.into(), truth.clone())?;
    server.join().unwrap_or_else(|_| Err("panicked".into()))?;
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
