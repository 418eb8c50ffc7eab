//! The `talksy-unit` command.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use talksy_unit::config::{Arguments, Settings};
use talksy_unit::demo;
use talksy_unit::reach::{OwnTurn, Reach};
use talksy_unit::server::{Server, is_healthy};
use talksy_unit::turn::{PeerPolicy, Turn, TurnConfig};
use talksy_unit::worker::{Media, MediaConfig, start_all};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// Where `--demo` puts its participants.
const DEMO_ROOM: &str = "demo";

/// The settings do not make sense; as for what clap refuses.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match arguments.settings() {
        Ok(settings) => settings,
        Err(error) => return fail(&error, USAGE),
    };
    if arguments.health_check {
        let healthy = is_healthy(&settings).await;
        return ExitCode::from(u8::from(!healthy));
    }
    tracing_subscriber::fmt()
        .with_env_filter(&settings.log)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let media = start_all(&MediaConfig {
        public_ips: settings.public_ips.clone(),
        first_port: settings.media_port,
        tcp_port: settings.media_tcp_port,
        workers: settings.workers,
        theme: settings.theme.clone(),
        sound: settings.sound,
        ladder: settings.ladder.clone(),
    })?;
    let turn = settings
        .turn_port
        .map(|port| start_turn(settings, &media, port))
        .transpose()?;
    let reach = Reach {
        external: settings.ice_servers.clone(),
        turn: turn.as_ref().map(|turn| OwnTurn {
            port: turn.port,
            secret: turn.secret.clone(),
            public: settings.public_ips.clone(),
            local: media.advertised.first().map(SocketAddr::ip),
            counters: turn.counters.clone(),
        }),
        acceptor: media.acceptor.as_ref().map(|a| a.counters.clone()),
    };
    let server = Server::start(settings, media.workers.clone(), reach).await?;
    server.announce(&media);
    let demo = match settings.demo {
        Some(count) => Some(start_demo(&server, count).await?),
        None => None,
    };
    wait_for_signal().await?;
    if let Some(demo) = demo {
        demo.abort();
    }
    server.shutdown().await;
    Ok(())
}

/// A TURN server for this server's media, and for what the operator names.
fn start_turn(settings: &Settings, media: &Media, port: u16) -> anyhow::Result<Turn> {
    let policy = PeerPolicy::media_only(&media.advertised).and(&settings.turn_peers)?;
    let ips = || media.advertised.iter().map(SocketAddr::ip);
    let outside = ips().find(IpAddr::is_ipv4).or_else(|| ips().next());
    Ok(Turn::start(TurnConfig {
        port,
        policy,
        outside: outside.context("TURN needs an address to advertise")?,
    })?)
}

/// Fills [`DEMO_ROOM`].
async fn start_demo(server: &Server, count: usize) -> anyhow::Result<JoinHandle<()>> {
    let address = server
        .serve_loopback()
        .await
        .context("the demo's loopback port cannot be opened")?;
    let url = format!("ws://{address}/ws");
    tracing::info!(participants = count, room = DEMO_ROOM, "the demo begins");
    Ok(tokio::spawn(async move {
        if let Err(error) = demo::run(&url, DEMO_ROOM, count).await {
            tracing::error!(%error, "the demo has ended");
        }
    }))
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
        _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
    }
    Ok(())
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("talksy-unit: {error}");
    ExitCode::from(code)
}
