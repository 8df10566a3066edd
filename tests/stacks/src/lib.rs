// SPDX-License-Identifier: GPL-2.0-only

//! The witness: one end of a TLS connection between tokio-rustls and a library
//! for HTTP, WebSocket or SQL. In: what that library writes and reads. Out:
//! the truth file, for this end and, if it is a socket of this process too,
//! for the other end, whose library may hide all it does: each record that
//! comes was written there at once. It must never change what passes, nor
//! take two records for one.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::serve::Listener;
use rustls::{ClientConfig, ServerConfig};
use tlssnoop_rustls_targets::{Result, Truth, fd_between, message};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Payloads around the lengths at which records and buffers end.
pub fn payload(sender: &str, number: usize) -> Vec<u8> {
    const LENGTHS: [usize; 10] = [200, 1, 8192, 16383, 50, 16384, 16385, 65536, 0, 300000];

    message(sender, number, LENGTHS[number % LENGTHS.len()])
}

pub struct Witness {
    stream: TlsStream<TcpStream>,
    own: RawFd,
    peer: Option<RawFd>,
    truth: Arc<Truth>,
    /// What is left of the record that is in the truth already.
    left: usize,
}

impl Witness {
    fn new(stream: impl Into<TlsStream<TcpStream>>, truth: Arc<Truth>) -> Self {
        let mut stream = stream.into();
        // With a limit, one write could become several of any lengths.
        match &mut stream {
            TlsStream::Client(stream) => stream.get_mut().1.set_buffer_limit(None),
            TlsStream::Server(stream) => stream.get_mut().1.set_buffer_limit(None),
        }
        Self {
            own: stream.as_raw_fd(),
            stream,
            peer: None,
            truth,
            left: 0,
        }
    }

    /// Answers for the other end as well, which is in this process.
    fn for_both(mut self) -> Result<Self> {
        let tcp = self.stream.get_ref().0;
        self.peer = Some(fd_between(tcp.peer_addr()?, tcp.local_addr()?)?);
        Ok(self)
    }

    /// A client, of a server in this process.
    pub async fn connect(config: ClientConfig, to: SocketAddr, truth: Arc<Truth>) -> Result<Self> {
        let tcp = TcpStream::connect(to).await?;
        let tls = TlsConnector::from(Arc::new(config));
        let stream = tls.connect("localhost".try_into()?, tcp).await?;
        Self::new(stream, truth).for_both()
    }

    fn wrote(&self, data: &[u8]) {
        self.truth.write(self.own, data);
        if let Some(peer) = self.peer {
            self.truth.read(peer, data);
        }
    }
}

impl AsyncRead for Witness {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // One record, or what is left of it.
        let record = ready!(Pin::new(&mut this.stream).poll_fill_buf(cx))?;
        let taken = record.len().min(buf.remaining());

        if this.left == 0 {
            this.truth.read(this.own, record);
            if let Some(peer) = this.peer {
                this.truth.write(peer, record);
            }
            this.left = record.len();
        }
        this.left -= taken;
        buf.put_slice(&record[..taken]);
        Pin::new(&mut this.stream).consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Witness {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, data))?;
        self.wrote(&data[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, pieces))?;
        let data: Vec<u8> = pieces
            .iter()
            .flat_map(|piece| piece.iter())
            .copied()
            .collect();
        self.wrote(&data[..taken]);
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

/// A server's socket, on which each connection is a witness for both its ends.
pub struct Witnesses {
    listener: TcpListener,
    tls: TlsAcceptor,
    truth: Arc<Truth>,
}

impl Witnesses {
    pub fn new(
        listener: std::net::TcpListener,
        config: ServerConfig,
        truth: Arc<Truth>,
    ) -> Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            tls: TlsAcceptor::from(Arc::new(config)),
            truth,
        })
    }

    async fn accept_one(&self) -> Result<Witness> {
        let tcp = self.listener.accept().await?.0;
        tcp.set_nodelay(true)?;
        let stream = self.tls.accept(tcp).await?;
        Witness::new(stream, self.truth.clone()).for_both()
    }

    /// The next connection whose client is still there: some change their
    /// minds when another connection is free meanwhile.
    pub async fn next(&self) -> Witness {
        loop {
            if let Ok(witness) = self.accept_one().await {
                return witness;
            }
        }
    }
}

impl Listener for Witnesses {
    type Io = Witness;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Witness, SocketAddr) {
        let witness = self.next().await;
        let peer = witness.stream.get_ref().0.peer_addr();
        (witness, peer.expect("it is connected"))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What tokio-postgres asks for TLS when the server has agreed to it.
pub struct PostgresTls {
    pub config: Arc<ClientConfig>,
    pub truth: Arc<Truth>,
}

impl TlsConnect<TcpStream> for PostgresTls {
    type Stream = Witness;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Witness>> + Send>>;

    fn connect(self, tcp: TcpStream) -> Self::Future {
        Box::pin(async move {
            let tls = TlsConnector::from(self.config);
            let name = "localhost".try_into().map_err(io::Error::other)?;
            Ok(Witness::new(tls.connect(name, tcp).await?, self.truth))
        })
    }
}

impl tokio_postgres::tls::TlsStream for Witness {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
