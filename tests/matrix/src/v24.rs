// SPDX-License-Identifier: GPL-2.0-only

//! rustls 0.24 (development releases), which leaves plaintext and ciphertext to
//! the program: it has no stream, so one is made here. In and out: exchange.rs.
//! Sessions with TLS 1.3 come a second time, resumed, with early data.

mod exchange;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use exchange::{Result, Session, Stream, Version};
use rustls::crypto::{CryptoProvider, Identity};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientSide, Connection, MessageHandler, RootCertStore, ServerConfig, ServerSide,
    SideData, Tcp, VecInput,
};

const PROVIDERS: &[&str] = &[
    "ring",
    #[cfg(feature = "aws-lc-rs")]
    "aws-lc-rs",
];

/// How much of it the server accepts: a record is cut.
const EARLY: u32 = 50021;

static CLIENTS: Mutex<Vec<(Key, Arc<ClientConfig>)>> = Mutex::new(Vec::new());
static SERVERS: Mutex<Vec<(Key, Arc<ServerConfig>)>> = Mutex::new(Vec::new());

/// What resumed sessions have in common.
type Key = (&'static str, Version, &'static str);

/// The configuration of a session's like, made for the first one.
fn config<C>(
    made: &Mutex<Vec<(Key, Arc<C>)>>,
    session: &Session,
    make: impl FnOnce() -> Result<C>,
) -> Result<Arc<C>> {
    let key = (session.provider, session.version, session.suite);
    let mut made = made.lock().map_err(|_| "another session panicked")?;
    if let Some((_, config)) = made.iter().find(|(of, _)| *of == key) {
        return Ok(config.clone());
    }
    let config = Arc::new(make()?);
    made.push((key, config.clone()));
    Ok(config)
}

/// What only one end can do with early data.
trait Early: SideData {
    /// Returns how much of the plaintext was taken.
    fn write_early(_: &mut Connection<Self, Tcp>, _: &[u8], _: &mut Vec<u8>) -> Result<usize> {
        Ok(0)
    }

    fn read_early(_: &mut MessageHandler<'_, '_, Self>, _: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}

impl Early for ClientSide {
    fn write_early(
        conn: &mut Connection<Self, Tcp>,
        data: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize> {
        match conn.early_data() {
            Some(mut early) => Ok(early.write(data.into(), output)?),
            None => Ok(0),
        }
    }
}

impl Early for ServerSide {
    fn read_early(messages: &mut MessageHandler<'_, '_, Self>, plain: &mut Vec<u8>) -> Result<()> {
        while let Some(payload) = messages.next_early_data() {
            plain.extend_from_slice(payload?.bytes());
        }
        Ok(())
    }
}

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

impl<S: Early> End<S> {
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
        let mut messages = self.conn.read_tls(&mut self.input, &mut self.output);
        S::read_early(&mut messages, &mut self.plain).map_err(io::Error::other)?;
        let state = messages
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

impl<S: Early> Read for End<S> {
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

impl<S: Early> Write for End<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let before = self.output.len();
        let early =
            S::write_early(&mut self.conn, data, &mut self.output).map_err(io::Error::other)?;
        if early > 0 {
            // sent with the first message, behind which it is
            self.written = lengths(&self.output[before..]);
            return Ok(early);
        }
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

impl<S: Early> Stream for End<S> {
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
    let config = config(&CLIENTS, session, || {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from(session.certificate.clone()))?;
        let mut config = ClientConfig::builder(provider(session))
            .with_root_certificates(trusted)
            .with_no_client_auth()?;
        config.enable_early_data = true;
        Ok(config)
    })?;
    let mut output = Vec::new();
    let conn = config.connect("localhost".try_into()?).build(&mut output)?;

    Ok(End::boxed(conn, tcp, output))
}

fn server(session: &Session, tcp: TcpStream) -> Result<Box<dyn Stream>> {
    let config = config(&SERVERS, session, || {
        let chain = vec![CertificateDer::from(session.certificate.clone())];
        let mut config = ServerConfig::builder(provider(session))
            .with_no_client_auth()
            .with_single_cert(
                Arc::new(Identity::from_cert_chain(chain)?),
                PrivateKeyDer::Pkcs8(session.key.clone().into()),
            )?;
        config.max_early_data_size = EARLY;
        Ok(config)
    })?;

    Ok(End::boxed(
        Connection::<ServerSide, _>::new(config)?,
        tcp,
        Vec::new(),
    ))
}

fn main() -> ExitCode {
    let [before, tls13] = exchange::VERSIONS;
    exchange::run(PROVIDERS, &[before, tls13, tls13], client, server)
}
