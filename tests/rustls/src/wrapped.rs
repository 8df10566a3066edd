// SPDX-License-Identifier: GPL-2.0-only

//! A crypto provider that wraps another one, as those do that count, log or
//! meter: each record passes three encrypters, or three decrypters. Whatever
//! the optimiser makes of them: the outermost has work of its own to do after
//! its call, the next one has none, so that its call may become a jump. It must
//! never change a byte of what it passes on.

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter,
    MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage, Tls12AeadAlgorithm,
    Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::{
    ConnectionTrafficSecrets, Error, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite,
};

/// All cipher suites of a provider, wrapped. Suites live for ever.
pub fn wrap(provider: &mut CryptoProvider) {
    for suite in &mut provider.cipher_suites {
        *suite = match suite {
            SupportedCipherSuite::Tls13(s) => {
                SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                    common: common(&s.common),
                    hkdf_provider: s.hkdf_provider,
                    aead_alg: Box::leak(Box::new(Wrapped(s.aead_alg))),
                    quic: s.quic,
                })))
            }
            SupportedCipherSuite::Tls12(s) => {
                SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
                    common: common(&s.common),
                    prf_provider: s.prf_provider,
                    kx: s.kx,
                    sign: s.sign,
                    aead_alg: Box::leak(Box::new(Wrapped(s.aead_alg))),
                })))
            }
        };
    }
}

fn common(of: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon {
        suite: of.suite,
        hash_provider: of.hash_provider,
        confidentiality_limit: of.confidentiality_limit,
    }
}

struct Wrapped<T: ?Sized + 'static>(&'static T);

struct Counting<T: ?Sized> {
    records: [u64; 3],
    inner: Box<T>,
}

struct Passing<T: ?Sized>(Box<T>);

impl<T: ?Sized> Counting<T> {
    fn new(inner: Box<T>) -> Box<Self> {
        Box::new(Self {
            records: [0; 3],
            inner,
        })
    }

    /// A record too many or too few would be seen as a failure of the connection.
    fn count<U>(&mut self, seq: u64, result: Result<U, Error>) -> Result<U, Error> {
        self.records[seq as usize % self.records.len()] += 1;
        match self.records.iter().sum::<u64>() == seq + 1 {
            true => result,
            false => Err(Error::General(format!("record {seq} comes again"))),
        }
    }
}

fn encrypter(inner: Box<dyn MessageEncrypter>) -> Box<dyn MessageEncrypter> {
    let passing: Box<dyn MessageEncrypter> = Box::new(Passing(inner));
    Counting::new(passing)
}

fn decrypter(inner: Box<dyn MessageDecrypter>) -> Box<dyn MessageDecrypter> {
    let passing: Box<dyn MessageDecrypter> = Box::new(Passing(inner));
    Counting::new(passing)
}

impl MessageEncrypter for Counting<dyn MessageEncrypter> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let result = self.inner.encrypt(message, seq);
        self.count(seq, result)
    }

    fn encrypted_payload_len(&self, len: usize) -> usize {
        self.inner.encrypted_payload_len(len)
    }
}

impl MessageEncrypter for Passing<dyn MessageEncrypter> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        self.0.encrypt(message, seq)
    }

    fn encrypted_payload_len(&self, len: usize) -> usize {
        self.0.encrypted_payload_len(len)
    }
}

impl MessageDecrypter for Counting<dyn MessageDecrypter> {
    fn decrypt<'a>(
        &mut self,
        message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let result = self.inner.decrypt(message, seq);
        self.count(seq, result)
    }
}

impl MessageDecrypter for Passing<dyn MessageDecrypter> {
    fn decrypt<'a>(
        &mut self,
        message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        self.0.decrypt(message, seq)
    }
}

impl Tls13AeadAlgorithm for Wrapped<dyn Tls13AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        encrypter(self.0.encrypter(key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        decrypter(self.0.decrypter(key, iv))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

impl Tls12AeadAlgorithm for Wrapped<dyn Tls12AeadAlgorithm> {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        encrypter(self.0.encrypter(key, iv, extra))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        decrypter(self.0.decrypter(key, iv))
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }
}
