// SPDX-License-Identifier: GPL-2.0-only

//! TLS within TLS over loopback, both layers rustls, on one thread: what HTTPS
//! through an HTTPS proxy is to a client. In: the options below. Out: a truth
//! file for the outer layer, whose plaintext is the records of the inner one,
//! and one for the inner layer. It must never tell more of a layer than what
//! that layer accepted or returned.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, ready as try_ready};

use tlssnoop_rustls_targets::{Args, Result, Truth, finish, message, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const USAGE: &str = "\
usage: tunnel_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] [--wrapped] N
N connections at a time, each with both ends; FILE.inner gets the inner layer's.";

const LENGTHS: [usize; 9] = [100, 1, 16384, 5000, 16385, 100, 65536, 16362, 200];

/// A stream that writes down what it accepts and returns.
struct Recorded<S> {
    stream: S,
    fd: RawFd,
    truth: Arc<Truth>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Recorded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        try_ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.truth.read(self.fd, &buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Recorded<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = try_ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        let data: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        self.truth.write(self.fd, &data[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The two layers' truths.
struct Truths {
    outer: Arc<Truth>,
    inner: Arc<Truth>,
}

impl Truths {
    fn outer<S>(&self, fd: RawFd, stream: S) -> Recorded<S> {
        let truth = self.outer.clone();
        Recorded { stream, fd, truth }
    }

    fn inner<S>(&self, fd: RawFd, stream: S) -> Recorded<S> {
        let truth = self.inner.clone();
        Recorded { stream, fd, truth }
    }

    fn close(&self, fd: RawFd) {
        self.outer.close(fd);
        self.inner.close(fd);
    }
}

/// The client's message goes first; "number" is in it, and the server learns it.
async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    number: usize,
    client: bool,
) -> Result<()> {
    let (me, peer) = if client {
        ("client", "server")
    } else {
        ("server", "client")
    };
    for (round, len) in LENGTHS.into_iter().enumerate() {
        let sent = message(&format!("{me} of tunnel {number}"), round, len);
        let expected = message(&format!("{peer} of tunnel {number}"), round, len);
        let mut got = vec![0; len];

        if client {
            stream.write_all(&sent).await?;
            stream.flush().await?;
        }
        stream.read_exact(&mut got).await?;
        if got != expected {
            return Err(format!("tunnel {number}: the {me} got another message {round}").into());
        }
        if !client {
            stream.write_all(&sent).await?;
            stream.flush().await?;
        }
    }
    Ok(())
}

async fn client(
    tls: TlsConnector,
    to: SocketAddr,
    number: usize,
    truths: Arc<Truths>,
) -> Result<()> {
    let tcp = TcpStream::connect(to).await?;
    let fd = tcp.as_raw_fd();

    tcp.set_nodelay(true)?;
    let outer = tls.connect("localhost".try_into()?, tcp).await?;
    let outer = truths.outer(fd, outer);
    let inner = tls.connect("localhost".try_into()?, outer).await?;
    let mut inner = truths.inner(fd, inner);
    inner.write_u32(number.try_into()?).await?;
    talk(&mut inner, number, true).await?;
    inner.shutdown().await?;
    truths.close(fd);
    Ok(())
}

async fn server(tls: TlsAcceptor, tcp: TcpStream, truths: Arc<Truths>) -> Result<()> {
    let fd = tcp.as_raw_fd();

    tcp.set_nodelay(true)?;
    let outer = truths.outer(fd, tls.accept(tcp).await?);
    let mut inner = truths.inner(fd, tls.accept(outer).await?);
    let number = inner.read_u32().await?;
    talk(&mut inner, number.try_into()?, false).await?;
    if inner.read(&mut [0]).await? != 0 {
        return Err("data behind the last message".into());
    }
    truths.close(fd);
    Ok(())
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let count = args.own()?.ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
    let truths = Arc::new(Truths {
        outer: Arc::new(args.truth("")?),
        inner: Arc::new(args.truth(".inner")?),
    });
    let (server_config, certificate) = args.tls.server()?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config));
    let connector = TlsConnector::from(Arc::new(args.tls.client(certificate)?));
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
    let address = listener.local_addr()?;
    ready(args)?;

    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            tasks.spawn(client(connector.clone(), address, number, truths.clone()));
        }
        for _ in 0..count {
            let tcp = listener.accept().await?.0;
            tasks.spawn(server(acceptor.clone(), tcp, truths.clone()));
        }
        while let Some(task) = tasks.join_next().await {
            task??;
        }
        Result::Ok(())
    })?;
    truths.outer.save()?;
    truths.inner.save()
}

fn main() -> ExitCode {
    finish(run())
}
