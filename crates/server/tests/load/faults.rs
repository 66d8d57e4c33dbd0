//! Requests that are broken, each in its own way, among good ones: every good answer is right, and nothing is left.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dualgrain::SessionLimits;
use dualgrain_device::cases::Random;
use dualgrain_server::{Keys, Options};
use dualgrain_testing::{damage, damage_text};
use tokio::runtime::Runtime;

use crate::asked::{Asked, Choice};
use crate::client::{Server, read_reply, request};
use crate::traces::{Traces, resident_bytes};

/// Different good requests; each comes many times.
const NUM_GOOD: usize = 40;
const NUM_CLIENTS: usize = 8;
const BODY_BYTES: usize = 1 << 20;
/// Rounds, after each of which memory is looked at; and at most, while memory has grown in each.
const NUM_ROUNDS: usize = 3;
const MOST_ROUNDS: usize = 6;
/// What a further round like the others may add to the process: pieces of memory that are kept for the next request. A leak of a
/// hundredth of a body a request would be more.
const MAX_GROWTH_BYTES: u64 = 16 << 20;

#[test]
fn good_answers_among_broken_requests_are_right_and_nothing_is_left() {
    rounds(100);
}

#[test]
#[ignore = "takes minutes: three rounds of a thousand broken and a thousand good requests"]
fn a_thousand_broken_requests_among_a_thousand_good_ones_leave_nothing() {
    rounds(1000);
}

/// A round to grow to the usual size, and another one like it.
fn rounds(num_broken: usize) {
    let _by_itself = crate::by_itself();
    // As the program does.
    dualgrain::share_one_arena();
    let all = good_requests();
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    fs::write(&keys, "sesame\n").unwrap();
    let options = Options {
        keys: Some(Keys::read(&keys).unwrap()),
        buffered_pieces: 64,
        patience: Duration::from_secs(2),
        body_bytes: BODY_BYTES,
        ..Options::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut limits = SessionLimits::new(8, 320, 32);
    limits.num_pages = Some(14);
    let server = Server::start_on(&runtime, limits, options);
    server.wait_for_rest();
    let before = Traces::of(&runtime);
    // What leaks grows in every round; more grammars at once than before, by chance or beside other work, in one or two.
    let stays = |pair: &[u64]| pair[1] < pair[0] + MAX_GROWTH_BYTES;
    let mut resident = Vec::new();
    while resident.len() < NUM_ROUNDS || (!resident.windows(2).any(stays) && resident.len() < MOST_ROUNDS) {
        round(&server, num_broken, 1 + resident.len() as u64, &all);
        at_rest(&server, &runtime, before);
        resident.push(resident_bytes());
    }
    println!(
        "{} rounds of {num_broken} broken and {num_broken} good requests: {before:?} before and after, {resident:?} bytes resident, {} \
         readers went away, {} were too slow",
        resident.len(),
        server.metric("dualgrain:abandoned_total"),
        server.metric("dualgrain:slow_readers_total")
    );
    assert!(resident.windows(2).any(stays), "{resident:?} bytes");
}

/// Good requests, and what each is answered alone.
fn good_requests() -> Vec<(Asked, Vec<Choice>)> {
    let mut random = Random(29);
    let quiet = Server::start(SessionLimits::new(1, 320, 128), Options::default());
    let asked = (0..NUM_GOOD).map(|_| Asked::draw(&mut random));
    asked
        .map(|asked| {
            let choices = asked.choices(&quiet, false);
            (asked, choices)
        })
        .collect()
}

fn round(server: &Server, num_broken: usize, seed: u64, all: &[(Asked, Vec<Choice>)]) {
    let (next_good, next_broken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let next = |counter: &AtomicUsize| {
        Some(counter.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < num_broken)
    };
    std::thread::scope(|scope| {
        for _ in 0..NUM_CLIENTS {
            scope.spawn(|| {
                while let Some(index) = next(&next_good) {
                    let (asked, alone) = &all[index % all.len()];
                    let bytes = with_key(asked.bytes(index % 2 == 0));
                    assert_eq!(
                        &asked.choices_of(&server.raw(&bytes), index % 2 == 0),
                        alone,
                        "{}",
                        asked.body
                    );
                }
            });
            scope.spawn(|| {
                while let Some(index) = next(&next_broken) {
                    let mut random = Random(seed * 1_000_000 + index as u64);
                    broken(server, index, &mut random);
                }
            });
        }
    });
}

/// Waits until nothing runs and nothing is left.
#[track_caller]
fn at_rest(server: &Server, runtime: &Runtime, before: Traces) {
    server.wait_for_rest();
    // The connection that asks for the number is left.
    server.wait_for("dualgrain:connections", |open| open == 1.0);
    before.wait_until_gone(runtime);
    assert_eq!(server.metric("dualgrain:failures_total"), 0.0);
}

fn with_key(bytes: Vec<u8>) -> Vec<u8> {
    let head = b"Authorization: Bearer sesame\r\n";
    let line = bytes.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    [&bytes[..line], head, &bytes[line..]].concat()
}

/// A request that is broken in a way of its own: its kind by its number, where and how much at random.
fn broken(server: &Server, index: usize, random: &mut Random) {
    let asked = Asked::draw(random);
    let whole = with_key(asked.bytes(random.below(2) == 0));
    let body = asked.body.to_string();
    let post = |body: &[u8]| with_key(request(asked.path, "", body));
    match index % 17 {
        0 => cut_while_sending(server, &whole, random),
        1 => cut_while_waiting(server, &whole, random),
        2 => cut_while_reading(server, &with_key(asked.bytes(true)), random),
        3 => read_too_slowly(server, &with_key(asked.bytes(true))),
        4 => refused(
            server,
            &post(&body.as_bytes()[..random.below(body.len())]),
            &[400],
        ),
        5 => answered(server, &post(&damage(random, body.as_bytes()))),
        6 => answered(server, &post(damage_text(random, &body).as_bytes())),
        7 => refused(server, &post(&bad_utf8(body.as_bytes(), random)), &[400]),
        8 => tried(
            server,
            &post(&vec![b' '; BODY_BYTES + 1 + random.below(8 * BODY_BYTES)]),
            &[413],
        ),
        9 => refused(server, &asked.bytes(true), &[401]),
        10 => refused(
            server,
            &post(format!("{}{body}", "[".repeat(1 + random.below(100_000))).as_bytes()),
            &[400],
        ),
        11 => refused(server, &post(unknown_field(&body, random).as_bytes()), &[400]),
        12 => refused(server, &post(&too_long(random)), &[400]),
        13 => tried(server, &wrong_head(&whole, random), &[400, 404, 405, 415, 431]),
        14 => lying_length(server, &body, random),
        15 => bomb(server, index / 17),
        _ => noise(server, random),
    }
}

fn cut_while_sending(server: &Server, whole: &[u8], random: &mut Random) {
    let mut stream = server.send(&whole[..random.below(whole.len())]);
    let _ = stream.flush();
    pause(random, 5);
    let _ = stream.shutdown(Shutdown::Both);
}

fn cut_while_waiting(server: &Server, whole: &[u8], random: &mut Random) {
    let stream = server.send(whole);
    pause(random, 60);
    drop(stream);
}

fn cut_while_reading(server: &Server, whole: &[u8], random: &mut Random) {
    let mut stream = server.send(whole);
    let _ = stream.read(&mut vec![0; 1 + random.below(4000)]);
}

/// Leaves an answer unread, and then reads what there is of it.
fn read_too_slowly(server: &Server, whole: &[u8]) {
    let mut stream = server.send(whole);
    std::thread::sleep(Duration::from_millis(100));
    let reply = read_reply(&mut stream);
    assert!(reply.status == 200, "{}", reply.text());
}

/// The status must be one of these, with a reason.
#[track_caller]
fn refused(server: &Server, bytes: &[u8], statuses: &[u16]) {
    let reply = server.raw(bytes);
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    assert!(
        statuses.contains(&reply.status),
        "{}: {shown}: {}",
        reply.status,
        reply.text()
    );
    // What breaks the protocol is refused before there is an interface to refuse it in the shape of.
    if !reply.body.is_empty() {
        assert!(
            !reply.json()["error"]["message"].as_str().unwrap().is_empty(),
            "{}",
            reply.text()
        );
    }
}

/// As `refused`, where the server may hang up before it has been sent everything.
#[track_caller]
fn tried(server: &Server, bytes: &[u8], statuses: &[u16]) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (mut head, sent) = ([0; 12], stream.write_all(bytes));
    match stream.read_exact(&mut head) {
        Ok(()) => {
            let status = std::str::from_utf8(&head[9..]).unwrap().parse().unwrap();
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
            assert!(statuses.contains(&status), "{status}: {shown}");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{sent:?}"),
    }
}

/// Damage may leave a request that is fine; anything but the server's fault will do.
#[track_caller]
fn answered(server: &Server, bytes: &[u8]) {
    let reply = server.raw(bytes);
    assert!(reply.status < 500, "{}", reply.text());
}

fn bad_utf8(body: &[u8], random: &mut Random) -> Vec<u8> {
    const WRONG: [&[u8]; 4] = [b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"];
    // The second byte of every body lies in the name of its first field.
    [&body[..2], WRONG[random.below(WRONG.len())], &body[2..]].concat()
}

fn unknown_field(body: &str, random: &mut Random) -> String {
    let wrong = [
        "\"max_token\":1",
        "\"temperature\":9",
        "\"n\":0",
        "\"n\":1000",
        "\"stop\":7",
        "\"logit_bias\":{\"x\":1}",
        "\"top_p\":\"all\"",
        "\"stream\":\"yes\"",
        "\"max_tokens\":-1",
        "\"seed\":0.5",
    ];
    // The last of two fields of a name counts.
    format!(
        "{},{}}}",
        &body[..body.len() - 1],
        wrong[random.below(wrong.len())]
    )
}

fn too_long(random: &mut Random) -> Vec<u8> {
    let prompt = "sea ".repeat(400 + random.below(4000));
    let body = serde_json::json!({"prompt": prompt, "messages": [{"role": "user", "content": prompt}]});
    body.to_string().into_bytes()
}

fn wrong_head(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8(whole.to_vec()).unwrap();
    let (line, rest) = text.split_once("\r\n").unwrap();
    let long = "x".repeat(1000 + random.below(100_000));
    match random.below(6) {
        0 => format!("GET{}\r\n{rest}", &line[4..]),
        1 => format!("POST /v1/{} HTTP/1.1\r\n{rest}", &long[..random.below(1000)]),
        2 => format!(
            "{line}\r\nX-Long: {}\r\n{rest}",
            "x".repeat(700_000 + random.below(500_000))
        ),
        3 => format!(
            "{line}\r\n{}{rest}",
            "X-Many: 1\r\n".repeat(200 + random.below(1000))
        ),
        4 => text.replace(
            "application/json",
            ["text/plain", "", "multipart/form-data"][random.below(3)],
        ),
        _ => format!(
            "{} HTTP/9.{}\r\n{rest}",
            &line[..line.len() - 9],
            random.below(10)
        ),
    }
    .into_bytes()
}

/// A schema whose grammar would take more than anybody has: refused, or followed within its bounds. The same ones in every round.
fn bomb(server: &Server, number: usize) {
    let mut deep = serde_json::json!({"type": "integer"});
    for _ in 0..20 + number % 100 {
        deep = serde_json::json!({"type": "array", "items": deep, "minItems": 2});
    }
    let power = 10 + number * 37 % 1000;
    let schema = match number % 6 {
        0 => deep,
        1 => {
            serde_json::json!({"type": "string", "pattern": format!("^(((a{{1,{power}}}){{1,100}}){{1,100}}){{1,100}}$")})
        }
        2 => serde_json::json!({"type": "string", "pattern": format!("^(a?){{{power}}}a{{{power}}}$")}),
        3 => serde_json::json!({"type": "array", "minItems": 2_000_000_000}),
        4 => {
            serde_json::json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})
        }
        _ => serde_json::json!({"type": "string", "minLength": 4_000_000_000_u64}),
    };
    let format =
        serde_json::json!({"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}});
    let messages = crate::client::said("sea");
    let body = serde_json::json!({"messages": messages, "max_tokens": 4, "response_format": format});
    let reply = server.raw(&with_key(request(
        "/v1/chat/completions",
        "",
        body.to_string().as_bytes(),
    )));
    assert!(
        [200, 400, 429].contains(&reply.status),
        "{schema}: {}",
        reply.text()
    );
}

/// A body that is shorter or longer than it says.
fn lying_length(server: &Server, body: &str, random: &mut Random) {
    let length = match random.below(2) {
        0 => body.len() + 1 + random.below(1000),
        _ => random.below(body.len()),
    };
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer sesame\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut stream = server.send(&[head.as_bytes(), body.as_bytes()].concat());
    let _ = stream.shutdown(Shutdown::Write);
    read_all(&mut stream);
}

/// Bytes that are no HTTP: what another protocol begins with, or none.
fn noise(server: &Server, random: &mut Random) {
    const BEGINNINGS: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ];
    let mut bytes = BEGINNINGS[random.below(BEGINNINGS.len())].to_vec();
    bytes.extend((0..1 + random.below(2000)).map(|_| random.below(256) as u8));
    let mut stream = server.send(&bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read_all(&mut stream);
}

fn read_all(stream: &mut TcpStream) {
    // Whatever comes, and a reset as well.
    let _ = stream.read_to_end(&mut Vec::new());
}

fn pause(random: &mut Random, most_ms: usize) {
    std::thread::sleep(Duration::from_millis(random.below(most_ms) as u64));
}
