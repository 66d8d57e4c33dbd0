//! Requests and their answers, with redirections followed by hand: a token goes to the server that it is for, and to no other.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::connection;
use super::patience::Patience;
use super::proxies::Proxies;
use super::url::Url;
use crate::error::HubError;

/// Redirections in a row that are followed.
const MAX_REDIRECTIONS: usize = 10;
/// How often a wait looks whether it was cancelled.
const GLANCE: Duration = Duration::from_millis(100);
/// Who asks.
const USER_AGENT: &str = concat!("dualgrain/", env!("CARGO_PKG_VERSION"));

/// Asks servers.
pub struct Client<'a> {
    /// There until the client is dropped.
    runtime: Option<Runtime>,
    tls: TlsConnector,
    proxies: Proxies,
    /// How long is waited, and how often tried.
    pub patience: Patience,
    /// The server that the token is for, and the token.
    secret: Option<(Url, HeaderValue)>,
    cancel: &'a AtomicBool,
}

/// An answer whose body has not come yet.
pub struct Answer<'a> {
    /// Where it came from, redirections followed.
    pub url: Url,
    /// The code.
    pub status: StatusCode,
    /// The headers of every server on the way, the first one first.
    pub hops: Vec<HeaderMap>,
    body: Incoming,
    client: &'a Client<'a>,
}

impl<'a> Client<'a> {
    /// A client that goes through `proxies` and trusts the certificates in a file, or the system's. Every wait ends soon after
    /// `cancel` is raised.
    ///
    /// # Errors
    /// Certificates that can not be read, a system without network calls.
    pub fn new(
        certificates: Option<&Path>,
        (proxies, patience): (Proxies, Patience),
        cancel: &'a AtomicBool,
    ) -> Result<Self, HubError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let setting = |problem: String| HubError::Setting {
            name: "network".to_owned(),
            problem,
        };
        Ok(Self {
            runtime: Some(runtime.map_err(|error| setting(error.to_string()))?),
            tls: TlsConnector::from(Arc::new(tls(certificates)?)),
            proxies,
            patience,
            secret: None,
            cancel,
        })
    }

    /// Sends `header` as authorization to the server of `url`, and to no other.
    ///
    /// # Errors
    /// A header that can not be sent.
    pub fn trust(&mut self, url: Url, header: &str) -> Result<(), HubError> {
        let mut value = HeaderValue::from_str(header).map_err(|error| HubError::Setting {
            name: "HF_TOKEN".to_owned(),
            problem: error.to_string(),
        })?;
        value.set_sensitive(true);
        self.secret = Some((url, value));
        Ok(())
    }

    /// Asks for what lies at `url`, from a byte on, and follows redirections.
    ///
    /// # Errors
    /// No answer, or no end of redirections.
    pub fn get(&self, url: &Url, from: u64) -> Result<Answer<'_>, HubError> {
        self.ask(Method::GET, url, from, |_| true)
    }

    /// Asks for headers alone, and follows redirections on the same server: what another says of a file is its own affair.
    ///
    /// # Errors
    /// No answer, or no end of redirections.
    pub fn head(&self, url: &Url) -> Result<Answer<'_>, HubError> {
        self.ask(Method::HEAD, url, 0, |next| next.is_same_server(url))
    }

    fn ask(
        &self,
        method: Method,
        url: &Url,
        from: u64,
        is_followed: impl Fn(&Url) -> bool,
    ) -> Result<Answer<'_>, HubError> {
        let mut hops = Vec::new();
        let mut at = url.clone();
        loop {
            let answer = self.send(&method, &at, from)?;
            let (head, body) = answer.into_parts();
            let next = redirection(&at, head.status, &head.headers)?;
            hops.push(head.headers);
            match next.filter(&is_followed) {
                Some(_) if hops.len() > MAX_REDIRECTIONS => {
                    return Err(wrong_way(url, "it never ends".to_owned()));
                }
                Some(next) => at = next,
                None => {
                    return Ok(Answer {
                        url: at,
                        status: head.status,
                        hops,
                        body,
                        client: self,
                    });
                }
            }
        }
    }

    fn send(&self, method: &Method, url: &Url, from: u64) -> Result<Response<Incoming>, HubError> {
        let proxy = self.proxies.on_the_way_to(url);
        let opened = connection::open(url, proxy, &self.tls);
        let mut sender = self
            .wait(self.patience.connecting, opened)
            .and_then(|opened| opened.map_err(Broken::opening))
            .map_err(|broken| broken.at(url))?;
        let is_whole = proxy.is_some() && !url.is_tls();
        let mut request = self.request(method, url, from, is_whole)?;
        if let Some(authorization) = proxy
            .filter(|_| is_whole)
            .and_then(|proxy| proxy.authorization.clone())
        {
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, authorization);
        }
        self.wait(self.patience.silence, sender.send_request(request))
            .and_then(|sent| sent.map_err(|error| Broken::Network(told(&error))))
            .map_err(|broken| broken.at(url))
    }

    /// A proxy that forwards wants the whole address.
    fn request(
        &self,
        method: &Method,
        url: &Url,
        from: u64,
        is_whole: bool,
    ) -> Result<Request<Empty<Bytes>>, HubError> {
        let wrong = |problem: String| wrong_way(url, problem);
        let place = if is_whole {
            url.whole()
        } else {
            url.path().to_owned()
        };
        let mut request = Request::builder()
            .method(method)
            .uri(place)
            .header(header::HOST, url.host_header().map_err(wrong)?)
            .header(header::USER_AGENT, USER_AGENT)
            // Lengths and checksums are those of the file itself.
            .header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some((_, secret)) = self
            .secret
            .as_ref()
            .filter(|(server, _)| server.is_same_server(url))
        {
            request = request.header(header::AUTHORIZATION, secret);
        }
        request
            .body(Empty::new())
            .map_err(|error| wrong(error.to_string()))
    }

    /// Pauses before the next try.
    ///
    /// # Errors
    /// It was cancelled.
    pub fn pause(&self, time: Duration) -> Result<(), HubError> {
        let started = Instant::now();
        while started.elapsed() < time {
            self.check()?;
            std::thread::sleep(GLANCE.min(time.saturating_sub(started.elapsed())));
        }
        self.check()
    }

    /// Fails when it was cancelled.
    ///
    /// # Errors
    /// It was cancelled.
    pub fn check(&self) -> Result<(), HubError> {
        match self.cancel.load(Ordering::SeqCst) {
            true => Err(HubError::Cancelled),
            false => Ok(()),
        }
    }

    /// What `future` gives, within a time.
    fn wait<T>(&self, time: Duration, future: impl Future<Output = T>) -> Result<T, Broken> {
        let Some(runtime) = &self.runtime else {
            return Err(Broken::Cancelled);
        };
        runtime.block_on(async {
            let mut future = pin!(future);
            let started = Instant::now();
            loop {
                match tokio::time::timeout(GLANCE, &mut future).await {
                    Ok(value) => return Ok(value),
                    Err(_) if self.cancel.load(Ordering::SeqCst) => return Err(Broken::Cancelled),
                    Err(_) if started.elapsed() >= time => {
                        return Err(Broken::Network(format!(
                            "nothing came for {} s",
                            time.as_secs_f64()
                        )));
                    }
                    Err(_) => {}
                }
            }
        })
    }
}

impl Drop for Client<'_> {
    /// A name that is looked up for minutes does not keep a program that was interrupted.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Answer<'_> {
    /// A header of the last server.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.hops.last()?.get(name)?.to_str().ok()
    }

    /// A header of the first server on the way that has it.
    pub fn header_on_the_way(&self, name: &str) -> Option<&str> {
        let mut found = self.hops.iter().filter_map(|headers| headers.get(name));
        found.find_map(|value| value.to_str().ok())
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection broke before the end that was announced.
    pub fn next(&mut self) -> Result<Option<Bytes>, HubError> {
        loop {
            let frame = self.client.wait(self.client.patience.silence, self.body.frame());
            let frame = frame.map_err(|broken| broken.at(&self.url))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Broken::Network(told(&error)).at(&self.url)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body; `None` where it is longer than `most_bytes`.
    ///
    /// # Errors
    /// The connection broke.
    pub fn whole(&mut self, most_bytes: usize) -> Result<Option<Vec<u8>>, HubError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next()? {
            if whole.len() + bytes.len() > most_bytes {
                return Ok(None);
            }
            whole.extend_from_slice(&bytes);
        }
        Ok(Some(whole))
    }
}

/// Why a wait ended without what was waited for.
enum Broken {
    Cancelled,
    Network(String),
    /// Another try would end the same way.
    ForGood(String),
}

impl Broken {
    /// A connection that was not made: a certificate that is not trusted and a proxy that refuses stay as they are.
    fn opening(error: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, PermissionDenied};
        let words = told(&error);
        match matches!(error.kind(), InvalidData | InvalidInput | PermissionDenied) {
            true => Self::ForGood(words),
            false => Self::Network(words),
        }
    }

    fn at(self, url: &Url) -> HubError {
        match self {
            Self::Cancelled => HubError::Cancelled,
            Self::Network(problem) => HubError::Network {
                host: url.authority(),
                problem,
            },
            Self::ForGood(problem) => HubError::Unreachable {
                host: url.authority(),
                problem,
            },
        }
    }
}

/// Where an answer sends us, if it does.
fn redirection(at: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, HubError> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = headers
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok());
    let location = location.ok_or_else(|| wrong_way(at, "it does not say where".to_owned()))?;
    let next = at.join(location).map_err(|problem| wrong_way(at, problem))?;
    match at.is_tls() && !next.is_tls() {
        true => Err(wrong_way(at, "it gives up TLS".to_owned())),
        false => Ok(Some(next)),
    }
}

fn wrong_way(url: &Url, problem: String) -> HubError {
    HubError::Redirection {
        url: url.shown(),
        problem,
    }
}

/// An error with its causes, each said once.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// Trust in the certificates of a file, or in those that the system trusts.
fn tls(certificates: Option<&Path>) -> Result<ClientConfig, HubError> {
    let CertificateResult { certs, errors, .. } = match certificates {
        Some(path) => load_certs_from_paths(Some(path), None),
        None => load_native_certs(),
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certs);
    // Without certificates a hub without TLS, a mirror in the house, still works: its absence is told by the first handshake.
    match (certificates, added, errors.first()) {
        (Some(path), 0, error) => Err(HubError::Setting {
            name: format!("SSL_CERT_FILE={}", path.display()),
            problem: error.map_or_else(|| "no certificate in it".to_owned(), ToString::to_string),
        }),
        _ => Ok(ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth()),
    }
}
