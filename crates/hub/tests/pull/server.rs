//! A small server of HTTP over loopback, with or without TLS: what is asked is kept, what is answered is a test's affair.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The byte that a range begins with.
    pub fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut: Option<usize>,
    /// Nothing is said for so long after the first byte of the body.
    pub silence: Option<Duration>,
    /// The length is not announced.
    pub without_length: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A server that runs until the test's process ends.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    is_tls: bool,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

impl Server {
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler)
    }

    /// A server with a certificate for `localhost` that it made itself; the certificate is given back.
    pub fn start_tls(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        (Self::start_with(Some(Arc::new(config)), handler), made.cert.pem())
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            is_tls: tls.is_some(),
            asked: Arc::default(),
        };
        let (asked, handler): (_, Arc<Handler>) = (Arc::clone(&server.asked), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, asked, handler) = (tls.clone(), Arc::clone(&asked), Arc::clone(&handler));
                std::thread::spawn(move || match tls {
                    None => answer(stream, &asked, &*handler),
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        answer(StreamOwned::new(connection, stream), &asked, &*handler);
                    }
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        match self.is_tls {
            true => format!("https://localhost:{}", self.address.port()),
            false => format!("http://{}", self.address),
        }
    }

    /// Everything that was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

/// Answers one request and ends the connection.
fn answer(stream: impl Read + Write, asked: &Mutex<Vec<Asked>>, handler: &Handler) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream) else { return };
    asked.lock().unwrap().push(request.clone());
    let reply = handler(&request);
    // A client that went away is no error of the server.
    let _ = write(stream.get_mut(), &request, &reply);
}

fn read(stream: &mut impl BufRead) -> Option<Asked> {
    let mut lines = stream
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty());
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Asked {
        method,
        target,
        headers: headers.collect(),
    })
}

fn write(stream: &mut impl Write, request: &Asked, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Said\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let has_length = reply.headers.iter().any(|(name, _)| name == "content-length");
    if !reply.without_length && !has_length {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    let body: &[u8] = if request.method == "HEAD" {
        &[]
    } else {
        &reply.body
    };
    let body = &body[..reply.cut.unwrap_or(body.len()).min(body.len())];
    let (first, rest) = body.split_at(body.len().min(1));
    stream.write_all(first)?;
    stream.flush()?;
    if let Some(silence) = reply.silence {
        std::thread::sleep(silence);
    }
    stream.write_all(rest)?;
    stream.flush()
}

/// A proxy: forwards whole addresses and opens tunnels, from the names in `hosts` to one server. What is asked of it is kept.
pub fn start_proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || forward(stream, to, &kept));
        }
    });
    (address, asked)
}

fn forward(client: TcpStream, to: SocketAddr, kept: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let request = read(&mut reader)?;
    kept.lock().unwrap().push(request.clone());
    let mut client = client;
    let mut server = TcpStream::connect(to).ok()?;
    match request.method == "CONNECT" {
        true => client.write_all(b"HTTP/1.1 200 Open\r\n\r\n").ok()?,
        false => {
            let path = request.target.strip_prefix("http://")?;
            let path = &path[path.find('/')?..];
            let mut head = format!("{} {path} HTTP/1.1\r\n", request.method);
            for (name, value) in &request.headers {
                head += &format!("{name}: {value}\r\n");
            }
            server.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        }
    }
    let (mut up_from, mut up_to) = (reader, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
    std::io::copy(&mut server, &mut client).ok()?;
    client.shutdown(std::net::Shutdown::Both).ok()
}
