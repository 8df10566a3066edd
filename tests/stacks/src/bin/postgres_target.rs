// SPDX-License-Identifier: GPL-2.0-only

//! tokio-postgres: several connections to a PostgreSQL server, on one thread,
//! and queries one behind the other on each, both as text and prepared. In:
//! the server's port, its certificate, the number of queries. Out: the truth
//! file, by the witness below tokio-postgres. It must never do without TLS.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tlssnoop_rustls_targets::{Args, Result, Truth, finish, ready};
use tlssnoop_stacks_targets::PostgresTls;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

const USAGE: &str = "\
usage: postgres_target --truth FILE [--tls 1.2|1.3] [--suite aes128|aes256|chacha] PORT CERT N";
const CONNECTIONS: usize = 5;

type Finished = std::result::Result<(), tokio_postgres::Error>;

async fn ask(
    tls: Arc<ClientConfig>,
    to: SocketAddr,
    truth: Arc<Truth>,
    numbers: Vec<usize>,
) -> Result<(Client, JoinHandle<Finished>)> {
    let tcp = TcpStream::connect(to).await?;
    let tls = PostgresTls { config: tls, truth };
    let mut config = Config::new();
    config
        .user("tester")
        .dbname("postgres")
        .ssl_mode(SslMode::Require);
    let (client, connection) = config.connect_raw(tcp, tls).await?;
    let connection = tokio::spawn(connection);

    for number in numbers {
        let name = format!("query {number};");
        // Every tenth row takes several records.
        let times = if number.is_multiple_of(10) { 4000 } else { 7 };
        let row: String = if number.is_multiple_of(2) {
            let query = format!("SELECT REPEAT('{name}', {times})");
            let messages = client.simple_query(&query).await?;
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            row.ok_or("no row")?.to_string()
        } else {
            let row = client
                .query_one("SELECT REPEAT($1, $2)", &[&name, &times])
                .await?;
            row.try_get(0)?
        };
        if row != name.repeat(times as usize) {
            return Err(format!("{name} got the row of another one: {row:.40}").into());
        }
    }
    Ok((client, connection))
}

fn run() -> Result<()> {
    let mut args = Args::default();
    let port: u16 = args.own()?.ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
    let certificate = CertificateDer::from_pem_file(args.value("CERT")?)?;
    let count = args.number("N")?;
    let truth = Arc::new(args.truth("")?);
    let tls = Arc::new(args.tls.client(certificate)?);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    ready(args)?;

    runtime.block_on(async {
        let mut asking = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let numbers = (connection..count).step_by(CONNECTIONS).collect();
            let to = ([127, 0, 0, 1], port).into();
            asking.spawn(ask(tls.clone(), to, truth.clone(), numbers));
        }
        // Open until all are done, so that no descriptor comes again.
        let mut done = Vec::new();
        while let Some(end) = asking.join_next().await {
            done.push(end??);
        }
        for (client, connection) in done {
            drop(client);
            connection.await??;
        }
        Result::Ok(())
    })?;
    truth.save()
}

fn main() -> ExitCode {
    finish(run())
}
