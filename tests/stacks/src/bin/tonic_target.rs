// SPDX-License-Identifier: GPL-2.0-only

//! gRPC by tonic, with tonic's own TLS: a server, or a client with several
//! streams at once on one connection of HTTP/2. In: the certificate, the
//! server's key, and a line on stdin: the port to connect to, or for the
//! server, that it is to end. Out: "listening PORT" by the server, "ready" by
//! the client; each end knows what the other sends, and compares. It keeps no
//! truth, because tonic shows no TLS stream: a relay does. It must never take
//! half a conversation for a whole one.

use std::convert::Infallible;
use std::fs;
use std::future::{self, Future};
use std::io::{self, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::thread;

use axum::body::Bytes;
use axum::http;
use futures_util::{Stream, StreamExt, stream};
use tlssnoop_rustls_targets::{Args, Result, finish};
use tlssnoop_stacks_targets::payload;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::server::StreamingService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
};
use tonic::{Request, Response, Status, Streaming};

const USAGE: &str = "\
usage: tonic_target server CERT KEY
       tonic_target client CERT STREAMS";
const ROUNDS: usize = 11;
const PATH: &str = "/tlssnoop.Talk/Talk";

/// Messages as they are, without protobuf.
#[derive(Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> std::result::Result<Option<Bytes>, Status> {
        let len = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, len)))
    }
}

type Answers = Pin<Box<dyn Stream<Item = std::result::Result<Bytes, Status>> + Send>>;

/// Answers each message when it has come.
#[derive(Clone)]
struct Talk;

impl StreamingService<Bytes> for Talk {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = future::Ready<std::result::Result<Response<Answers>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let messages = request.into_inner().enumerate();
        let answers = messages.map(|(round, message)| {
            if message? != payload("client", round) {
                return Err(Status::invalid_argument("another message"));
            }
            Ok(payload("server", round + 3).into())
        });
        future::ready(Ok(Response::new(Box::pin(answers))))
    }
}

impl Service<http::Request<Body>> for Talk {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            Ok(tonic::server::Grpc::new(Plain)
                .streaming(Talk, request)
                .await)
        })
    }
}

async fn serve(tls: ServerTlsConfig) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let (stop, stopped) = oneshot::channel();
    println!("listening {port}");
    io::stdout().flush()?;
    thread::spawn(move || stop.send(line()));
    let stopped = async {
        let _ = stopped.await;
    };
    let server = Server::builder().tls_config(tls)?;
    server
        .serve_with_incoming_shutdown(Talk, TcpIncoming::from(listener), stopped)
        .await?;
    Ok(())
}

async fn talk(channel: Channel) -> Result<()> {
    let mut client = tonic::client::Grpc::new(channel);
    let messages = (0..ROUNDS).map(|round| Bytes::from(payload("client", round)));
    let request = Request::new(stream::iter(messages));

    client.ready().await?;
    let answers = client
        .streaming(request, http::uri::PathAndQuery::from_static(PATH), Plain)
        .await?;
    let mut answers = answers.into_inner();
    for round in 0..ROUNDS {
        if answers.message().await? != Some(payload("server", round + 3).into()) {
            return Err(format!("message {round}: another answer").into());
        }
    }
    match answers.message().await? {
        None => Ok(()),
        _ => Err("an answer too many".into()),
    }
}

async fn ask(tls: ClientTlsConfig, port: &str, streams: usize) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}"))?;
    let channel = endpoint.tls_config(tls)?.connect().await?;
    let mut talks = JoinSet::new();
    for _ in 0..streams {
        talks.spawn(talk(channel.clone()));
    }
    while let Some(done) = talks.join_next().await {
        done??;
    }
    Ok(())
}

fn line() -> Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_string())
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let side = args.own()?.ok_or(USAGE)?;
    let certificate = fs::read(args.value("CERT")?)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;

    match side.as_str() {
        "server" => {
            let key = fs::read(args.value("KEY")?)?;
            let own = Identity::from_pem(certificate, key);
            runtime.block_on(serve(ServerTlsConfig::new().identity(own)))
        }
        "client" => {
            let trusted = Certificate::from_pem(certificate);
            let tls = ClientTlsConfig::new().ca_certificate(trusted);
            let streams = args.number("STREAMS")?;
            println!("ready");
            io::stdout().flush()?;
            runtime.block_on(ask(tls, &line()?, streams))
        }
        _ => Err(USAGE.into()),
    }
}

fn main() -> ExitCode {
    finish(run())
}
