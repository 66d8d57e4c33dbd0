//! `bench serve` as a user meets it: beside a real server, and beside servers that know less or break off.

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use program::{dualgrain, failure, json, scratch, start_server, stderr, text};
use serde_json::Value;

/// A server of the bundled model, and its URL; it is killed at the end of its test.
struct Server(Child, String);

impl Server {
    fn start(more: &[&str]) -> Self {
        let (child, told) = start_server(more, Stdio::inherit());
        Self(child, told["url"].as_str().unwrap().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_load_has_a_row_with_all_tokens_that_were_asked_for() {
    let server = Server::start(&["--max-sequences", "4", "--context", "256"]);
    let csv = scratch("bench_serve", "rows").join("rows.csv");
    let report = json(&[
        "bench",
        "serve",
        &server.1,
        "--concurrency",
        "1,3",
        "--requests",
        "6",
        "-p",
        "40",
        "-n",
        "9",
        "--seed",
        "1",
        "--slo-ttft",
        "1000",
        "--slo-inter-token",
        "1000",
        "--csv",
        text(&csv),
        "--json",
    ]);
    assert_eq!(report["model"], "llama-tiny");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(
        (rows.len(), &rows[0]["at_once"], &rows[1]["at_once"]),
        (2, &1.into(), &3.into())
    );
    for row in rows {
        assert_eq!(
            (&row["complete"], &row["failed"], &row["output_tokens"]),
            (&6.into(), &0.into(), &54.into())
        );
        let prompt_tokens = row["prompt_tokens"].as_f64().unwrap() / 6.0;
        // Words of this vocabulary are one or two tokens.
        assert!((30.0..50.0).contains(&prompt_tokens), "{prompt_tokens}");
        assert_eq!(row["good_per_s"], row["requests_per_s"]);
        let time = |what: &str, share: &str| row[what][share].as_f64().unwrap();
        for what in ["first", "between", "total"] {
            assert!(time(what, "p50_s") <= time(what, "p90_s") && time(what, "p90_s") <= time(what, "p99_s"));
        }
        assert!(0.0 < time("first", "p50_s") && time("first", "p50_s") <= time("total", "p50_s"));
    }
    let written = std::fs::read_to_string(csv).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    assert!(lines[0].starts_with("# llama-tiny at http://"), "{written}");
    let columns = |line: &str| line.split(',').count();
    assert!(
        lines.len() == 4 && lines[1..].iter().all(|line| columns(line) == columns(lines[1])),
        "{written}"
    );
}

#[test]
fn requests_come_at_random_moments_and_share_what_they_should() {
    let server = Server::start(&["--max-sequences", "4", "--context", "512"]);
    let report = json(&[
        "bench",
        "serve",
        &server.1,
        "--rate",
        "50",
        "--requests",
        "8",
        "-p",
        "160",
        "-n",
        "4",
        "--shared-prefix",
        "150",
        "--chat",
        "--spread",
        "0.2",
        "--json",
    ]);
    let row = &report["rows"][0];
    assert_eq!(
        (&row["arrivals_per_s"], &row["complete"]),
        (&50.0.into(), &8.into())
    );
    // Two pages of 64 tokens come from a prompt that still runs; all 150, and the template's words before them, from one that has ended and
    // whose place is free. Each request ends with tokens of its own.
    let tokens = |name: &str| row[name].as_u64().unwrap();
    let shared = 8 * 128..=tokens("prompt_tokens") - 8;
    assert!(shared.contains(&tokens("cached_tokens")), "{row}");
}

#[test]
fn a_server_without_room_refuses_and_that_is_counted_apart() {
    let server = Server::start(&["--max-sequences", "1", "--queue", "1", "--context", "512"]);
    let report = json(&[
        "bench",
        "serve",
        &server.1,
        "--rate",
        "10000",
        "--requests",
        "30",
        "-p",
        "100",
        "-n",
        "100",
        "--json",
    ]);
    let row = &report["rows"][0];
    let count = |what: &str| row[what].as_u64().unwrap();
    assert_eq!(count("complete") + count("refused"), 30, "{row}");
    assert!(count("refused") > 0 && count("complete") > 0, "{row}");
}

/// A server of another kind: it answers each request with what `answer` says of it.
fn other(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            let _ = stream.write_all(answer(&request).as_bytes());
        }
    });
    url
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        length = line
            .strip_prefix("content-length: ")
            .map_or(length, |number| number.parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

fn reply(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn a_server_that_knows_less_is_asked_for_less_and_its_events_are_counted() {
    let url = other(|request| {
        match ["ignore_eos", "stream_options"]
            .iter()
            .any(|field| request.contains(field))
        {
            true => reply("400 Bad Request", "{\"error\": {\"message\": \"unknown field\"}}"),
            false => reply(
                "200 OK",
                "data: {\"choices\": [{\"text\": \"a\"}]}\n\ndata: {\"choices\": [{\"text\": \"b\", \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n",
            ),
        }
    });
    let output = dualgrain(&[
        "bench",
        "serve",
        &url,
        "--model",
        "other",
        "--requests",
        "3",
        "-p",
        "4",
        "-n",
        "2",
        "--json",
    ]);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("does not take ignore_eos") && said.contains("does not count tokens"),
        "{said}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &report["rows"][0];
    assert_eq!((&row["complete"], &row["output_tokens"]), (&3.into(), &6.into()));
}

#[test]
fn what_went_wrong_is_told() {
    let ask = |url: &str, more: &[&str]| {
        failure(
            &[
                &[
                    "bench",
                    "serve",
                    url,
                    "--model",
                    "m",
                    "--requests",
                    "2",
                    "-p",
                    "4",
                    "-n",
                    "2",
                ],
                more,
            ]
            .concat(),
        )
    };
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(ask(&format!("http://{nobody}"), &[]).contains("connecting to"));
    assert!(ask("https://localhost", &[]).contains("TLS is not measured"));
    assert!(ask("http://localhost:1", &["--shared-prefix", "5"]).contains("more than --prompt-tokens"));
    let wrong = other(|_| {
        reply(
            "404 Not Found",
            "{\"error\": {\"message\": \"there is no model `m`\"}}",
        )
    });
    assert!(ask(&wrong, &[]).contains("404 Not Found: there is no model `m`"));
    let broken = other(|_| reply("200 OK", "data: {\"choices\": [{\"text\": \"a\"}]}\n\n"));
    assert!(ask(&broken, &[]).contains("ended without a reason"));
    let failing = other(|_| {
        reply(
            "200 OK",
            "data: {\"error\": {\"message\": \"out of memory\"}}\n\n",
        )
    });
    assert!(ask(&failing, &[]).contains("out of memory"));
}
