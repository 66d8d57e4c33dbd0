//! A running server, and what it answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::program::start_server;

/// `serve` with the bundled model; it is killed when dropped.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub fn start() -> Self {
        let (child, started) = start_server(&["--context", "256", "--max-sequences", "2"], Stdio::null());
        let url = started["url"].as_str().expect("an address").to_owned();
        let address = url.trim_start_matches("http://").to_owned();
        Self { child, address }
    }

    /// Status and body of GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    /// Status and body of POST.
    pub fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let body = body.to_string();
        let head = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json");
        self.ask(&format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer of HTTP");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
