// SPDX-License-Identifier: GPL-2.0-only

//! Both ends of some connections, on blocking sockets, a thread for each end. The
//! program says what its clients have TLS by; the server's is the `ssl` of the
//! openssl crate or of the boring crate, which is the same but for its name. In:
//! a certificate and its key as files, the number of connections. Out: the truth
//! file. It must never put anything there that a call did not accept or return.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::thread;

use crate::ssl::{SslAcceptor, SslFiletype, SslMethod, SslStream};
use crate::target::{Args, EDGES, Result, Truth, finish, message, ready};

const USAGE: &str = "usage: PROGRAM --truth FILE [--old] CERT KEY N
  --old    TLS 1.2";
const READS: [usize; 4] = [100, 65536, 4096, 17000];

pub trait Stream: Read + Write {
    /// Says that nothing more will come.
    fn end(&mut self) -> Result<()>;
}

impl Stream for SslStream<TcpStream> {
    fn end(&mut self) -> Result<()> {
        self.shutdown()?;
        Ok(())
    }
}

pub trait Client: Sized + Sync {
    /// It trusts this certificate. `old`: its connections are of TLS 1.2.
    fn new(certificate: &str, old: bool) -> Result<Self>;
    fn to_localhost(&self, tcp: TcpStream) -> Result<impl Stream>;
}

struct End<'a, S> {
    stream: S,
    fd: RawFd,
    number: usize,
    truth: &'a Truth,
}

impl<S: Stream> End<'_, S> {
    fn send(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let taken = self.stream.write(data)?;
            self.truth.write(self.fd, &data[..taken]);
            data = &data[taken..];
        }
        Ok(())
    }

    fn receive(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut data = Vec::new();
        while data.len() < len {
            let mut part = vec![0; READS[self.number % READS.len()].min(len - data.len())];
            let got = self.stream.read(&mut part)?;
            if got == 0 {
                return Err(format!("connection {}: it ended", self.number).into());
            }
            self.truth.read(self.fd, &part[..got]);
            data.extend_from_slice(&part[..got]);
        }
        Ok(data)
    }

    fn expect(&mut self, data: Vec<u8>) -> Result<()> {
        if self.receive(data.len())? != data {
            return Err(format!("connection {}: wrong data on fd {}", self.number, self.fd).into());
        }
        Ok(())
    }

    fn messages(&self, side: &str) -> impl Iterator<Item = Vec<u8>> + use<S> {
        let sender = format!("{side} of connection {}", self.number);
        // Only one connection carries the largest message, in large reads.
        let edges = &EDGES[..EDGES.len() - (self.number != 1) as usize];

        (0..edges.len()).map(move |round| message(&sender, round, edges[round]))
    }

    fn client(&mut self) -> Result<()> {
        self.send(format!("{:8}", self.number).as_bytes())?;
        for (message, answer) in self.messages("client").zip(self.messages("server")) {
            self.send(&message)?;
            self.expect(answer)?;
        }
        Ok(())
    }

    fn server(&mut self) -> Result<()> {
        self.number = String::from_utf8(self.receive(8)?)?.trim().parse()?;
        for (message, answer) in self.messages("client").zip(self.messages("server")) {
            self.expect(message)?;
            self.send(&answer)?;
        }
        Ok(())
    }
}

fn client(tls: &impl Client, to: SocketAddr, truth: &Truth, number: usize) -> Result<()> {
    let tcp = TcpStream::connect(to)?;
    let fd = tcp.as_raw_fd();
    let mut end = End {
        stream: tls.to_localhost(tcp)?,
        fd,
        number,
        truth,
    };
    end.client()?;
    end.stream.end()?;
    truth.close(fd);
    Ok(())
}

fn server(tls: &SslAcceptor, tcp: TcpStream, truth: &Truth) -> Result<()> {
    let fd = tcp.as_raw_fd();
    let mut end = End {
        stream: tls.accept(tcp)?,
        fd,
        number: 0,
        truth,
    };
    end.server()?;
    end.stream.end()?;
    truth.close(fd);
    Ok(())
}

fn connections<C: Client>() -> Result<()> {
    let mut args = Args::default();
    let mut old = false;
    let certificate = loop {
        match args.own()?.ok_or(USAGE)?.as_str() {
            "--old" => old = true,
            file => break file.to_string(),
        }
    };
    let key = args.value("KEY")?;
    let count = args.number("N")?;
    let truth = args.truth("")?;
    let connector = C::new(&certificate, old)?;
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
    acceptor.set_certificate_file(&certificate, SslFiletype::PEM)?;
    acceptor.set_private_key_file(&key, SslFiletype::PEM)?;
    let acceptor = acceptor.build();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    ready(args)?;

    thread::scope(|scope| {
        let mut ends = Vec::new();
        let (connector, acceptor, truth) = (&connector, &acceptor, &truth);
        for number in 0..count {
            ends.push(scope.spawn(move || client(connector, address, truth, number)));
            let tcp = listener.accept()?.0;
            ends.push(scope.spawn(move || server(acceptor, tcp, truth)));
        }
        for end in ends {
            end.join().map_err(|_| "a thread panicked")??;
        }
        Result::Ok(())
    })?;
    truth.save()
}

/// What such a program does.
pub fn run<C: Client>() -> ExitCode {
    finish(connections::<C>())
}
