//! From a listening socket to the end of the last answer.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tracing::{error, info, warn};

use super::hosts::Hosts;
use super::patience::Patient;
use super::routes::router;
use super::socket::Socket;
use super::standing::Standing;
use crate::app::App;
use crate::error::ServeError;
use crate::options::Options;
use crate::running::Health;
use crate::served::Served;
use crate::tls::Tls;

/// Connections at once; others wait until one ends.
const MAX_CONNECTIONS: usize = 4096;
/// Headers that take longer are given up.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// A handshake of TLS that takes longer is given up.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// What readers of cut answers get to take their last event, and the engine to end its step.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// What they get when they are cut at once.
const LAST_EVENT: Duration = Duration::from_millis(200);
/// After the system had no socket to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at the engine.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Threads that read requests and write answers, and threads that tokenize.
const NUM_THREADS: usize = 2;
const NUM_BLOCKING_THREADS: usize = 4;

/// Listens at `host` and `port`; 0 takes any free port. Clients may connect from now on, and wait until the server runs.
///
/// # Errors
/// No such host, a port in use or forbidden.
pub fn listen(host: &str, port: u16) -> Result<TcpListener, ServeError> {
    let listen = || {
        let listener = TcpListener::bind((host, port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| ServeError::Listen {
        address: format!("{host}:{port}"),
        source,
    })
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It takes connections.
    #[default]
    Serving,
    /// It takes none, and lets running answers end.
    Draining,
    /// It cuts what still runs.
    Ending,
}

/// Serves until Ctrl-C or a termination signal, then drains; a second signal cuts what still runs. `ready` is called when signals
/// are heard: one that comes sooner ends the process.
///
/// # Errors
/// As [`serve`].
pub fn run(
    listener: TcpListener,
    served: Served,
    options: Options,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NUM_THREADS)
        .max_blocking_threads(NUM_BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let stages = stages_of_signals()?;
        ready();
        serve(listener, served, options, stages).await
    });
    // Work that nobody waits for any more must not hold the end up.
    runtime.shutdown_background();
    served
}

/// Serves while `stage` says so. When it says to drain, no connection is taken any more, running answers go on for the time of
/// `options.drain` or until the next stage, and what is left is cut with an error as its last event.
///
/// # Errors
/// The runtime gives no thread or socket; the engine's thread panicked.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    options: Options,
    mut stage: watch::Receiver<Stage>,
) -> Result<(), ServeError> {
    let drain = options.drain;
    // Keys keep out those whom another name leads here.
    let is_local = listener.local_addr()?.ip().is_loopback() && options.keys.is_none();
    let hosts = is_local.then(|| Hosts::new(&options.allowed_hosts, &options.cors_origins));
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (app, mut ended) = App::start(served, options)?;
    let (close, closed) = watch::channel(false);
    info!(address = %listener.local_addr()?, model = app.model.alias, "serving");
    let router = router(Arc::clone(&app), hosts);
    let connections = tokio::spawn(connections(listener, Arc::clone(&app), router, closed));
    let watching = tokio::spawn(watch_health(Arc::clone(&app)));
    tokio::select! {
        () = reaches(&mut stage, Stage::Draining) => {}
        _ = &mut ended => {
            error!("the engine stopped");
            return Err(ServeError::EngineStopped);
        }
    }
    watching.abort();
    app.drain();
    info!(
        drain_s = drain.as_secs(),
        "draining: no new requests, running answers may end"
    );
    close.send_replace(true);
    tokio::select! {
        () = close.closed() => {}
        () = tokio::time::sleep(drain) => {}
        () = reaches(&mut stage, Stage::Ending) => {}
    }
    if !close.is_closed() {
        warn!("cutting answers that still run");
    }
    app.queue.stop();
    tokio::select! {
        () = close.closed() => {}
        () = tokio::time::sleep(LAST_WORDS) => {}
        () = cut(&mut stage) => {}
    }
    connections.abort();
    // A process that ends while the engine works could end badly.
    let _ = tokio::time::timeout(LAST_WORDS, ended).await;
    #[cfg(feature = "otel")]
    if let Some(telemetry) = &app.telemetry {
        let _ = tokio::time::timeout(LAST_WORDS, telemetry.flush()).await;
    }
    info!("ended");
    Ok(())
}

/// Waits until answers are to be cut, and lets their last events be written.
async fn cut(stage: &mut watch::Receiver<Stage>) {
    reaches(stage, Stage::Ending).await;
    tokio::time::sleep(LAST_EVENT).await;
}

/// Takes connections until `closed` says so. Each holds a receiver of `closed` while it is open.
async fn connections(
    listener: tokio::net::TcpListener,
    app: Arc<App>,
    router: Router,
    mut closed: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            _ = closed.wait_for(|closed| *closed) => break,
            accepted = accepted => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Pieces are small and each should be read at once.
        let _ = stream.set_nodelay(true);
        let socket = Socket::new(stream);
        let connection = secured(
            Patient::new(socket.clone(), app.options.patience),
            socket,
            app.options.tls.clone(),
            (router.clone(), closed.clone()),
        );
        let open = app.metrics.connections.clone();
        open.inc();
        tokio::spawn(async move {
            connection.await;
            open.dec();
            drop(place);
        });
    }
}

/// Serves a connection to its end, behind TLS where there is a certificate.
async fn secured(
    stream: Patient<Socket>,
    socket: Socket,
    tls: Option<Tls>,
    (router, mut closed): (Router, watch::Receiver<bool>),
) {
    let Some(tls) = tls else {
        return connection(stream, socket, (router, closed)).await;
    };
    let accepted = tokio::time::timeout(HANDSHAKE_TIME, tls.acceptor().accept(stream));
    let accepted = tokio::select! {
        accepted = accepted => accepted,
        _ = closed.wait_for(|closed| *closed) => return,
    };
    // Who speaks plain HTTP here, or trusts another certificate, is told by TLS itself.
    if let Ok(Ok(stream)) = accepted {
        connection(stream, socket, (router, closed)).await;
    }
}

/// Serves a connection to its end. When `closed` says so, an answer that runs is its last, and half a request is not waited for.
async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    socket: Socket,
    (router, mut closed): (Router, watch::Receiver<bool>),
) {
    let standing = Standing::default();
    let (inner, followed) = (TowerToHyperService::new(router), standing.clone());
    let service = service_fn(move |request| {
        let followed = followed.clone();
        let answer = inner.call(followed.begin(request));
        async move { answer.await.map(|response| followed.answer(response)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let watched = standing.clone();
    let mut left = pin!(socket.left(move || watched.is_answering()));
    // A client that breaks the protocol or goes away concerns nobody else.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = left.as_mut() => return,
        _ = closed.wait_for(|closed| *closed) => {}
    }
    connection.as_mut().graceful_shutdown();
    if standing.is_answering() {
        tokio::select! {
            _ = connection => {}
            () = left => {}
        }
    } else if standing.is_answered() {
        let _ = tokio::time::timeout(LAST_WORDS, connection).await;
    }
}

/// Says when steps stop coming, and when they come again.
async fn watch_health(app: Arc<App>) {
    let mut was_well = true;
    loop {
        tokio::time::sleep(WATCH_PAUSE).await;
        let health = app.progress.health(app.options.stall);
        match health {
            Health::Stalled(silent) if was_well => {
                error!(silent_s = silent.as_secs(), "no step ends: /health says 503");
            }
            Health::Well if !was_well => warn!("steps end again"),
            _ => {}
        }
        was_well = health == Health::Well;
    }
}

/// Waits for a stage; one that nobody can announce any more never comes.
async fn reaches(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|stage| *stage >= wanted).await.is_err() {
        std::future::pending().await
    }
}

/// Every Ctrl-C or termination signal is a stage further.
fn stages_of_signals() -> std::io::Result<watch::Receiver<Stage>> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let (announce, stage) = watch::channel(Stage::Serving);
    tokio::spawn(async move {
        for next in [Stage::Draining, Stage::Ending] {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            announce.send_replace(next);
        }
    });
    Ok(stage)
}
