// SPDX-License-Identifier: GPL-2.0-only

//! Blocking rustls over loopback: a client and a server thread in one process.
//! In: the options below. Out: the truth file of both ends. The client's
//! messages go first, then the server's, so that neither thread waits for a
//! peer that does not read. Each end compares what it reads with what the other
//! was to send. It must never write nothing through a blocking stream: rustls
//! then waits for input.

use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use rustls::{ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection};
use rustls::{SideData, Stream, StreamOwned};
use tlssnoop_rustls_targets::{Args, EDGES, Result, Truth, finish, message, ready};

const USAGE: &str = "\
usage: std_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] [--wrapped] MODE
  edges        lengths around the sizes of buffers and records, and none at all
  bulk N LEN   N messages of LEN bytes in each direction
  vectored     write_vectored with 2 to 67 pieces, some of them empty, without a buffer limit
  limit        a buffer limit, so that a write takes less than it was offered
  before       data written before the handshake
  rekey        new keys after every 7 messages (TLS 1.3)
  early        early data on a resumed connection (TLS 1.3)
  panic        a panic inside rustls' I/O, caught; needs a build that unwinds";

const PIECES: [usize; 5] = [2, 3, 7, 64, 67];
const LIMITS: [usize; 6] = [1, 100, 16383, 16384, 16385, 40000];
const EARLY: [usize; 4] = [17, 1, 16384, 16385];
const READS: [usize; 4] = [65536, 1, 8192, 100];

#[derive(Clone, Copy, PartialEq)]
enum How {
    Plain,
    Vectored,
    Limited,
    Before,
    Rekeyed,
    Panicking,
}

/// What each end sends, and in which way.
struct Plan {
    lengths: Vec<usize>,
    how: How,
    early: bool,
}

impl Plan {
    fn new(mode: &str, args: &mut Args) -> Result<Self> {
        let (lengths, how) = match mode {
            "edges" => (EDGES.iter().copied().chain([0, 7]).collect(), How::Plain),
            "bulk" => {
                let (count, len) = (args.number("N")?, args.number("LEN")?);
                (vec![len; count], How::Plain)
            }
            "vectored" => {
                // In the last, a record begins at 0x40000, which looks like a version.
                let totals = [50, 16383, 16384, 16385, 40000, 300000];
                (
                    totals
                        .iter()
                        .flat_map(|&total| vec![total; PIECES.len()])
                        .collect(),
                    How::Vectored,
                )
            }
            "limit" => (vec![20, 1000, 65536, 65536, 65536, 100000], How::Limited),
            "before" => (vec![20, 1, 16384, 16385], How::Before),
            "rekey" => (vec![1000; 101], How::Rekeyed),
            "early" => (vec![1000; 3], How::Plain),
            "panic" => (vec![1000; 31], How::Panicking),
            _ => return Err(USAGE.into()),
        };
        Ok(Self {
            lengths,
            how,
            early: mode == "early",
        })
    }

    fn connections(&self) -> usize {
        if self.early { 2 } else { 1 }
    }
}

/// The TCP connection, with a trap that panics once in the next I/O.
struct Wire {
    tcp: TcpStream,
    trap: bool,
}

impl Wire {
    fn new(tcp: TcpStream) -> Result<Self> {
        tcp.set_nodelay(true)?;
        Ok(Self { tcp, trap: false })
    }

    fn pass(&mut self) -> &mut TcpStream {
        if std::mem::take(&mut self.trap) {
            panic!("the trap in the connection");
        }
        &mut self.tcp
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.pass().read(buf)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.pass().write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> std::io::Result<usize> {
        self.pass().write_vectored(bufs)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.tcp.flush()
    }
}

/// One end of one connection.
struct End<C, S>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    tls: StreamOwned<C, Wire>,
    fd: RawFd,
    truth: Arc<Truth>,
}

impl<C, S> End<C, S>
where
    C: DerefMut + Deref<Target = ConnectionCommon<S>>,
    S: SideData,
{
    fn new(conn: C, tcp: TcpStream, truth: Arc<Truth>) -> Result<Self> {
        let fd = tcp.as_raw_fd();
        Ok(Self {
            tls: StreamOwned::new(conn, Wire::new(tcp)?),
            fd,
            truth,
        })
    }

    /// Offers `data` to rustls without any I/O.
    fn offer(&mut self, data: &[u8]) -> Result<usize> {
        let taken = self.tls.conn.writer().write(data)?;
        self.truth.write(self.fd, &data[..taken]);
        Ok(taken)
    }

    fn write_all(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = self.tls.write(data)?;
            self.truth.write(self.fd, &data[..taken]);
            data = &data[taken..];
        }
        Ok(())
    }

    fn write_pieces(&mut self, number: usize, data: &[u8]) -> Result<()> {
        self.tls.conn.set_buffer_limit(None);
        let count = PIECES[number % PIECES.len()];
        let weights = (0..count).map(|i| (i * 3 + number / PIECES.len()) % 5);
        let sum: usize = weights.clone().sum();
        let mut rest = data;
        let mut pieces = Vec::new();

        for weight in weights.skip(1) {
            let (piece, behind) = rest.split_at(data.len() * weight / sum);
            pieces.push(IoSlice::new(piece));
            rest = behind;
        }
        pieces.push(IoSlice::new(rest));

        let mut pieces = &mut pieces[..];
        let mut sent = 0;
        while sent < data.len() {
            // StreamOwned would write the first piece only.
            let mut stream = Stream::new(&mut self.tls.conn, &mut self.tls.sock);
            let taken = stream.write_vectored(pieces)?;
            self.truth.write(self.fd, &data[sent..sent + taken]);
            IoSlice::advance_slices(&mut pieces, taken);
            sent += taken;
        }
        Ok(())
    }

    fn write_limited(&mut self, limit: usize, mut data: &[u8]) -> Result<()> {
        self.tls.conn.set_buffer_limit(Some(limit));
        while !data.is_empty() {
            let taken = self.offer(data)?;
            if taken != data.len().min(limit) {
                return Err(format!("a limit of {limit} let {taken} bytes in").into());
            }
            data = &data[taken..];
            self.tls.flush()?;
        }
        Ok(())
    }

    /// A panic at each of the places where one can pass through a write.
    fn write_panicking(&mut self, number: usize, data: &[u8]) -> Result<()> {
        let (early, late) = data.split_at(data.len() / 2);

        match number % 3 {
            // In the I/O of flush, when the data has been taken.
            0 => {
                self.offer(data)?;
                self.survive(|tls| tls.flush())?;
            }
            // In the I/O at the beginning of write, so that it takes nothing.
            1 => {
                self.offer(early)?;
                self.survive(|tls| tls.write(late))?;
                self.write_all(late)?;
            }
            // In the I/O at the end of write, which has taken everything.
            _ => {
                self.survive(|tls| tls.write(data))?;
                self.truth.write(self.fd, data);
            }
        }
        Ok(self.tls.flush()?)
    }

    fn survive<R>(&mut self, call: impl FnOnce(&mut StreamOwned<C, Wire>) -> R) -> Result<()> {
        self.tls.sock.trap = true;
        match panic::catch_unwind(AssertUnwindSafe(|| call(&mut self.tls))) {
            Ok(_) => Err("the trap in the connection did not panic".into()),
            Err(_) => Ok(()),
        }
    }

    fn send(&mut self, me: &str, plan: &Plan) -> Result<()> {
        for (number, &len) in plan.lengths.iter().enumerate() {
            let data = message(me, number, len);
            match plan.how {
                How::Plain if len == 0 => drop(self.offer(&data)?),
                How::Plain => self.write_all(&data)?,
                How::Vectored => self.write_pieces(number, &data)?,
                How::Limited => self.write_limited(LIMITS[number % LIMITS.len()], &data)?,
                How::Before => drop(self.offer(&data)?),
                How::Rekeyed => {
                    if number % 7 == 6 {
                        self.tls.conn.refresh_traffic_keys()?;
                    }
                    self.write_all(&data)?;
                }
                How::Panicking => self.write_panicking(number, &data)?,
            }
        }
        Ok(self.tls.flush()?)
    }

    fn receive(&mut self, peer: &str, plan: &Plan) -> Result<()> {
        let numbered = plan.lengths.iter().enumerate();
        let expected: Vec<u8> = numbered
            .flat_map(|(number, &len)| message(peer, number, len))
            .collect();
        let mut rest = &expected[..];

        for size in READS.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            // Only a read that has nothing in stock does I/O.
            if plan.how == How::Panicking && self.tls.conn.wants_read() {
                self.survive(|tls| tls.read(&mut [0]))?;
            }
            let mut buf = vec![0; size];
            let got = self.tls.read(&mut buf)?;
            self.truth.read(self.fd, &buf[..got]);
            if got == 0 || !rest.starts_with(&buf[..got]) {
                return Err(
                    format!("{peer}: wrong data, {} bytes before the end", rest.len()).into(),
                );
            }
            rest = &rest[got..];
        }
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        self.tls.conn.send_close_notify();
        self.tls.flush()?;
        if self.tls.read(&mut [0])? != 0 {
            return Err("data behind the last message".into());
        }
        self.truth.close(self.fd);
        Ok(())
    }
}

fn client(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    plan: Arc<Plan>,
    truth: Arc<Truth>,
) -> Result<()> {
    for resumed in 0..plan.connections() {
        let conn = ClientConnection::new(config.clone(), "localhost".try_into()?)?;
        let mut end = End::new(conn, TcpStream::connect(to)?, truth.clone())?;
        if resumed == 1 {
            for (number, &len) in EARLY.iter().enumerate() {
                let data = message("early", number, len);
                let taken = end
                    .tls
                    .conn
                    .early_data()
                    .ok_or("no early data offered")?
                    .write(&data)?;
                truth.write(end.fd, &data[..taken]);
            }
        }
        end.send("client", &plan)?;
        if resumed == 1 && !end.tls.conn.is_early_data_accepted() {
            return Err("the early data was not accepted".into());
        }
        end.receive("server", &plan)?;
        end.close()?;
    }
    Ok(())
}

fn server(
    on: TcpListener,
    config: Arc<ServerConfig>,
    plan: Arc<Plan>,
    truth: Arc<Truth>,
) -> Result<()> {
    for resumed in 0..plan.connections() {
        let conn = ServerConnection::new(config.clone())?;
        let mut end = End::new(conn, on.accept()?.0, truth.clone())?;
        while end.tls.conn.is_handshaking() {
            end.tls.conn.complete_io(&mut end.tls.sock)?;
        }
        if resumed == 1 {
            let mut early = end.tls.conn.early_data().ok_or("no early data came")?;
            let mut buf = [0; 4096];
            loop {
                let got = early.read(&mut buf)?;
                if got == 0 {
                    break;
                }
                truth.read(end.fd, &buf[..got]);
            }
        }
        end.receive("client", &plan)?;
        end.send("server", &plan)?;
        end.close()?;
    }
    Ok(())
}

fn spawn(
    name: &str,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<thread::JoinHandle<Result<()>>> {
    Ok(thread::Builder::new().name(name.to_string()).spawn(work)?)
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let mode = args.own()?.ok_or(USAGE)?;
    let plan = Arc::new(Plan::new(&mode, &mut args)?);
    if plan.how == How::Panicking {
        if cfg!(panic = "abort") {
            return Err("panic: this build aborts on a panic".into());
        }
        panic::set_hook(Box::new(|_| ()));
    }

    let truth = Arc::new(args.truth("")?);
    let (mut server_config, certificate) = args.tls.server()?;
    let mut client_config = args.tls.client(certificate)?;
    if plan.early {
        server_config.max_early_data_size = 65536;
        client_config.enable_early_data = true;
    }
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    ready(args)?;

    let (server_plan, server_truth) = (plan.clone(), truth.clone());
    let server = spawn("server", move || {
        server(listener, server_config.into(), server_plan, server_truth)
    })?;
    let client_truth = truth.clone();
    let client = spawn("client", move || {
        client(address, client_config.into(), plan, client_truth)
    })?;

    // The client first: if it fails the server may wait for it for ever.
    for (name, end) in [("client", client), ("server", server)] {
        let result = end.join().unwrap_or_else(|_| Err("panicked".into()));
        result.map_err(|why| format!("{name}: {why}"))?;
    }
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
