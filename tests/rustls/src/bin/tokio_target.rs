// SPDX-License-Identifier: GPL-2.0-only

//! tokio-rustls over loopback: many connections at a time, or one after the
//! other. In: the options below. Out: the truth file of this process' ends and,
//! with --log, lines on stderr. A connection begins with its number, by which
//! both ends know what the other will send; each compares. Even connections
//! take turns, odd ones write and read at the same time in two tasks. It must
//! never put anything into the truth file after the connection's fd was closed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use tlssnoop_rustls_targets::{Args, EDGES, Result, Tls, Truth, finish, message, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, unix::pipe};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const USAGE: &str = "\
usage: tokio_target --truth FILE [OPTION...] both
       tokio_target --truth FILE [OPTION...] server CONTACT
       tokio_target --truth FILE [OPTION...] client CONTACT
  --threads N    of the runtime (1, which is one without workers)
  --conns N      connections at a time (101)
  --rounds N     messages in each direction of a connection (10)
  --short N      instead N connections one after the other, one round each
  --endless      instead small messages until another line comes on stdin; says
                 running when every connection has been used (both)
  --log          a line to stderr and one to a pipe after every write
  --decoy        the same, and what looks like a TLS record on a plain connection
  --tls 1.2|1.3  --suite aes128|aes256|chacha  --wrapped
CONTACT is a file in which the server leaves its address and certificate for the
client. Both need the same numbers.";

const READS: [usize; 4] = [100, 65536, 4096, 17000];

/// Where lines go that have nothing to do with TLS: stderr, a pipe that a
/// thread empties, and a connection on which everything looks like TLS.
struct Log {
    pipe: File,
    decoy: Option<[Mutex<std::net::TcpStream>; 2]>,
}

impl Log {
    fn new(runtime: &Runtime, decoy: bool) -> Result<Self> {
        let _within = runtime.enter();
        let (to, from) = pipe::pipe()?;
        let mut from = File::from(from.into_blocking_fd()?);
        thread::spawn(move || io::copy(&mut from, &mut io::sink()));
        Ok(Self {
            pipe: to.into_blocking_fd()?.into(),
            decoy: decoy.then(Self::decoy).transpose()?,
        })
    }

    fn decoy() -> Result<[Mutex<std::net::TcpStream>; 2]> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let client = std::net::TcpStream::connect(listener.local_addr()?)?;
        Ok([client, listener.accept()?.0].map(Mutex::new))
    }

    fn line(&self, written: usize) -> Result<()> {
        let line = format!("wrote {written} bytes\n");
        io::stderr().write_all(line.as_bytes())?;
        (&self.pipe).write_all(line.as_bytes())?;
        let Some([client, server]) = &self.decoy else {
            return Ok(());
        };
        // The very record that TLS 1.3 makes of what was written.
        let len = written.min(16384) + 17;
        let mut record = vec![0x17, 3, 3, (len >> 8) as u8, len as u8];
        record.resize(5 + len, b'x');
        let mut server = server.lock().unwrap();
        client.lock().unwrap().write_all(&record)?;
        Ok(server.read_exact(&mut record)?)
    }
}

/// What the connections of a process share.
struct Context {
    connections: usize,
    rounds: usize,
    in_turn: bool,
    endless: bool,
    stopped: AtomicBool,
    used: AtomicUsize,
    truth: Truth,
    log: Option<Log>,
}

/// One end of a connection, apart from the stream.
#[derive(Clone)]
struct End {
    context: Arc<Context>,
    fd: RawFd,
    number: usize,
}

impl End {
    fn messages(&self, side: &str) -> impl Iterator<Item = Vec<u8>> + use<> {
        // Only one connection carries the largest message.
        let edges = if self.number == 0 {
            &EDGES[..]
        } else {
            &EDGES[..EDGES.len() - 1]
        };
        let sender = format!("{side} of connection {}", self.number);
        let number = self.number;

        let endless = self.context.endless;
        (0..self.context.rounds).map(move |round| {
            let len = match number % 10 {
                _ if endless => 60 + (number * 7 + round) % 140,
                0 => edges[(number / 10 + round) % edges.len()],
                _ => 1 + (number * 7919 + round * 1237) % 3000,
            };
            message(&sender, round, len)
        })
    }

    async fn send(&self, stream: &mut (impl AsyncWrite + Unpin), mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = stream.write(data).await?;
            self.context.truth.write(self.fd, &data[..taken]);
            data = &data[taken..];
            if let Some(log) = &self.context.log {
                log.line(taken)?;
            }
        }
        Ok(stream.flush().await?)
    }

    async fn read(&self, stream: &mut (impl AsyncRead + Unpin), len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; len];
        let got = stream.read(&mut data).await?;
        data.truncate(got);
        self.context.truth.read(self.fd, &data);
        Ok(data)
    }

    async fn receive(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        mut expected: &[u8],
    ) -> Result<()> {
        while !expected.is_empty() {
            let size = READS[(self.number / 10 + self.number) % READS.len()].min(expected.len());
            let got = self.read(stream, size).await?;
            if got.is_empty() || !expected.starts_with(&got) {
                return Err(
                    format!("connection {}: wrong data on fd {}", self.number, self.fd).into(),
                );
            }
            expected = &expected[got.len()..];
        }
        Ok(())
    }

    async fn end_of(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
        if !self.read(stream, 1).await?.is_empty() {
            return Err("data behind the last message".into());
        }
        Ok(())
    }

    /// Everything behind the connection's number.
    async fn talk<S>(self, mut stream: S, me: &'static str, peer: &str) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let sent = self.messages(me);
        let expected = self.messages(peer);

        if self.context.endless {
            return self.talk_on(stream, me, sent.zip(expected)).await;
        }
        if self.number % 2 == 1 && !self.context.in_turn {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let end = self.clone();
            let sending = tokio::spawn(async move {
                for data in sent {
                    end.send(&mut writer, &data).await?;
                }
                Result::Ok(writer.shutdown().await?)
            });
            let expected: Vec<u8> = expected.flatten().collect();
            self.receive(&mut reader, &expected).await?;
            self.end_of(&mut reader).await?;
            sending.await??;
            self.context.truth.close(self.fd);
            return Ok(());
        }
        for (data, answer) in sent.zip(expected) {
            if me == "client" {
                self.send(&mut stream, &data).await?;
                self.receive(&mut stream, &answer).await?;
            } else {
                self.receive(&mut stream, &answer).await?;
                self.send(&mut stream, &data).await?;
            }
        }
        stream.shutdown().await?;
        self.end_of(&mut stream).await?;
        self.context.truth.close(self.fd);
        Ok(())
    }

    /// Until it is stopped; the client does it, behind an answer.
    async fn talk_on<S>(
        self,
        mut stream: S,
        me: &'static str,
        messages: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        for (round, (data, answer)) in messages.enumerate() {
            if me == "client" {
                if self.context.stopped.load(Relaxed) {
                    break;
                }
                self.send(&mut stream, &data).await?;
                self.receive(&mut stream, &answer).await?;
                if round == 0 {
                    self.context.used_another();
                }
            } else {
                let first = self.read(&mut stream, 1).await?;
                if first.is_empty() {
                    break;
                }
                self.receive(&mut stream, &answer[1..]).await?;
                self.send(&mut stream, &data).await?;
            }
        }
        Ok(stream.shutdown().await?)
    }
}

impl Context {
    /// Waits for the line that ends --endless.
    fn stop_on_line(self: &Arc<Self>) {
        let context = self.clone();
        thread::spawn(move || {
            // The end of stdin will do as well.
            let _ = io::stdin().read_line(&mut String::new());
            context.stopped.store(true, Relaxed);
        });
    }

    fn used_another(&self) {
        if self.used.fetch_add(1, Relaxed) + 1 == self.connections {
            println!("running");
        }
    }
}

async fn connect(
    tls: TlsConnector,
    to: SocketAddr,
    context: Arc<Context>,
    number: usize,
) -> Result<()> {
    let tcp = TcpStream::connect(to).await?;
    tcp.set_nodelay(true)?;
    let end = End {
        context,
        fd: tcp.as_raw_fd(),
        number,
    };
    let mut stream = tls.connect("localhost".try_into()?, tcp).await?;

    end.send(&mut stream, format!("{number:8}").as_bytes())
        .await?;
    end.talk(stream, "client", "server").await
}

async fn answer(tls: TlsAcceptor, tcp: TcpStream, context: Arc<Context>) -> Result<()> {
    tcp.set_nodelay(true)?;
    let mut end = End {
        context,
        fd: tcp.as_raw_fd(),
        number: 0,
    };
    let mut stream = tls.accept(tcp).await?;
    let mut name = Vec::new();

    while name.len() < 8 {
        let got = end.read(&mut stream, 8 - name.len()).await?;
        if got.is_empty() {
            return Err("a connection without a number".into());
        }
        name.extend(got);
    }
    end.number = String::from_utf8(name)?.trim().parse()?;
    end.talk(stream, "server", "client").await
}

async fn all(mut tasks: JoinSet<Result<()>>) -> Result<()> {
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(())
}

async fn client(tls: TlsConnector, to: SocketAddr, context: Arc<Context>) -> Result<()> {
    let mut tasks = JoinSet::new();

    for number in 0..context.connections {
        let connection = connect(tls.clone(), to, context.clone(), number);
        if context.in_turn {
            connection.await?;
        } else {
            tasks.spawn(connection);
        }
    }
    all(tasks).await
}

async fn server(tls: TlsAcceptor, on: TcpListener, context: Arc<Context>) -> Result<()> {
    let mut tasks = JoinSet::new();

    for _ in 0..context.connections {
        let connection = answer(tls.clone(), on.accept().await?.0, context.clone());
        if context.in_turn {
            connection.await?;
        } else {
            tasks.spawn(connection);
        }
    }
    all(tasks).await
}

fn listen(
    runtime: &Runtime,
    tls: &Tls,
) -> Result<(TlsAcceptor, CertificateDer<'static>, TcpListener)> {
    let (config, certificate) = tls.server()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    Ok((TlsAcceptor::from(Arc::new(config)), certificate, listener))
}

fn connector(tls: &Tls, server: CertificateDer<'static>) -> Result<TlsConnector> {
    Ok(TlsConnector::from(Arc::new(tls.client(server)?)))
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let mut threads = 1;
    let (mut connections, mut rounds, mut in_turn) = (101, 10, false);
    let (mut chatty, mut decoy, mut endless) = (false, false, false);
    let mode = loop {
        let option = args.own()?.ok_or(USAGE)?;
        match option.as_str() {
            "--threads" => threads = args.number("--threads")?,
            "--conns" => connections = args.number("--conns")?,
            "--rounds" => rounds = args.number("--rounds")?,
            "--short" => (connections, rounds, in_turn) = (args.number("--short")?, 1, true),
            "--endless" => (connections, rounds, endless) = (50, usize::MAX, true),
            "--log" => chatty = true,
            "--decoy" => (chatty, decoy) = (true, true),
            _ => break option,
        }
    };

    let runtime = match threads {
        1 => Builder::new_current_thread().enable_io().build()?,
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_io()
            .build()?,
    };
    let context = Arc::new(Context {
        connections,
        rounds,
        in_turn,
        endless,
        stopped: AtomicBool::default(),
        used: AtomicUsize::default(),
        truth: args.truth("")?,
        log: chatty.then(|| Log::new(&runtime, decoy)).transpose()?,
    });
    match mode.as_str() {
        "both" => {
            let (acceptor, certificate, listener) = listen(&runtime, &args.tls)?;
            let address = listener.local_addr()?;
            let connector = connector(&args.tls, certificate)?;
            ready(args)?;
            if endless {
                context.stop_on_line();
            }
            runtime.block_on(async {
                let server = tokio::spawn(server(acceptor, listener, context.clone()));
                client(connector, address, context.clone()).await?;
                server.await?
            })?;
        }
        "server" => {
            let (acceptor, certificate, listener) = listen(&runtime, &args.tls)?;
            let mut contact = listener.local_addr()?.to_string().into_bytes();
            contact.push(b'\n');
            contact.extend_from_slice(&certificate);
            fs::write(args.value("server")?, contact)?;
            ready(args)?;
            runtime.block_on(server(acceptor, listener, context.clone()))?;
        }
        "client" => {
            let contact = fs::read(args.value("client")?)?;
            let mut parts = contact.splitn(2, |&byte| byte == b'\n');
            let address = std::str::from_utf8(parts.next().unwrap_or_default())?.parse()?;
            let connector = connector(&args.tls, parts.next().unwrap_or_default().to_vec().into())?;
            ready(args)?;
            runtime.block_on(client(connector, address, context.clone()))?;
        }
        _ => return Err(USAGE.into()),
    }
    context.truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
