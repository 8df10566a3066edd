// SPDX-License-Identifier: GPL-2.0-only

//! rustls 0.24 (development releases), which leaves plaintext and ciphertext to
//! the program: it has no stream, so one is made here. In and out: exchange.rs.

mod exchange;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;

use exchange::{Result, Session, Stream, Version};
use rustls::crypto::{CryptoProvider, Identity};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig, SideData, Tcp, VecInput};

const PROVIDERS: &[&str] = &[
    "ring",
    #[cfg(feature = "aws-lc-rs")]
    "aws-lc-rs",
];

struct End<S: SideData> {
    conn: Connection<S, Tcp>,
    tcp: TcpStream,
    /// What came from the socket.
    input: VecInput,
    /// What is to go there.
    output: Vec<u8>,
    /// The lengths of the records that the last write made.
    written: Vec<usize>,
    /// What was decrypted and not read yet.
    plain: Vec<u8>,
    closed: bool,
}

/// Of TLS records, without their headers.
fn lengths(mut records: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();

    while let [_, _, _, high, low, rest @ ..] = records {
        let len = usize::from(*high) << 8 | usize::from(*low);
        lengths.push(len);
        records = &rest[len..];
    }
    lengths
}

impl<S: SideData> End<S> {
    fn boxed(conn: Connection<S, Tcp>, tcp: TcpStream, output: Vec<u8>) -> Box<Self> {
        let (input, written, plain) = (VecInput::default(), Vec::new(), Vec::new());
        Box::new(Self {
            conn,
            tcp,
            input,
            output,
            written,
            plain,
            closed: false,
        })
    }

    fn receive(&mut self) -> io::Result<()> {
        self.closed = self.input.read(&mut self.tcp)? == 0;
        let state = self
            .conn
            .read_tls(&mut self.input, &mut self.output)
            .handle_all(&mut self.plain)
            .map_err(io::Error::other)?;
        self.closed |= state.peer_has_closed();
        self.flush()
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        self.flush()?;
        while self.conn.is_handshaking() && !self.closed {
            self.receive()?;
        }
        Ok(())
    }
}

impl<S: SideData> Read for End<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.shake_hands()?;
        while self.plain.is_empty() && !self.closed {
            self.receive()?;
        }
        let taken = self.plain.len().min(buf.len());
        buf[..taken].copy_from_slice(&self.plain[..taken]);
        self.plain.drain(..taken);
        Ok(taken)
    }
}

impl<S: SideData> Write for End<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.shake_hands()?;
        self.conn
            .write(data.into(), &mut self.output)
            .map_err(io::Error::other)?;
        self.written = lengths(&self.output);
        self.flush()?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }
}

impl<S: SideData> Stream for End<S> {
    fn close(&mut self) -> Result<()> {
        self.conn.send_close_notify(&mut self.output)?;
        Ok(self.flush()?)
    }

    /// It makes a record shorter by what the cipher adds: by the same for each.
    fn records(&mut self, taken: usize) -> Vec<usize> {
        let added = (self.written.iter().sum::<usize>() - taken) / self.written.len();
        self.written.iter().map(|len| len - added).collect()
    }
}

fn provider(session: &Session) -> Arc<CryptoProvider> {
    let mut provider = match session.provider {
        #[cfg(feature = "aws-lc-rs")]
        "aws-lc-rs" => rustls_aws_lc_rs::DEFAULT_PROVIDER,
        _ => rustls_ring::DEFAULT_PROVIDER,
    };
    let wanted = |suite| format!("{suite:?}").contains(session.suite);
    match session.version {
        Version::Tls12 => {
            provider
                .tls12_cipher_suites
                .to_mut()
                .retain(|suite| wanted(suite.common.suite));
            provider.tls13_cipher_suites.to_mut().clear();
        }
        Version::Tls13 => {
            provider
                .tls13_cipher_suites
                .to_mut()
                .retain(|suite| wanted(suite.common.suite));
            provider.tls12_cipher_suites.to_mut().clear();
        }
    }
    Arc::new(provider)
}

fn client(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from(session.certificate.clone()))?;
    let config = ClientConfig::builder(provider(session))
        .with_root_certificates(trusted)
        .with_no_client_auth()?;
    let mut output = Vec::new();
    let conn = Arc::new(config)
        .connect("localhost".try_into()?)
        .build(&mut output)?;

    Ok(End::boxed(conn, tcp, output))
}

fn server(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let chain = vec![CertificateDer::from(session.certificate.clone())];
    let config = ServerConfig::builder(provider(session))
        .with_no_client_auth()
        .with_single_cert(
            Arc::new(Identity::from_cert_chain(chain)?),
            PrivateKeyDer::Pkcs8(session.key.clone().into()),
        )?;

    Ok(End::boxed(
        Connection::<rustls::ServerSide, _>::new(Arc::new(config))?,
        tcp,
        Vec::new(),
    ))
}

fn main() -> ExitCode {
    exchange::run(PROVIDERS, client, server)
}
