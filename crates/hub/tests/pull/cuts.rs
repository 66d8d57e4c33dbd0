//! Connections that break, stand still or are ended by the user: what came is kept, and what comes is the same.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dualgrain_hub::{HubError, Watch};

use crate::hub::{Hub, sha256, small_model};
use crate::server::Reply;

const LENGTH: usize = 200_000;

/// A hub whose answers of contents end after each of these numbers of bytes in turn, then as they should.
fn cut_at(cuts: &[usize]) -> Hub {
    let (cuts, turn) = (cuts.to_vec(), AtomicUsize::new(0));
    Hub::start_changed(small_model(LENGTH), move |asked, reply| {
        match asked.target.contains("signature") {
            true => Reply {
                cut: cuts.get(turn.fetch_add(1, Ordering::SeqCst)).copied(),
                ..reply
            },
            false => reply,
        }
    })
}

/// The bytes that requests of the content began with.
fn beginnings(hub: &Hub) -> Vec<usize> {
    hub.store
        .asked()
        .iter()
        .map(|asked| asked.from().unwrap_or(0))
        .collect()
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    for cuts in [
        vec![0],
        vec![1],
        vec![LENGTH / 2],
        vec![LENGTH - 1],
        vec![10, 20, 30, 40, 50, 60, 70],
    ] {
        let hub = cut_at(&cuts);
        hub.assert_whole(&hub.pull().unwrap_or_else(|error| panic!("{cuts:?}: {error}")));
        let mut expected = vec![0];
        cuts.iter()
            .for_each(|cut| expected.push(expected.last().unwrap() + cut));
        assert_eq!(beginnings(&hub), expected, "{cuts:?}");
    }
}

#[test]
fn a_length_that_is_not_announced_does_not_hide_a_cut() {
    let turn = AtomicUsize::new(0);
    let hub = Hub::start_changed(small_model(LENGTH), move |asked, reply| {
        match asked.target.contains("signature") {
            true if turn.fetch_add(1, Ordering::SeqCst) == 0 => Reply {
                cut: Some(1000),
                without_length: true,
                ..reply
            },
            _ => reply,
        }
    });
    hub.assert_whole(&hub.pull().unwrap());
    assert_eq!(beginnings(&hub), [0, 1000]);
}

#[test]
fn a_network_that_stays_away_ends_with_how_to_go_on_and_the_next_run_goes_on() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let hub = Hub::start_changed(small_model(LENGTH), move |asked, reply| {
        match asked.target.contains("signature") {
            true if !up.load(Ordering::SeqCst) => Reply {
                cut: Some(if asked.from().is_none() { 50_000 } else { 0 }),
                ..reply
            },
            _ => reply,
        }
    });
    let error = hub.refusal();
    assert!(
        error.contains("model.safetensors") && error.contains("run the same command"),
        "{error}"
    );
    assert!(hub.has_no_model());
    is_up.store(true, Ordering::SeqCst);
    hub.store.forget();
    hub.assert_whole(&hub.pull().unwrap());
    assert_eq!(beginnings(&hub), [50_000]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let mut hub = Hub::start(small_model(10));
    hub.settings.endpoint = "http://127.0.0.1:1".to_owned();
    let error = hub.refusal();
    assert!(
        error.contains("127.0.0.1:1") && error.contains("run the same command"),
        "{error}"
    );
}

#[test]
fn silence_counts_as_a_cut() {
    let turn = AtomicUsize::new(0);
    let mut hub = Hub::start_changed(small_model(LENGTH), move |asked, reply| {
        match asked.target.contains("signature") {
            true if turn.fetch_add(1, Ordering::SeqCst) == 0 => Reply {
                silence: Some(Duration::from_secs(20)),
                ..reply
            },
            _ => reply,
        }
    });
    hub.settings.patience.silence = Duration::from_millis(300);
    hub.assert_whole(&hub.pull().unwrap());
    assert_eq!(beginnings(&hub), [0, 1]);
}

/// Raises the flag when some bytes have come.
struct Impatient<'a>(&'a AtomicBool);

impl Watch for Impatient<'_> {
    fn bytes(&self, file: &str, done: u64, _: u64) {
        if file.ends_with("safetensors") && done > 0 {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    fn file(&self, _: &str, _: u64, _: bool) {}
    fn say(&self, _: &str) {}
}

#[test]
fn who_ends_it_keeps_what_came() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let hub = Hub::start_changed(small_model(LENGTH), move |asked, reply| {
        match asked.target.contains("signature") {
            true if slow.load(Ordering::SeqCst) => Reply {
                silence: Some(Duration::from_secs(20)),
                ..reply
            },
            _ => reply,
        }
    });
    let cancel = AtomicBool::new(false);
    let ended = hub.pull_watched(&Impatient(&cancel), &cancel);
    assert!(matches!(ended, Err(HubError::Cancelled)), "{ended:?}");
    assert!(hub.has_no_model());
    let part = hub
        .folder()
        .join("blobs")
        .join(format!("{}.incomplete", sha256(&hub.files["model.safetensors"])));
    let kept = fs::read(&part).unwrap();
    assert!(!kept.is_empty() && hub.files["model.safetensors"].starts_with(&kept));
    is_slow.store(false, Ordering::SeqCst);
    hub.store.forget();
    hub.assert_whole(&hub.pull().unwrap());
    assert_eq!(beginnings(&hub), [kept.len()]);
    assert!(!part.exists());
}

#[test]
fn a_server_that_knows_no_ranges_begins_again() {
    let turn = AtomicUsize::new(0);
    let hub = Hub::start_changed(small_model(LENGTH), move |asked, reply| {
        match (asked.target.contains("signature"), turn.load(Ordering::SeqCst)) {
            (true, 0) => {
                turn.store(1, Ordering::SeqCst);
                Reply {
                    cut: Some(70_000),
                    ..reply
                }
            }
            (true, _) => Reply::new(200, crate::hub::weights(LENGTH, 4)),
            _ => reply,
        }
    });
    hub.assert_whole(&hub.pull().unwrap());
}
