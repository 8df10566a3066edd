// SPDX-License-Identifier: GPL-2.0-only

//! What the rustls test targets share: the truth file, the payloads, the TLS
//! configurations with a certificate made at start, and the `ready` handshake
//! with the test. In: the command line and one line on stdin. Out: `ready` on
//! stdout and the truth file. It must never do TLS before that line came, and
//! never touch the network itself.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{env, fs};

use rustls::SupportedProtocolVersion;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

mod wrapped;

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Lengths at which a tracer's buffers and rustls' records end.
pub const EDGES: [usize; 9] = [1, 8191, 8192, 8193, 16383, 16384, 16385, 65536, 1048576];

/// Every byte that rustls accepted or returned, in the order of the calls:
/// `write FD HEX`, `read FD HEX`, and `close FD` when the number may come again.
/// Held in memory until the end so that keeping it adds no system call between
/// those of the connections.
pub struct Truth {
    path: PathBuf,
    lines: Mutex<Vec<u8>>,
}

impl Truth {
    pub fn write(&self, fd: RawFd, accepted: &[u8]) {
        self.add("write", fd, accepted);
    }

    pub fn read(&self, fd: RawFd, returned: &[u8]) {
        self.add("read", fd, returned);
    }

    /// To be called while the connection is still open.
    pub fn close(&self, fd: RawFd) {
        self.lines
            .lock()
            .unwrap()
            .extend_from_slice(format!("close {fd}\n").as_bytes());
    }

    fn add(&self, direction: &str, fd: RawFd, data: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";

        if data.is_empty() {
            return;
        }
        let mut lines = self.lines.lock().unwrap();
        lines.extend_from_slice(format!("{direction} {fd} ").as_bytes());
        lines.extend(
            data.iter()
                .flat_map(|byte| [byte >> 4, byte & 15].map(|d| DIGITS[d as usize])),
        );
        lines.push(b'\n');
    }

    /// For a target that knows something else than calls.
    pub fn replace(&self, lines: String) -> Result<()> {
        Ok(fs::write(&self.path, lines)?)
    }

    pub fn save(&self) -> Result<()> {
        Ok(fs::write(&self.path, &*self.lines.lock().unwrap())?)
    }
}

/// Message `number` of `sender`: it begins with their names as far as there is
/// room, and no byte is the same in the next message or a record further on.
pub fn message(sender: &str, number: usize, len: usize) -> Vec<u8> {
    let name = format!("{sender} message {number} of {len} bytes\n");
    let pattern = (name.len()..len).map(|at| (number * 131 + at * 7 + at / 251) as u8);
    let mut message = name.clone().into_bytes();

    message.truncate(len);
    message.extend(pattern);
    message
}

/// The protocol version and cipher suites that both ends are held to.
pub struct Tls {
    version: &'static SupportedProtocolVersion,
    suite: &'static str,
    wrapped: bool,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            version: &TLS13,
            suite: "",
            wrapped: false,
        }
    }
}

impl Tls {
    fn version(value: &str) -> Result<&'static SupportedProtocolVersion> {
        match value {
            "1.2" => Ok(&TLS12),
            "1.3" => Ok(&TLS13),
            _ => Err(format!("--tls: not 1.2 or 1.3: {value}").into()),
        }
    }

    fn suite(value: &str) -> Result<&'static str> {
        match value {
            "aes128" => Ok("AES_128"),
            "aes256" => Ok("AES_256"),
            "chacha" => Ok("CHACHA20"),
            _ => Err(format!("--suite: not aes128, aes256 or chacha: {value}").into()),
        }
    }

    pub fn with_suite(&self, suite: &'static str) -> Self {
        Self { suite, ..*self }
    }

    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = ring::default_provider();
        provider
            .cipher_suites
            .retain(|suite| format!("{suite:?}").contains(self.suite));
        if self.wrapped {
            wrapped::wrap(&mut provider);
        }
        Arc::new(provider)
    }

    /// With the certificate that the client has to know.
    pub fn server(&self) -> Result<(ServerConfig, CertificateDer<'static>)> {
        let (certificate, key) = Self::certificate()?;
        let config = self.server_with(certificate.clone(), key)?;
        Ok((config, certificate))
    }

    /// A certificate for this run and its key.
    pub fn certificate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let own = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
        let certificate = CertificateDer::from(own.cert);
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        Ok((certificate, key))
    }

    pub fn server_with(
        &self,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig> {
        let config = ServerConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[self.version])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;

        Ok(config)
    }

    pub fn client(&self, server: CertificateDer<'static>) -> Result<ClientConfig> {
        let mut trusted = RootCertStore::empty();

        trusted.add(server)?;
        Ok(ClientConfig::builder_with_provider(self.provider())
            .with_protocol_versions(&[self.version])?
            .with_root_certificates(trusted)
            .with_no_client_auth())
    }
}

/// The descriptor of the socket of this process for which `wanted` holds.
/// Libraries that keep their sockets to themselves do not tell it.
fn fd_where(wanted: impl Fn(&TcpStream) -> io::Result<bool>) -> Option<RawFd> {
    (3..1024).find(|&fd| {
        // SAFETY: nothing closes it here, and asking any descriptor for its name is harmless.
        let socket = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd) });
        wanted(&socket).unwrap_or(false)
    })
}

/// The one socket that is bound to this address: a client's.
pub fn fd_of(local: SocketAddr) -> Result<RawFd> {
    fd_where(|socket| Ok(socket.local_addr()? == local))
        .ok_or_else(|| format!("no socket is bound to {local}").into())
}

/// The end at `local` of a connection whose other end is at `remote`.
pub fn fd_between(local: SocketAddr, remote: SocketAddr) -> Result<RawFd> {
    fd_where(|socket| Ok(socket.local_addr()? == local && socket.peer_addr()? == remote))
        .ok_or_else(|| format!("no socket leads from {local} to {remote}").into())
}

/// Tells the test that the set-up, which took the whole command line, is done;
/// waits for its go.
pub fn ready(mut args: Args) -> Result<()> {
    if let Some(word) = args.words.next() {
        return Err(format!("nothing is known to do with {word}").into());
    }
    println!("ready");
    io::stdout().flush()?;
    match io::stdin().read_line(&mut String::new())? {
        0 => Err("stdin ended before the line that starts the work".into()),
        _ => Ok(()),
    }
}

/// The command line. The options that all targets have are kept here.
pub struct Args {
    words: env::Args,
    truth: Option<OsString>,
    pub tls: Tls,
}

impl Default for Args {
    fn default() -> Self {
        let mut words = env::args();
        words.next();
        Self {
            words,
            truth: None,
            tls: Tls::default(),
        }
    }
}

impl Args {
    /// The next word that is an option of this target or its mode.
    pub fn own(&mut self) -> Result<Option<String>> {
        while let Some(word) = self.words.next() {
            match word.as_str() {
                "--truth" => self.truth = Some(self.value("--truth")?.into()),
                "--tls" => self.tls.version = Tls::version(&self.value("--tls")?)?,
                "--wrapped" => self.tls.wrapped = true,
                "--suite" => self.tls.suite = Tls::suite(&self.value("--suite")?)?,
                _ => return Ok(Some(word)),
            }
        }
        Ok(None)
    }

    pub fn value(&mut self, of: &str) -> Result<String> {
        Ok(self.words.next().ok_or_else(|| format!("{of}: no value"))?)
    }

    pub fn number(&mut self, of: &str) -> Result<usize> {
        Ok(self
            .value(of)?
            .parse()
            .map_err(|why| format!("{of}: {why}"))?)
    }

    /// The truth file whose name has this suffix.
    pub fn truth(&self, suffix: &str) -> Result<Truth> {
        let mut path = self.truth.clone().ok_or("--truth FILE is needed")?;
        path.push(suffix);
        Ok(Truth {
            path: path.into(),
            lines: Mutex::default(),
        })
    }
}

/// The end of every target: says what went wrong, if anything did.
pub fn finish(result: Result<()>) -> std::process::ExitCode {
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            std::process::ExitCode::FAILURE
        }
    }
}
