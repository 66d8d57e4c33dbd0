//! The server that is asked: its address, and connections to it, which are used again.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection that takes a request at a time.
pub type Connection = SendRequest<Full<Bytes>>;

/// The server that is asked.
pub struct Target {
    /// Host and port.
    address: String,
    /// What all paths begin with.
    base: String,
    key: Option<HeaderValue>,
    idle: Mutex<Vec<Connection>>,
}

impl Target {
    /// The server at `url`; a file's first line is the key that opens it.
    pub fn new(url: &str, key_file: Option<&Path>) -> Result<Self> {
        let expected = || format!("{url}: expected a URL like http://127.0.0.1:8080");
        let uri: Uri = url.parse().with_context(expected)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => bail!("{url}: TLS is not measured: ask the server behind it by http"),
            _ => bail!(expected()),
        }
        let authority = uri.authority().with_context(expected)?;
        ensure!(
            !authority.as_str().contains('@'),
            "{url}: a key goes into --api-key-file"
        );
        let address = match authority.port_u16() {
            Some(_) => authority.as_str().to_owned(),
            None => format!("{}:80", authority.as_str()),
        };
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            address,
            base: path.strip_suffix("/v1").unwrap_or(path).to_owned(),
            key: key_file.map(key).transpose()?,
            idle: Mutex::default(),
        })
    }

    /// Status and body of a page; `path` begins with a slash.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Bytes)> {
        let (response, connection) = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.with_context(|| format!("reading {path} of {}", self.address))?;
        self.keep(connection);
        Ok((status, body.to_bytes()))
    }

    /// The response to a JSON body. Its connection can be kept when the response has been read to its end.
    pub async fn post(&self, path: &str, body: Bytes) -> Result<(Response<Incoming>, Connection)> {
        self.send(Method::POST, path, body).await
    }

    /// Has a connection whose last response has been read used again.
    pub fn keep(&self, connection: Connection) {
        if !connection.is_closed() {
            self.lock().push(connection);
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(Response<Incoming>, Connection)> {
        while let Some(mut connection) = self.take_idle() {
            // The server may have closed it meanwhile: then nothing was sent, and the next one is tried.
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.send_request(self.request(&method, path, &body)?).await {
                Err(error) if error.is_canceled() => {}
                response => return Ok((response?, connection)),
            }
        }
        let mut connection = self.connect().await?;
        let response = connection
            .send_request(self.request(&method, path, &body)?)
            .await?;
        Ok((response, connection))
    }

    fn take_idle(&self) -> Option<Connection> {
        self.lock().pop()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A list of connections is sound at every moment.
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.with_context(|| format!("connecting to {}", self.address))?;
        stream.set_nodelay(true)?;
        let (connection, driver) = handshake(TokioIo::new(stream)).await?;
        // What goes wrong with it is told to whoever reads a response.
        tokio::spawn(async move { drop(driver.await) });
        Ok(connection)
    }

    fn request(&self, method: &Method, path: &str, body: &Bytes) -> Result<Request<Full<Bytes>>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(HOST, &self.address)
            .header(CONTENT_TYPE, "application/json");
        let request = match &self.key {
            Some(key) => request.header(AUTHORIZATION, key),
            None => request,
        };
        Ok(request.body(Full::new(body.clone()))?)
    }
}

fn key(file: &Path) -> Result<HeaderValue> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut lines = text.lines().map(str::trim);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    let first = first.with_context(|| format!("{}: no key in it: expected one in a line", file.display()))?;
    let mut key = HeaderValue::from_str(&format!("Bearer {first}"))
        .with_context(|| format!("{}: a key with characters that no header has", file.display()))?;
    key.set_sensitive(true);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_port_and_no_version() {
        let parts = |url: &str| {
            let target = Target::new(url, None).unwrap();
            (target.address, target.base)
        };
        let pair = |address: &str, base: &str| (address.to_owned(), base.to_owned());
        assert_eq!(parts("http://[::1]:8080"), pair("[::1]:8080", ""));
        assert_eq!(parts("http://a/v1/"), pair("a:80", ""));
        assert_eq!(parts("http://a:1/b/v1"), pair("a:1", "/b"));
        for wrong in ["https://a", "a:80", "http://", "ftp://a", "http://k@a"] {
            assert!(Target::new(wrong, None).is_err(), "{wrong}");
        }
    }
}
