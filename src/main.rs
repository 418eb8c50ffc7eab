//! The `talksy-unit` command.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use talksy_unit::config::{Arguments, Settings};
use talksy_unit::server::{Server, is_healthy};
use talksy_unit::worker::WorkerHandle;
use tokio::signal::unix::{SignalKind, signal};

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
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    match run(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 1),
    }
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let (workers, media_addresses) = start_all(settings)?;
    let server = Server::start(settings, workers).await?;
    server.announce(&media_addresses);
    if settings.turn_enabled {
        tracing::warn!(
            "TURN_ENABLED is set, but this version has no TURN server: a later one brings it"
        );
    }
    wait_for_signal().await?;
    server.shutdown().await;
    Ok(())
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

/// The place of `worker::start_all`: one thread per worker that takes commands, and the media addresses to advertise.
fn start_all(settings: &Settings) -> anyhow::Result<(Vec<WorkerHandle>, Vec<SocketAddr>)> {
    let mut workers = Vec::new();
    for _ in 0..settings.workers {
        let (sender, commands) = crossbeam_channel::bounded(talksy_unit::worker::COMMAND_QUEUE);
        std::thread::spawn(move || commands.iter().for_each(drop));
        workers.push(WorkerHandle::new(sender, std::sync::Arc::new(|| ())));
    }
    Ok((workers, Vec::new()))
}
