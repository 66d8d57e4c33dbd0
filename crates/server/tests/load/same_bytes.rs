//! An answer does not depend on who else is served: among others that come at random moments and go away in every phase, with too few
//! pages and with beginnings that the cache holds or does not hold yet, each equals its run alone.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dualgrain::SessionLimits;
use dualgrain_device::cases::Random;
use dualgrain_server::Options;

use crate::asked::{Asked, Choice};
use crate::client::Server;

const NUM_CLIENTS: usize = 24;

#[test]
fn a_hundred_requests_among_others_equal_themselves_alone() {
    compare(100);
}

#[test]
#[ignore = "takes minutes: the same with 500 requests"]
fn five_hundred_requests_among_others_equal_themselves_alone() {
    compare(500);
}

fn compare(num_requests: usize) {
    let _by_itself = crate::by_itself();
    let mut random = Random(13);
    let all: Vec<Asked> = (0..num_requests).map(|_| Asked::draw(&mut random)).collect();
    let alone = alone(&all);
    let mut limits = SessionLimits::new(8, 320, 32);
    // Fewer pages than eight sequences can fill: some lose theirs and run again.
    limits.num_pages = Some(14);
    let busy = Server::start(limits, Options::default());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let leaving: Vec<_> = (0..4)
            .map(|seed| {
                scope.spawn({
                    let (busy, done) = (&busy, &done);
                    move || leave(busy, &mut Random(1000 + seed), done)
                })
            })
            .collect();
        let clients: Vec<_> = (0..NUM_CLIENTS)
            .map(|client| {
                scope.spawn({
                    let (busy, all, alone) = (&busy, &all, &alone);
                    move || ask(busy, client, all, alone)
                })
            })
            .collect();
        let equal: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::Relaxed);
        let left: usize = leaving.into_iter().map(|leaving| leaving.join().unwrap()).sum();
        assert!(
            equal.iter().all(Result::is_ok),
            "an answer among others is another one"
        );
        assert!(left > 10, "{left} went away");
    });
    busy.wait_for_rest();
    let count = |name: &str| busy.metric(name);
    let (preempted, cached) = (
        count("vllm:num_preemptions_total"),
        count("vllm:prefix_cache_hits_total"),
    );
    let abandoned = count("dualgrain:abandoned_total");
    println!(
        "{num_requests} requests equal themselves alone; {preempted} times pages were taken, {cached} prompt tokens were cached, \
         {abandoned} readers went away"
    );
    assert!(preempted > 0.0 && cached > 0.0 && abandoned > 0.0);
}

/// Each answer of a server that serves nobody else, whole.
fn alone(all: &[Asked]) -> Vec<Vec<Choice>> {
    let quiet = Server::start(SessionLimits::new(1, 320, 128), Options::default());
    all.iter().map(|asked| asked.choices(&quiet, false)).collect()
}

/// Every request of one client, at random moments, streamed or whole; every fourth comes twice.
fn ask(busy: &Server, client: usize, all: &[Asked], alone: &[Vec<Choice>]) {
    let mut random = Random(100 + client as u64);
    for index in (0..all.len()).filter(|index| index % NUM_CLIENTS == client) {
        for _ in 0..1 + usize::from(index % 4 == 0) {
            std::thread::sleep(Duration::from_millis(random.below(40) as u64));
            let choices = all[index].choices(busy, random.below(2) == 0);
            assert_eq!(choices, alone[index], "{}", all[index].body);
        }
    }
}

/// Sends requests and goes away: before they are whole, while they wait, in their prompt, or in their answer. How many.
fn leave(busy: &Server, random: &mut Random, done: &AtomicBool) -> usize {
    let mut left = 0;
    while !done.load(Ordering::Relaxed) {
        let bytes = Asked::draw(random).bytes(random.below(2) == 0);
        let sent = match random.below(4) {
            0 => random.below(bytes.len()),
            _ => bytes.len(),
        };
        let mut stream = busy.send(&bytes[..sent]);
        match random.below(3) {
            0 => {}
            1 => std::thread::sleep(Duration::from_millis(random.below(100) as u64)),
            // As much of an answer as there is.
            _ if sent == bytes.len() => drop(stream.read(&mut vec![0; 1 + random.below(2000)])),
            _ => {}
        }
        left += 1;
    }
    left
}
