//! Connections: to a server or through a proxy, with TLS or without.

use std::io;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, PROXY_AUTHORIZATION};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::proxies::Proxy;
use super::url::Url;

/// What requests go out on.
pub type Sender = SendRequest<Empty<Bytes>>;

/// Bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection for requests to `url`.
pub async fn open(url: &Url, proxy: Option<&Proxy>, tls: &TlsConnector) -> io::Result<Sender> {
    let stream: Box<dyn Stream> = match proxy {
        Some(proxy) if url.is_tls() => tunnel(url, proxy).await?,
        Some(proxy) => Box::new(reach(&proxy.url).await?),
        None => Box::new(reach(url).await?),
    };
    if !url.is_tls() {
        return speak(stream).await;
    }
    let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
    speak(Box::new(tls.connect(name, stream).await?)).await
}

async fn reach(url: &Url) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((url.host(), url.port())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// HTTP over a stream, driven until its sender and its answer are dropped. Boxed, so that the program has its code once.
async fn speak(stream: Box<dyn Stream>) -> io::Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// A way to `url` that the proxy opens and does not look into.
async fn tunnel(url: &Url, proxy: &Proxy) -> io::Result<Box<dyn Stream>> {
    let mut sender = speak(Box::new(reach(&proxy.url).await?)).await?;
    let place = url.with_port();
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(&place)
        .header(HOST, &place);
    if let Some(authorization) = &proxy.authorization {
        request = request.header(PROXY_AUTHORIZATION, authorization);
    }
    let request = request.body(Empty::new()).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    if !status.is_success() {
        let proxy = proxy.url.with_port();
        let problem = format!("the proxy {proxy} opened no way to {place} (HTTP {status})");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
