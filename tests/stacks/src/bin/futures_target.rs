// SPDX-License-Identifier: GPL-2.0-only

//! futures-rustls over loopback: both ends of many connections on one thread
//! of smol. In: the number of connections. Out: the truth file. The client's
//! first message names the connection; each end knows what the other sends and
//! compares. It must never put anything into the truth file that a call did
//! not accept or return.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use futures_rustls::{TlsAcceptor, TlsConnector};
use futures_util::future::{join, try_join_all};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::{Async, LocalExecutor};
use tlssnoop_rustls_targets::{Args, Result, Truth, finish, message, ready};

const USAGE: &str =
    "usage: futures_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] N";
const ROUNDS: usize = 11;
const READS: [usize; 4] = [100, 65536, 4096, 17000];

/// One end of a connection, apart from the stream.
struct End {
    truth: Rc<Truth>,
    fd: RawFd,
    number: usize,
}

impl End {
    fn message(&self, side: &str, round: usize) -> Vec<u8> {
        let len = match round % 4 {
            3 => 20000,
            _ => 200,
        };
        message(&format!("{side} of connection {}", self.number), round, len)
    }

    async fn send(&self, stream: &mut (impl AsyncWrite + Unpin), mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = stream.write(data).await?;
            self.truth.write(self.fd, &data[..taken]);
            data = &data[taken..];
        }
        Ok(stream.flush().await?)
    }

    async fn receive(&self, stream: &mut (impl AsyncRead + Unpin), len: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        while data.len() < len {
            let mut part = vec![0; READS[self.number % READS.len()].min(len - data.len())];
            let got = stream.read(&mut part).await?;
            if got == 0 {
                return Err(format!("connection {}: it ended", self.number).into());
            }
            self.truth.read(self.fd, &part[..got]);
            data.extend_from_slice(&part[..got]);
        }
        Ok(data)
    }

    async fn expect(&self, stream: &mut (impl AsyncRead + Unpin), data: Vec<u8>) -> Result<()> {
        if self.receive(stream, data.len()).await? != data {
            return Err(format!("connection {}: wrong data on fd {}", self.number, self.fd).into());
        }
        Ok(())
    }

    /// Even connections take turns; on odd ones, both ends speak at once.
    async fn talk<S>(self, stream: S, me: &str, peer: &str) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut reader, mut writer) = stream.split();
        let sending = async {
            for round in 0..ROUNDS {
                self.send(&mut writer, &self.message(me, round)).await?;
            }
            Result::Ok(())
        };
        if self.number % 2 == 1 {
            let receiving = async {
                for round in 0..ROUNDS {
                    self.expect(&mut reader, self.message(peer, round)).await?;
                }
                Result::Ok(())
            };
            let (sent, received) = join(sending, receiving).await;
            sent.and(received)?;
        } else if me == "client" {
            sending.await?;
            for round in 0..ROUNDS {
                self.expect(&mut reader, self.message(peer, round)).await?;
            }
        } else {
            for round in 0..ROUNDS {
                self.expect(&mut reader, self.message(peer, round)).await?;
            }
            sending.await?;
        }
        writer.close().await?;
        if reader.read(&mut [0]).await? != 0 {
            return Err("data behind the last message".into());
        }
        self.truth.close(self.fd);
        Ok(())
    }
}

async fn client(tls: TlsConnector, to: SocketAddr, truth: Rc<Truth>, number: usize) -> Result<()> {
    let tcp = Async::<TcpStream>::connect(to).await?;
    let fd = tcp.as_raw_fd();
    let mut stream = tls.connect("localhost".try_into()?, tcp).await?;
    let end = End { truth, fd, number };

    end.send(&mut stream, format!("{number:8}").as_bytes())
        .await?;
    end.talk(stream, "client", "server").await
}

async fn server(tls: TlsAcceptor, tcp: Async<TcpStream>, truth: Rc<Truth>) -> Result<()> {
    let fd = tcp.as_raw_fd();
    let number = 0;
    let mut stream = tls.accept(tcp).await?;
    let mut end = End { truth, fd, number };

    let name = end.receive(&mut stream, 8).await?;
    end.number = String::from_utf8(name)?.trim().parse()?;
    end.talk(stream, "server", "client").await
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let count: usize = args.own()?.ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
    let truth = Rc::new(args.truth("")?);
    let (server_config, certificate) = args.tls.server()?;
    let acceptor = TlsAcceptor::from(Arc::new(server_config));
    let connector = TlsConnector::from(Arc::new(args.tls.client(certificate)?));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    ready(args)?;

    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = Async::new(listener)?;
        let mut tasks = Vec::new();

        for number in 0..count {
            tasks.push(executor.spawn(client(connector.clone(), address, truth.clone(), number)));
        }
        for _ in 0..count {
            let tcp = listener.accept().await?.0;
            tasks.push(executor.spawn(server(acceptor.clone(), tcp, truth.clone())));
        }
        try_join_all(tasks).await
    }))?;
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
